"""What a check of `etl doctor` came to."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from etl.errors import EtlError
from etl.unforeseen import unforeseen


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check's result, in words without tokens, passwords or phone numbers."""

    check: str
    state: State
    message: str
    """What was found; of a failure also what to do. Of a skipped check, why."""
    advice: str = ""
    """What to do about a warning."""
    source: str | None = None
    error_code: str | None = None
    exit_code: int = 0
    """That of a run that fails for this reason."""


Check = Callable[[], Finding | Iterator[Finding]]


def ok(check: str, message: str, source: str | None = None) -> Finding:
    """Return that all is well."""
    return Finding(check=check, state=State.OK, message=message, source=source)


def warning(check: str, message: str, advice: str, source: str | None = None) -> Finding:
    """Return that a run can succeed, but something should be done."""
    return Finding(check=check, state=State.WARNING, message=message, advice=advice, source=source)


def skipped(check: str, why: str, source: str | None = None) -> Finding:
    """Return that the check could not or need not be made."""
    return Finding(check=check, state=State.SKIPPED, message=why, source=source)


def failed(check: str, error: EtlError, source: str | None = None) -> Finding:
    """Return that a run would end with this error."""
    return Finding(
        check=check,
        state=State.FAILED,
        message=str(error),
        source=source,
        error_code=error.code,
        exit_code=error.exit_code,
    )


def attempt(check: str, make: Check, source: str | None = None) -> Iterator[Finding]:
    """Yield what a check finds; an error of any kind becomes a finding."""
    try:
        found = make()
        if isinstance(found, Finding):
            yield found
        else:
            yield from found
    except EtlError as error:
        yield failed(check, error, source)
    except Exception as error:  # noqa: BLE001 - a check that breaks must not keep the others from being made
        yield failed(check, unforeseen(error), source)
