"""`etl sync`: one run for every source, then the result."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec.structs import asdict

from etl.cli.output import print_json, print_lines, print_table, stdout_is_terminal
from etl.config import Config, Source, load_config
from etl.errors import UsageError
from etl.events import Observer
from etl.pipeline import Job, api_job, exit_code, file_job, sync_all
from etl.records import RunResult
from etl.report.observers import observing


def run(options: argparse.Namespace) -> int:
    """Run the command; its exit code is that of the first source that failed."""
    config = load_config(options.config)
    sources = config.chosen(options.source)
    _check_combination(options, sources)
    join = listeners(config, dry_run=options.dry_run)
    with observing(quiet=options.quiet, verbose=options.verbose) as log:
        observer = join(log)
        jobs = [(source, _job_maker(options, config, source, observer)) for source in sources]
        results = sync_all(jobs, observer, dry_run=options.dry_run)
    if options.json:
        print_json({"exit_code": exit_code(results), "runs": [describe(result) for result in results]})
    elif not options.quiet:
        print_results(results, dry_run=options.dry_run)
    return exit_code(results)


def listeners(config: Config, *, dry_run: bool) -> Callable[[Observer], Observer]:
    """Return a function that joins a log with whoever else is to hear of a run."""
    if dry_run:
        # It writes nothing at all, and nobody is to hear of it.
        return lambda log: log
    from etl.integrations import connect  # noqa: PLC0415 - a dry run needs none

    return connect(config)


def _check_combination(options: argparse.Namespace, sources: list[Source]) -> None:
    if options.accept_removals is not None and len(sources) != 1:
        raise UsageError("--accept-removals needs one --source: what is accepted for one must not pass for another")
    if options.from_file is not None and len(sources) != 1:
        raise UsageError("--from-file needs one --source: the file holds the numbers of one account")


def _job_maker(options: argparse.Namespace, config: Config, source: Source, observer: Observer) -> Callable[[], Job]:
    if options.from_file is not None:
        return partial(file_job, config, source, observer, options.from_file, options.accept_removals)
    return partial(api_job, config, source, observer, options.accept_removals)


def describe(result: RunResult) -> dict[str, Any]:
    """Return a result as the JSON document shows it."""
    document: dict[str, Any] = {
        "source": result.source,
        "run_id": result.run_id,
        "outcome": result.outcome,
        "exit_code": result.exit_code,
        "error_code": result.error.code if result.error else None,
        "error_message": str(result.error) if result.error else None,
        **result.facts,
        **(asdict(result.counts) if result.counts else {}),
        "seconds": round(result.seconds, 3),
    }
    if result.changes is not None:
        from etl.report.changes import entries_of  # noqa: PLC0415 - for a dry run only

        document["changes"] = [entry.document() for entry in entries_of(result.source, result.changes)]
        document["quarantined"] = [
            {"position": bad.position, "number_id": bad.number_id, "reason_code": bad.reason_code, "reason": bad.reason}
            for bad in result.rejections
        ]
    return document


def print_results(results: list[RunResult], *, dry_run: bool) -> None:
    """Print what became of each run, and, of a dry run, all that would change."""
    if dry_run:
        for result in results:
            _print_dry_run(result)
    if stdout_is_terminal():
        _print_table(results, dry_run=dry_run)
    else:
        print_lines(summary(result, dry_run=dry_run) for result in results)


def _print_dry_run(result: RunResult) -> None:
    from etl.report.changes import entries_of  # noqa: PLC0415 - for a dry run only

    if result.changes is not None:
        print_lines(line for entry in entries_of(result.source, result.changes) for line in entry.lines())
    print_lines(f"! record {bad.position} would be quarantined: {bad.reason}" for bad in result.rejections)


def summary(result: RunResult, *, dry_run: bool = False) -> str:
    """Return a result as one plain line."""
    where = f"{result.source}: dry run" if dry_run else result.source
    if result.counts is None:
        return f"{where}: {result.outcome}: {result.error}"
    counts = result.counts
    text = (
        f"{where}: {result.outcome}: {counts.numbers_added} added, {counts.numbers_changed} changed, "
        f"{counts.numbers_removed} removed, {counts.numbers_unchanged} unchanged; redirects: "
        f"{counts.redirects_added} added, {counts.redirects_changed} changed, {counts.redirects_removed} removed; "
        f"{result.facts.get('records_quarantined') or 0} quarantined; {result.seconds:.1f} s"
    )
    return f"{text}; {result.error}" if result.error else text


def _print_table(results: list[RunResult], *, dry_run: bool) -> None:
    # Together no wider than an ordinary terminal.
    headings = ("Source", "Outcome", "Added", "Changed", "Removed", "Same", "Redirects", "Quarantined")
    print_table(headings, [_cells(result) for result in results], right=range(2, len(headings)))
    # The error itself was shown when it happened, on standard error.
    if dry_run:
        print_lines(["This was a dry run: nothing was written."])


def _cells(result: RunResult) -> tuple[object, ...]:
    counts = result.counts
    if counts is None:
        return (result.source, result.outcome, *["–"] * 6)
    return (
        result.source,
        result.outcome,
        counts.numbers_added,
        counts.numbers_changed,
        counts.numbers_removed,
        counts.numbers_unchanged,
        f"+{counts.redirects_added} ~{counts.redirects_changed} −{counts.redirects_removed}",
        result.facts.get("records_quarantined") or 0,
    )
