"""`etl schedule`: stay up and sync on time."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from etl.cli.output import print_lines, stdout_is_terminal
from etl.cli.sync import summary
from etl.config import load_config
from etl.duetimes import time_zone
from etl.events import Action, Event, Observer, fan_out
from etl.integrations import connect
from etl.records import RunResult
from etl.report.observers import observing
from etl.scheduler import keep_syncing


def _show_start(event: Event) -> None:
    if event.action is Action.SCHEDULE_STARTED and stdout_is_terminal():
        print_lines([event.message])


def run(options: argparse.Namespace) -> int:
    """Run the command, until a signal ends it."""
    config = load_config(options.config)
    zone = time_zone(config.schedule.timezone)

    def show(results: Sequence[RunResult], next_run: datetime | None) -> None:
        # A log has all of this already.
        if stdout_is_terminal():
            print_lines(summary(result) for result in results)
            if next_run:
                print_lines([f"next run at {next_run.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"])

    join = connect(config, stays_up=True)

    @contextmanager
    def observe() -> Iterator[Observer]:
        with observing(quiet=options.quiet, verbose=options.verbose) as log:
            yield fan_out([join(log), _show_start])

    keep_syncing(config, config.chosen(options.source), observe, report=show)
