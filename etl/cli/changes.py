"""`etl changes`: what was added, changed and removed, from the timelines."""

import argparse
from datetime import UTC, datetime, timedelta

from etl.cli.output import print_json, print_lines
from etl.cli.reading import connected
from etl.config import load_config, parse_duration
from etl.errors import UsageError
from etl.report.changes import Selection, read_changes


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    config = load_config(options.config)
    selection = Selection(
        source=config.source(options.source).name if options.source else None,
        since=_moment(options.since) if options.since else None,
        run_id=options.run,
        number=options.number,
    )
    with connected(config) as connection:
        entries = read_changes(connection, selection)
    if options.json:
        print_json({"changes": [entry.document() for entry in entries]})
        return 0
    run_id = None
    for entry in entries:
        if entry.run_id != run_id:
            run_id = entry.run_id
            print_lines([f"run {entry.run_id} of {entry.source}, {entry.at:%Y-%m-%d %H:%M:%S} UTC"])
        print_lines(f"  {line}" for line in entry.lines())
    if not entries:
        print_lines(["no changes"])
    return 0


def _moment(text: str) -> datetime:
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f'--since: {text!r} is neither a date or time such as "2026-11-24" or "2026-11-24T09:30", '
            'nor an age such as "24h"'
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
