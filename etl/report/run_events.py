"""What observers are told of a run, in words."""

from collections.abc import Callable

from msgspec.structs import asdict

from etl.events import Action, Event, Level, Observer
from etl.records import RunResult, Snapshot

Tell = Callable[..., None]
"""Makes an event of an action, a level, a message and details, and adds which run it is about."""


def _records(count: int) -> str:
    return "1 record is" if count == 1 else f"{count} records are"


def tell_oddities(tell: Tell, snapshot: Snapshot) -> None:
    """Tell what is strange about a snapshot: what of it is loaded all the same, and what is not."""
    if count := snapshot.unknown_purposes:
        message = f"{count} new or changed numbers have a purpose the vendor does not document; they are loaded as sent"
        tell(Action.UNKNOWN_PURPOSE, Level.WARNING, message, {"records": count})
    if count := snapshot.outside_filter:
        message = f"{_records(count)} outside the request's filter and not loaded"
        tell(Action.OUTSIDE_FILTER, Level.WARNING, message, {"records": count})
    if count := len(snapshot.rejections):
        message = f"{_records(count)} quarantined: see `etl quarantine`"
        tell(Action.RECORDS_QUARANTINED, Level.WARNING, message, {"records": count})
    if snapshot.hides_ids:
        message = "a quarantined record has no readable id, so this run removes no number"
        tell(Action.REMOVALS_SUSPENDED, Level.WARNING, message)


def tell_newly_quarantined(tell: Tell, count: int) -> None:
    """Tell, once they are written down, of bad records that no earlier run had met."""
    if count:
        message = f"{_records(count)} newly quarantined: see `etl quarantine`"
        tell(Action.RECORDS_NEWLY_QUARANTINED, Level.WARNING, message, {"records": count})


_END = {
    "succeeded": (Action.RUN_SUCCEEDED, Level.INFO),
    "refused": (Action.RUN_REFUSED, Level.ERROR),
    "failed": (Action.RUN_FAILED, Level.ERROR),
}


def tell_end(result: RunResult, observer: Observer, exit_code: int | None = None) -> None:
    """Tell how a run ended; `exit_code` replaces that of its error where a signal ended it."""
    action, level = _END[result.outcome]
    details = {**result.facts, **(asdict(result.counts) if result.counts else {}), "seconds": round(result.seconds, 3)}
    if result.error:
        details |= {"error_code": result.error.code, "exit_code": exit_code or result.error.exit_code}
    observer(Event(action, level, result.source, result.run_id, str(result.error or ""), details))
