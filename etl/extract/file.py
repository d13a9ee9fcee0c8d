"""A saved response body, plain or gzip, in place of an answer of the source."""

from pathlib import Path

from etl.errors import StorageError
from etl.extract.body import CHUNK_BYTES, Body, BodyWriter, CorruptStreamError, Decompressor, storage_failures

_GZIP = b"\x1f\x8b"


def read_file(path: str, limit: int) -> Body:
    """Read the file, decompressing it where it is gzip, whatever it is called.

    Raises StorageError when it cannot be read or is damaged, DataRefusedError when it holds more than `limit` bytes.
    """
    with storage_failures(path), Path(path).open("rb") as file, BodyWriter(limit) as writer:
        chunk = file.read(CHUNK_BYTES)
        decompressor = Decompressor("gzip") if chunk.startswith(_GZIP) else None
        try:
            while chunk:
                for piece in decompressor.feed(chunk) if decompressor else (chunk,):
                    writer.write(piece)
                chunk = file.read(CHUNK_BYTES)
            if decompressor:
                decompressor.finish()
        except CorruptStreamError:
            raise StorageError(
                f"{path}: the gzip file is damaged or cut; take another copy", code="file_damaged"
            ) from None
        return writer.finish()
