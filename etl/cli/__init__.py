"""The command line: arguments in, exit code out. Every command imports only what it runs."""

import gc
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import NoReturn

from etl.cli.parser import build_parser
from etl.errors import EtlError, Interrupted

_UNREADABLE_OUTPUT = 74


def console() -> NoReturn:
    """Run the command line as a process of its own."""
    # Imports make many objects and drop few; looking through them for garbage took a tenth of the start-up.
    gc.disable()
    try:
        code = main()
        sys.stderr.flush()
    except Interrupted as interruption:
        code = interruption.exit_code  # it came while the last words were being written
    # Everything is written and closed. Python would now take its modules apart one by one, for a fifth as long as a run
    # that changes nothing takes in all.
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; see the README for the list of codes."""
    _make_output_safe()
    options = build_parser().parse_args(arguments)
    _raise_on_signals()
    _silence_libraries()
    try:
        command = import_module(f"etl.cli.{options.module}")
        if options.stays_up:
            gc.enable()
        code: int = command.run(options)
        sys.stdout.flush()
    except EtlError as error:
        return _report(error)
    except Interrupted as interruption:
        return interruption.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _UNREADABLE_OUTPUT
    except Exception as error:  # noqa: BLE001 - the last boundary: a person gets one line, not a traceback
        return _report_unforeseen(error)
    return code


def _report(error: EtlError) -> int:
    from etl.report.text import printable  # noqa: PLC0415 - needed for an error only

    # It may name a file, and a file's name may hold anything.
    print(f"etl: {printable(error)}", file=sys.stderr)  # noqa: T201 - the one line an error is
    return error.exit_code


def _report_unforeseen(error: Exception) -> int:
    from etl.unforeseen import unforeseen  # noqa: PLC0415 - needed for a bug only

    return _report(unforeseen(error))


def _make_output_safe() -> None:
    # A cron job's locale may not know Cyrillic: better an escaped letter than a crash.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _silence_libraries() -> None:
    import logging  # noqa: PLC0415 - not before it is known that there is something to do

    # What a library finds worth a warning, tracebacks included, goes to standard error where nothing handles it. What
    # matters of it reaches the caller as an exception.
    logging.getLogger().addHandler(logging.NullHandler())


def _raise_on_signals() -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        # A second signal is not waited for.
        signal.signal(number, signal.SIG_DFL)
        if _is_importing(frame):
            # Modules make their decoders when they are imported; an exception in the middle of that crashes msgspec.
            interrupt_soon(number)
            return
        raise Interrupted(number)

    def interrupt_soon(number: int) -> None:
        # By no other thread, for the locks that starting one takes may be held.
        signal.signal(signal.SIGALRM, lambda _, frame: interrupt(number, frame))
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    def send_again(unraisable: "sys.UnraisableHookArgs") -> None:
        # Where Python cannot let an exception out, as from a weak reference's callback, the signal would be lost.
        if isinstance(unraisable.exc_value, Interrupted):
            interrupt_soon(unraisable.exc_value.exit_code - 128)
        else:
            report(unraisable)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    report = sys.unraisablehook
    sys.unraisablehook = send_again


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_globals.get("__name__") != "importlib._bootstrap":
        frame = frame.f_back
    return frame is not None
