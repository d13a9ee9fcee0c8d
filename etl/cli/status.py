"""`etl status`: how fresh each source's data is, and what its last runs did."""

import argparse
from dataclasses import asdict
from typing import Any

from etl.cli.output import print_json, print_lines, print_table, stdout_is_terminal
from etl.config import load_config
from etl.db.failures import database_failures
from etl.db.reading import reading
from etl.health.status import Run, SourceStatus, never_run, read_status

_STALE = 1
_HEADINGS = ("Source", "State", "Last success", "Age", "Numbers", "Redirects", "Quarantined")
_RUN_HEADINGS = ("Run", "Source", "Started (UTC)", "Seconds", "Outcome", "Numbers", "Error")
_STYLES = {
    "fresh": "green", "fresh, running": "green", "stale": "bold red", "stale, running": "bold red",
    "succeeded": "green", "failed": "red", "refused": "yellow", "orphaned": "yellow", "running": "cyan",
}  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Run the command; exit code 1 when a configured source is stale."""
    config = load_config(options.config)
    names = [source.name for source in config.chosen(options.source)]
    with reading(config.database.url) as connection:
        if connection is None:
            statuses = never_run(names)
        else:
            with database_failures(), connection.begin():
                statuses = read_status(connection, names, options.max_age, with_orphans=not options.source)
        has_tables = connection is not None
    code = _STALE if any(status.stale for status in statuses) else 0
    if options.json:
        print_json({"exit_code": code, "max_age_seconds": options.max_age, "sources": list(map(_document, statuses))})
    else:
        _print(statuses)
        lines = _advice(statuses, has_tables=has_tables)
        if lines:
            _print_gap()
            print_lines(lines)
    return code


def _document(status: SourceStatus) -> dict[str, Any]:
    document = asdict(status)
    if status.last_success:
        document["last_success"]["started_at"] = status.last_success.started_at.isoformat()
    document["runs"] = [
        {**asdict(run), "started_at": run.started_at.isoformat(), "counts": dict(run.counts)} for run in status.runs
    ]
    return document


def _print(statuses: list[SourceStatus]) -> None:
    print_table(_HEADINGS, map(_row, statuses), right=(4, 5, 6), styles=_STYLES)
    runs = [(status.source, run) for status in statuses for run in status.runs]
    if runs:
        _print_gap()
        rows = [_run_row(source, run) for source, run in runs]
        print_table(_RUN_HEADINGS, rows, right=(0, 3), styles=_STYLES)


def _print_gap() -> None:
    # On a terminal a table ends with an empty line of its own.
    if not stdout_is_terminal():
        print_lines([""])


def _row(status: SourceStatus) -> tuple[object, ...]:
    success = status.last_success
    state = "orphaned" if status.orphaned else "stale" if status.stale else "fresh"
    return (
        status.source,
        f"{state}, running" if status.running else state,
        f"{success.started_at:%Y-%m-%d %H:%M}" if success else "never",
        age_in_words(status.age_seconds) if status.age_seconds is not None else "–",
        status.numbers,
        status.redirects,
        status.quarantined,
    )


def _run_row(source: str, run: Run) -> tuple[object, ...]:
    counts = run.counts
    return (
        run.id,
        source,
        f"{run.started_at:%Y-%m-%d %H:%M}",
        "–" if run.seconds is None else f"{run.seconds:.1f}",
        run.outcome if run.origin == "api" else f"{run.outcome} ({run.origin})",
        "–"
        if counts["numbers_added"] is None
        else f"+{counts['numbers_added']} ~{counts['numbers_changed']} −{counts['numbers_removed']}",
        run.error_code or "",
    )


def age_in_words(seconds: float) -> str:
    """Return an age in its two largest units, such as `2 h 5 min`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _advice(statuses: list[SourceStatus], *, has_tables: bool) -> list[str]:
    lines = [] if has_tables else ["The database has no tables yet: run `etl sync`."]
    lines += [
        f"Run {status.runs[0].id} of {status.source}: {status.runs[0].error_message}"
        for status in statuses
        if status.runs and status.runs[0].error_message
    ]
    if any(status.quarantined for status in statuses):
        lines.append("Quarantined records and their reasons: `etl quarantine`.")
    lines += [
        f"Source {status.source} is no longer in the configuration, and what it had stays live: "
        f"`etl prune --source {status.source}` retires it."
        for status in statuses
        if status.orphaned and status.numbers
    ]
    return lines
