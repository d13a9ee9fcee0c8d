"""What the job tells the world while it works. The core only emits events; observers log, count or draw them."""

from collections.abc import Callable, Iterable
from enum import StrEnum

import msgspec


class Action(StrEnum):
    """The stable names of all events, also the `action` key of every log line."""

    SYNC_STARTED = "sync_started"
    SCHEMA_UPGRADED = "schema_upgraded"
    RUN_STARTED = "run_started"
    RUN_INTERRUPTED_EARLIER = "run_interrupted_earlier"
    TOKEN_FILE_EXPOSED = "token_file_exposed"  # noqa: S105 - the name of an event, not a secret
    ATTEMPT_FAILED = "attempt_failed"
    BODY_PROGRESS = "body_progress"
    BODY_RECEIVED = "body_received"
    BODY_ARCHIVED = "body_archived"
    ARCHIVE_UNTIDY = "archive_untidy"
    UNKNOWN_PURPOSE = "unknown_purpose"
    OUTSIDE_FILTER = "outside_filter"
    RECORDS_QUARANTINED = "records_quarantined"
    RECORDS_NEWLY_QUARANTINED = "records_newly_quarantined"
    REMOVALS_SUSPENDED = "removals_suspended"
    CHANGES_FOUND = "changes_found"
    LOAD_RETRIED = "load_retried"
    RUN_SUCCEEDED = "run_succeeded"
    RUN_REFUSED = "run_refused"
    RUN_FAILED = "run_failed"
    SYNC_FINISHED = "sync_finished"
    INTEGRATION_FAILED = "integration_failed"
    SCHEDULE_STARTED = "schedule_started"
    SCHEDULE_STOPPED = "schedule_stopped"


RUN_OUTCOMES = {
    Action.RUN_SUCCEEDED: "succeeded",
    Action.RUN_REFUSED: "refused",
    Action.RUN_FAILED: "failed",
}
"""The events that end a run, and the outcome that `sync_runs` shows for each."""


class Level(StrEnum):
    """How much an event matters to an operator."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


Detail = str | int | float | bool | None


class Event(msgspec.Struct, frozen=True):
    """Something that happened. `details` holds numbers and stable words, never a token, phone number or comment."""

    action: Action
    level: Level = Level.INFO
    source: str | None = None
    run_id: int | None = None
    message: str = ""
    details: dict[str, Detail] = msgspec.field(default_factory=dict)


Observer = Callable[[Event], None]


def ignore(_: Event) -> None:
    """Observer for callers that do not want to know."""


def fan_out(observers: Iterable[Observer]) -> Observer:
    """One observer that passes every event on to all of these, in order."""
    listeners = tuple(observers)

    def notify(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return notify
