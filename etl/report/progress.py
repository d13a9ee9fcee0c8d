"""What a person at a terminal sees while a run works: one line that says where it is, gone when it is done."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from etl.events import Action, Event, Observer


@contextmanager
def progress_shown() -> Iterator[Observer]:
    """Yield an observer that keeps the line up to date."""
    console = Console(file=sys.stderr)
    with console.status("starting…") as status:

        def show(event: Event) -> None:
            if stage := _stage(event):
                status.update(f"[bold]{event.source or ''}[/bold] {stage}")

        yield show


def _stage(event: Event) -> str | None:
    details = event.details
    if event.action is Action.BODY_PROGRESS:
        return f"receiving… {details['bytes'] / 1e6:.1f} MB"  # type: ignore[operator] # this event's detail is a number
    if event.action is Action.BODY_RECEIVED:
        return f"comparing {details['bytes'] / 1e6:.1f} MB with what is live…"  # type: ignore[operator] # as above
    if event.action is Action.CHANGES_FOUND:
        return (
            f"loading: {details['numbers_added']} added, {details['numbers_changed']} changed, "
            f"{details['numbers_removed']} removed…"
        )
    return {
        Action.RUN_STARTED: "asking the source…",
        Action.ATTEMPT_FAILED: "waiting before the next attempt…",
    }.get(event.action)
