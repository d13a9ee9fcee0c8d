"""`etl archive`: stored response bodies, and runs from them."""

import argparse
import sys
from functools import partial
from typing import Any

from etl.cli.output import print_json, print_lines, print_table, printable
from etl.cli.sync import describe, listeners, print_results
from etl.config import Config, Source, load_config
from etl.db.failures import database_failures
from etl.db.reading import reading
from etl.errors import EtlError, UsageError
from etl.extract.archive import StoredBody, archived_sources, stored_bodies
from etl.load.runs import outcomes_of
from etl.pipeline import exit_code, sync
from etl.records import RunResult
from etl.recovery import accepted_bodies, archive_directory, find_body, rebuild, replay_job
from etl.report.observers import observing

_HEADINGS = ("Run", "Source", "Received (UTC)", "Bytes", "Compressed", "Outcome", "SHA-256")
_SHOWN_DIGITS = 12


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    config = load_config(options.config)
    if options.action == "list":
        return _list(config, options)
    return _replay_all(config, options) if options.all else _replay_one(config, options)


# Listing ----------------------------------------------------------------------------------------------------------


def _list(config: Config, options: argparse.Namespace) -> int:
    directory = archive_directory(config)
    names = [options.source] if options.source else archived_sources(directory)
    bodies = {name: stored_bodies(directory, name) for name in names}
    outcomes = _outcomes(config, bodies)
    entries = [
        _entry(stored, outcomes.get((name, stored.run_id), stored.outcome))
        for name, stored_of_source in bodies.items()
        for stored in stored_of_source
    ]
    if options.json:
        print_json({"bodies": entries})
    elif not entries:
        print_lines(["no archived bodies"])
    else:
        print_table(_HEADINGS, map(_cells, entries), right=(0, 3, 4))
    return 0


def _outcomes(config: Config, bodies: dict[str, list[StoredBody]]) -> dict[tuple[str, int], str]:
    """Return what the database knows; an archive is there for the day on which that is nothing."""
    found: dict[tuple[str, int], str] = {}
    try:
        with reading(config.database.url) as connection:
            if connection is None:
                return found
            with database_failures(), connection.begin():
                for name, stored in bodies.items():
                    received = {body.run_id: body.sha256 for body in stored}
                    known = outcomes_of(connection, name, received)
                    found |= {(name, run_id): outcome for run_id, outcome in known.items()}
    except EtlError as error:
        sys.stderr.write(f"etl: only the archive was asked how the runs ended: {printable(error)}\n")
    return found


def _entry(stored: StoredBody, outcome: str | None) -> dict[str, Any]:
    return {
        "run": stored.run_id,
        "source": stored.source,
        "received_at": stored.received_at.isoformat(),
        "bytes": stored.size,
        "compressed_bytes": stored.compressed_size,
        "outcome": outcome,
        "sha256": stored.sha256,
        "file": str(stored.path),
    }


def _cells(entry: dict[str, Any]) -> list[object]:
    return [
        entry["run"],
        entry["source"],
        entry["received_at"].removesuffix("+00:00").replace("T", " "),
        entry["bytes"],
        entry["compressed_bytes"],
        entry["outcome"] or "unknown",
        entry["sha256"][:_SHOWN_DIGITS],
    ]


# Replaying --------------------------------------------------------------------------------------------------------


def _replay_one(config: Config, options: argparse.Namespace) -> int:
    if options.run is None:
        raise UsageError("say which run's body to load, or --all; `etl archive list` shows those there are")
    stored = find_body(config, options.run, options.source)
    join = listeners(config, dry_run=options.dry_run)
    with observing() as log:
        observer = join(log)
        job = partial(replay_job, config, stored, observer, options.accept_removals, older=options.older)
        result = sync(job, config.source(stored.source), observer, dry_run=options.dry_run)
    return _finish([result], options)


def _replay_all(config: Config, options: argparse.Namespace) -> int:
    if options.run is not None or options.dry_run or options.accept_removals is not None:
        raise UsageError("--all replays what was accepted, as it was: it takes no run, --dry-run or --accept-removals")
    source = _one_source(config, options.source)
    bodies = accepted_bodies(config, source, older=options.older)
    with observing() as observer:
        results = list(rebuild(config, bodies, observer, older=options.older))
    if not results and not options.json:
        print_lines([f"{source.name}: the archive holds no accepted body that is newer than what the database has"])
    return _finish(results, options)


def _one_source(config: Config, name: str | None) -> Source:
    if name is None and len(config.sources) > 1:
        raise UsageError("--all needs --source NAME: the bodies of one source are replayed in order")
    return config.source(name) if name else config.sources[0]


def _finish(results: list[RunResult], options: argparse.Namespace) -> int:
    code = exit_code(results)
    if options.json:
        print_json({"exit_code": code, "runs": [describe(result) for result in results]})
    else:
        print_results(results, dry_run=options.dry_run)
    return code
