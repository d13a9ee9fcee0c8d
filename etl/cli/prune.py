"""`etl prune`: delete what is old, and put away sources that are no longer configured."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from etl.cli.output import print_json, print_lines, print_table
from etl.cli.reading import connected
from etl.config import Config, Source, load_config
from etl.db.engine import open_engine
from etl.db.failures import database_failures
from etl.db.locks import exclusive_lock, source_lock
from etl.errors import UsageError
from etl.load.prune import Plan, carry_out, count_rows, forget, make_plan
from etl.load.runs import known_sources, refuse_unknown_source

_HEADINGS = ("Source", "Versions of numbers", "Versions of redirects", "Quarantined", "Runs")
_TABLES = ("virtual_numbers_history", "redirect_numbers_history", "quarantined_records", "sync_runs")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    config = load_config(options.config)
    if options.source is None:
        if options.forget or options.yes:
            raise UsageError("--forget and --yes need --source NAME: a source that is no longer configured")
        return _prune(config, options)
    _refuse_configured(config, options.source)
    with connected(config) as connection:
        refuse_unknown_source(connection, options.source)
        rows = count_rows(connection, options.source)
    return _forget(config, options, rows) if options.forget else _retire(config, options)


def _prune(config: Config, options: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    with connected(config) as connection:
        plans = [make_plan(connection, source, config.retention, now) for source in known_sources(connection)]
    if not options.dry_run:
        with database_failures(), open_engine(config.database.url).connect() as connection:
            for plan in plans:
                carry_out(connection, plan)
    if options.json:
        pruned = [{"source": plan.source, "rows": plan.counts} for plan in plans]
        print_json({"dry_run": options.dry_run, "pruned": pruned})
    else:
        _print(plans, config, dry_run=options.dry_run)
    return 0


def _print(plans: Sequence[Plan], config: Config, *, dry_run: bool) -> None:
    ages = config.retention
    if ages.runs is ages.quarantine is ages.history is None:
        print_lines(["everything is kept for ever: set ages in [retention] to have old rows deleted"])
        return
    print_lines(["would delete, by table:" if dry_run else "deleted, by table:"])
    print_table(_HEADINGS, [[plan.source, *(plan.counts[table] for table in _TABLES)] for plan in plans], (1, 2, 3, 4))


def _refuse_configured(config: Config, name: str) -> None:
    if any(source.name == name for source in config.sources):
        raise UsageError(
            f"source {name!r} is configured: the next sync would bring it back; take it out of the configuration first",
            code="source_configured",
        )


def _retire(config: Config, options: argparse.Namespace) -> int:
    """Move all that is live of the source into history, by a run of its own."""
    from etl.cli.sync import describe, print_results  # noqa: PLC0415 - the other two are no runs
    from etl.pipeline import sync  # noqa: PLC0415 - as above
    from etl.recovery import retirement_job  # noqa: PLC0415 - as above
    from etl.report.observers import observing  # noqa: PLC0415 - as above

    if options.yes:
        raise UsageError("--yes agrees to --forget; without that, nothing is lost")
    with observing() as observer:
        job = partial(retirement_job, config, options.source, observer)
        result = sync(job, Source(name=options.source), observer, dry_run=options.dry_run)
    if options.json:
        print_json({"exit_code": result.exit_code, "runs": [describe(result)]})
    else:
        print_results([result], dry_run=options.dry_run)
    return result.exit_code


def _forget(config: Config, options: argparse.Namespace, rows: dict[str, int]) -> int:
    """Delete all that the database knows of the source."""
    name = options.source
    if not (options.dry_run or options.yes):
        counts = ", ".join(f"{count} of {table}" for table, count in rows.items() if count)
        raise UsageError(f"this would delete all rows of source {name!r} ({counts}); add --yes if they may go",
                         code="rows_would_be_lost")  # fmt: skip
    if not options.dry_run:
        engine = open_engine(config.database.url)
        with (
            database_failures(),
            engine.connect() as connection,
            exclusive_lock(connection, source_lock(name)),
        ):
            forget(connection, name)
    if options.json:
        print_json({"dry_run": options.dry_run, "forgotten": {"source": name, "rows": rows}})
        return 0
    print_lines(["would delete:" if options.dry_run else "deleted:"])
    print_table(("Table", "Rows"), rows.items(), right=(1,))
    folder = Path(config.archive.directory) / name
    if config.archive.directory and folder.is_dir():
        print_lines([f"its response bodies are still in {folder}: delete that folder too if they may go"])
    return 0
