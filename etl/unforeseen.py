"""What a command says when something happened that no one foresaw."""

from pathlib import Path

from etl.errors import EtlError, StorageError


def unforeseen(error: Exception) -> EtlError:
    """Describe an exception by its type and place; its text may hold data, so it is not repeated."""
    if isinstance(error, OSError) and error.errno is not None:
        return StorageError(f"{error.strerror}: check the disk and this user's rights", code="io_error")
    if isinstance(error, MemoryError):
        return EtlError("out of memory: give the job more, or lower http.max_body_bytes", code="out_of_memory")
    return EtlError(
        f"a bug: {type(error).__name__} at {place_of(error)}; nothing was changed: please report it", code="bug"
    )


def place_of(error: Exception) -> str:
    """Return the innermost line of this package that the exception came through, such as `etl/diff.py:31`."""
    place, trace = "?", error.__traceback__
    while trace is not None:
        parts = Path(trace.tb_frame.f_code.co_filename).parts
        if "etl" in parts[:-1]:
            last = len(parts) - 1 - parts[::-1].index("etl")
            place = f"{'/'.join(parts[last:])}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
