"""`etl demo`: the whole job with no set-up, and what an analyst would ask of its result."""

import argparse
import sqlite3
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, text

from etl.cli.output import print_lines, print_table
from etl.cli.sync import summary
from etl.config import Config, Database, Source
from etl.db.reading import reading
from etl.errors import EtlError, StorageError, UsageError
from etl.pipeline import api_job, sync
from etl.records import RunResult
from etl.report.changes import Selection, read_changes
from etl.report.observers import observing
from etl.sandbox import Account, SandboxServer

_SOURCE = "demo"
_TOKEN = "demo"  # noqa: S105 - of a server that runs for a second, on loopback
_SHOWN_CHANGES = 12
_EXAMPLE = "SELECT * FROM number_redirects LIMIT 5"

_QUESTIONS: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    (
        "How many numbers are live in each region, and how many lead on to others?",
        """
        SELECT n.region_name AS region, count(DISTINCT n.id) AS numbers, count(r.redirect_id) AS redirects
        FROM virtual_numbers AS n JOIN number_redirects AS r ON r.source = n.source AND r.id = n.id
        GROUP BY n.region_name ORDER BY numbers DESC, region LIMIT 5
        """,
        (1, 2),
    ),
    (
        "Which numbers were live after the first run and are gone now, and since when?",
        """
        SELECT number, purpose, region_name AS region, removed_at FROM virtual_numbers_ever
        WHERE removed_at IS NOT NULL ORDER BY number LIMIT 5
        """,
        (),
    ),
    (
        "How many numbers and redirects were live after each run?",
        """
        SELECT run.id AS run, run.started_at,
          (SELECT count(*) FROM virtual_numbers_timeline AS v WHERE v.source = run.source
           AND v.valid_from_run <= run.id AND (v.valid_to_run IS NULL OR v.valid_to_run > run.id)) AS numbers,
          (SELECT count(*) FROM redirect_numbers_timeline AS r WHERE r.source = run.source
           AND r.valid_from_run <= run.id AND (r.valid_to_run IS NULL OR r.valid_to_run > run.id)) AS redirects
        FROM sync_runs AS run WHERE run.outcome = 'succeeded' ORDER BY run.id
        """,
        (0, 2, 3),
    ),
)


def run(options: argparse.Namespace) -> int:
    """Run the demonstration; it leaves an SQLite file behind."""
    file = Path(options.database)
    _clear(file)
    account = Account.generate(options.numbers, seed=1)
    with SandboxServer(account, token=_TOKEN) as server:
        print_lines([f"A copy of the vendor's API with {options.numbers} numbers listens on {server.base_url}.", ""])
        source = Source(name=_SOURCE, base_url=server.base_url, token=_TOKEN)
        config = Config(database=Database(url=f"sqlite:///{file}"), sources=(source,))
        _sync(config, "First sync, into an empty database:")
        account.churn(0.05)
        result = _sync(config, "Some numbers change, and a second sync follows:")
    with reading(config.database.url) as connection:
        if connection is None:
            raise StorageError(f"{file} has vanished while the demo was running")
        _print_changes(connection, result)
        for question, query, right in _QUESTIONS:
            _answer(connection, question, query, right)
    _print_farewell(file)
    return 0


def _clear(file: Path) -> None:
    """Remove what an earlier demo left; raises UsageError when the file may be anybody else's."""
    if not file.exists():
        return
    try:
        with sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True) as connection:
            sources = {row[0] for row in connection.execute("SELECT DISTINCT source FROM sync_runs")}
        connection.close()
    except sqlite3.Error:
        sources = set()
    if sources != {_SOURCE}:
        raise UsageError(f"{file} exists and no earlier demo made it; name another file with --database")
    for leftover in (file, Path(f"{file}-wal"), Path(f"{file}-shm")):
        leftover.unlink(missing_ok=True)


def _sync(config: Config, heading: str) -> RunResult:
    print_lines([heading])
    sys.stdout.flush()
    source = config.sources[0]
    with observing(quiet=True) as observer:
        make_job: Callable[[], object] = partial(api_job, config, source, observer)
        result = sync(make_job, source, observer)  # type: ignore[arg-type] # partial() hides what api_job returns
    if result.error:
        raise EtlError(str(result.error), code=result.error.code)
    print_lines([f"  {summary(result)}", ""])
    return result


def _print_changes(connection: Connection, result: RunResult) -> None:
    with connection.begin():
        entries = read_changes(connection, Selection(run_id=result.run_id))
    print_lines([f"What run {result.run_id} changed (etl changes --run {result.run_id}):"])
    lines = [line for entry in entries for line in entry.lines()]
    print_lines(f"  {line}" for line in lines[:_SHOWN_CHANGES])
    if len(lines) > _SHOWN_CHANGES:
        print_lines([f"  … and {len(lines) - _SHOWN_CHANGES} lines more"])
    print_lines([""])


def _answer(connection: Connection, question: str, query: str, right: tuple[int, ...]) -> None:
    print_lines([question])
    with connection.begin():
        rows = connection.execute(text(query)).mappings().all()
    headings = [name.replace("_", " ") for name in (rows[0] if rows else ())]
    print_table(headings, [tuple(row.values()) for row in rows], right=right)
    print_lines([""])


def _print_farewell(file: Path) -> None:
    print_lines(
        [
            f"The data is in {file}. Ask it yourself with any SQLite client, or see what the job says of it:",
            f'  sqlite3 {file} "{_EXAMPLE}"',
            f"  ETL_DATABASE_URL=sqlite:///{file} etl changes",
        ]
    )
