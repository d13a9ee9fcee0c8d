from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from etl.cli.status import age_in_words
from etl.db.engine import open_engine
from etl.db.locks import exclusive_lock, source_lock
from etl.db.tables import sync_runs
from etl.health.status import SourceStatus, read_status
from etl.sandbox import Answer
from tests import command
from tests.databases import Database
from tests.loading import TOKEN, Loader, loading
from tests.snapshots import record

OLD = datetime(2001, 1, 1, tzinfo=UTC)


@pytest.fixture
def loader(migrated_database: Database) -> Iterator[Loader]:
    with loading(migrated_database) as loader:
        yield loader


def read(database: Database, *names: str, max_age: float | None = None) -> list[SourceStatus]:
    with open_engine(database.url, read_only=True).connect() as connection, connection.begin():
        return read_status(connection, names or ("main",), max_age, with_orphans=True)


def start_at(database: Database, moment: datetime, **which: Any) -> None:
    """Move all runs, or those with these values in their columns, to another moment."""
    statement = update(sync_runs).filter_by(**which).values(started_at=moment)
    with database.connect() as connection:
        connection.execute(statement)
        connection.commit()


def status(database: Database, folder: Path, *arguments: str) -> command.Ended:
    return command.run("status", *arguments, cwd=folder, variables={"ETL_DATABASE_URL": database.url})


def test_a_source_is_stale_without_a_success_and_fresh_after_one(loader: Loader) -> None:
    [before] = read(loader.database)
    assert before.stale
    assert before.last_success is None
    loader.server.script(Answer(status=404))
    loader.sync_as_served()
    assert read(loader.database)[0].stale
    run_id = loader.load([record(1)])
    [after] = read(loader.database, max_age=3600)
    assert not after.stale
    assert after.last_success is not None
    assert after.last_success.run_id == run_id
    assert after.age_seconds is not None
    assert 0 <= after.age_seconds < 3600


def test_an_old_success_is_stale_only_when_an_age_is_given(loader: Loader) -> None:
    loader.load([record(1)])
    start_at(loader.database, OLD)
    assert not read(loader.database)[0].stale
    assert read(loader.database, max_age=7200)[0].stale


def test_the_last_success_is_the_last_in_the_order_of_runs_whatever_the_clock_said(loader: Loader) -> None:
    loader.load([record(1)])
    second = loader.load([record(1), record(2)])
    start_at(loader.database, OLD, id=second)
    [found] = read(loader.database, max_age=7200)
    assert found.last_success is not None
    assert found.last_success.run_id == second
    assert found.stale


def test_a_success_in_the_future_has_no_negative_age(loader: Loader) -> None:
    loader.load([record(1)])
    start_at(loader.database, datetime.now(UTC) + timedelta(hours=1))
    assert read(loader.database)[0].age_seconds == 0


def test_it_counts_what_is_live_and_what_is_quarantined_now(loader: Loader) -> None:
    loader.load([record(1, {7: "79200000007", 8: "79200000008"}), record(2), record(3, number=5), "not a record"])
    [found] = read(loader.database)
    assert (found.numbers, found.redirects, found.quarantined) == (2, 2, 2)
    loader.load([record(1), record(2), record(3)])
    [found] = read(loader.database)
    assert (found.numbers, found.redirects, found.quarantined) == (3, 0, 0)


def test_it_shows_the_last_ten_runs_with_their_errors_newest_first(loader: Loader) -> None:
    ids = [loader.load([record(number)]) for number in range(1, 12)]
    loader.guarded()
    refused = loader.sync([])
    [found] = read(loader.database)
    assert [run.id for run in found.runs] == [refused.run_id, *ids[:1:-1]]
    assert found.runs[0].outcome == "refused"
    assert found.runs[0].error_code == "empty_snapshot"
    assert found.runs[1].counts["numbers_added"] == 1
    assert found.runs[1].counts["numbers_removed"] == 1
    assert found.runs[1].seconds is not None


def test_a_source_that_is_no_longer_configured_is_named_and_not_stale(loader: Loader) -> None:
    loader.load([record(1)])
    loader.load([record(2)], source="closed")
    start_at(loader.database, OLD, source="closed")
    main, closed = read(loader.database, max_age=3600)
    assert (main.source, main.orphaned, main.stale) == ("main", False, False)
    assert (closed.source, closed.orphaned, closed.stale, closed.numbers) == ("closed", True, False, 1)


def test_a_run_is_in_progress_while_its_lock_is_held_and_not_after_it_was_killed(loader: Loader) -> None:
    loader.load([record(1)])
    loader.database.execute("UPDATE sync_runs SET outcome = 'running', finished_at = NULL")
    assert not read(loader.database)[0].running  # its process is gone
    with open_engine(loader.database.url).connect() as connection, exclusive_lock(connection, source_lock("main")):
        [main, other] = read(loader.database, "main", "other")
    assert main.running
    assert not other.running
    assert main.runs[0].seconds is None


def test_looking_for_a_run_in_progress_turns_no_run_away(loader: Loader) -> None:
    with open_engine(loader.database.url).connect() as connection, exclusive_lock(connection, source_lock("main")):
        read(loader.database)
        assert loader.sync([record(1)]).exit_code == 75
    read(loader.database)
    loader.load([record(1)])


def test_the_command_tells_monitoring_by_its_exit_code(loader: Loader, tmp_path: Path) -> None:
    assert status(loader.database, tmp_path).code == 1
    loader.load([record(1)])
    assert status(loader.database, tmp_path, "--max-age", "2h").code == 0
    start_at(loader.database, OLD)
    ended = status(loader.database, tmp_path, "--max-age", "2h", "--json")
    assert ended.code == 1
    assert ended.document["exit_code"] == 1
    assert ended.document["max_age_seconds"] == 7200
    [source] = ended.document["sources"]
    assert source["stale"] is True
    assert source["last_success"]["started_at"] == "2001-01-01T00:00:00+00:00"
    assert source["runs"][0]["outcome"] == "succeeded"
    assert source["numbers"] == 1


def test_without_tables_every_source_is_stale_and_the_way_out_is_named(database: Database, tmp_path: Path) -> None:
    ended = status(database, tmp_path)
    assert ended.code == 1
    assert "etl sync" in ended.stdout
    assert not ended.stderr
    assert not list(tmp_path.iterdir())
    if database.kind == "sqlite":
        assert not Path(database.name).exists()


def test_a_pipe_gets_plain_text_with_hints_and_no_escapes(sqlite_databases: Any, tmp_path: Path) -> None:
    with sqlite_databases.migrated() as database, loading(database) as loader:
        loader.load([record(1), "not a record"])
        loader.load([record(2)], source="closed")
        ended = status(database, tmp_path)
    assert ended.code == 0
    assert "etl prune --source closed" in ended.stdout
    assert "etl quarantine" in ended.stdout
    assert "\x1b" not in ended.stdout
    assert TOKEN not in ended.stdout


@pytest.mark.parametrize("arguments", [("--source", "other"), ("--max-age", "soon")])
def test_wrong_arguments_are_refused(arguments: tuple[str, str], tmp_path: Path) -> None:
    ended = command.run("status", *arguments, cwd=tmp_path)
    assert ended.code == (78 if arguments[0] == "--source" else 2)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (61, "1 min 1 s"),
        (7_500, "2 h 5 min"),
        (90_000, "1 d 1 h"),
        (8_640_000, "100 d 0 h"),
    ],
)
def test_ages_are_told_in_two_units(seconds: float, words: str) -> None:
    assert age_in_words(seconds) == words
