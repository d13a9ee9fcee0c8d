"""Observers for standard error: JSON lines for programs, progress and plain words for a person at a terminal."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from etl.events import Action, Event, Level, Observer, fan_out
from etl.report.text import UNSAFE, printable

_RANK = {Level.DEBUG: 0, Level.INFO: 1, Level.WARNING: 2, Level.ERROR: 3}


@contextmanager
def observing(*, quiet: bool = False, verbose: bool = False) -> Iterator[Observer]:
    """Yield the observer that suits standard error while a command runs."""
    if not sys.stderr.isatty():
        threshold = Level.WARNING if quiet else Level.DEBUG if verbose else Level.INFO
        yield json_lines(threshold)
    elif quiet or verbose:
        yield human_lines(Level.DEBUG if verbose else Level.WARNING)
    else:
        from etl.report.progress import progress_shown  # noqa: PLC0415 - only a terminal needs it

        with progress_shown() as show:
            yield fan_out([show, human_lines(Level.WARNING)])


def json_lines(threshold: Level) -> Observer:
    """Write one JSON object a line, with the keys `time`, `level`, `action` and what the event knows."""

    def log(event: Event) -> None:
        # How far a body has come is for a progress bar; a log of it would be noise.
        if _RANK[event.level] < _RANK[threshold] or event.action is Action.BODY_PROGRESS:
            return
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": event.level,
            "action": event.action,
        }
        known = {"source": event.source, "run_id": event.run_id, "message": event.message or None, **event.details}
        line.update((key, value) for key, value in known.items() if value is not None)
        sys.stderr.write(f"{_one_line(line)}\n")
        sys.stderr.flush()

    return log


def _one_line(values: dict[str, Any]) -> str:
    """JSON that no reader breaks into two lines, and that survives any encoding of standard error."""
    encoding = (sys.stderr.encoding or "ascii").lower().replace("-", "")
    text = json.dumps(values, ensure_ascii=encoding != "utf8")
    # What json.dumps leaves alone: line separators of Unicode, and half characters out of file names.
    return text if text.isprintable() else re.sub(UNSAFE, lambda match: f"\\u{ord(match[0]):04x}", text)


def human_lines(threshold: Level) -> Observer:
    """Write a sentence for each event that matters that much."""

    def log(event: Event) -> None:
        if _RANK[event.level] < _RANK[threshold] or event.action is Action.BODY_PROGRESS:
            return
        details = ", ".join(f"{key} {value}" for key, value in event.details.items() if value is not None)
        words = printable(event.message or f"{event.action.replace('_', ' ')}{f' ({details})' if details else ''}")
        sys.stderr.write(f"etl: {f'{event.source}: ' if event.source else ''}{words}\n")
        sys.stderr.flush()

    return log
