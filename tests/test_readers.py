"""What others see while a run is loading: the old snapshot or the new, whole, and never a mix."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Connection, text

from etl.sandbox import SandboxServer
from tests import stored
from tests.databases import Database, Databases
from tests.loading import TOKEN, Loader, loading
from tests.snapshots import Record, record

SECONDS_TO_BLOCK = 30
ROUNDS = 8


def generation(name: str) -> list[Record]:
    """Make a snapshot all of whose rows say which one it is; half of the numbers come and go with it."""
    kept = range(1, 101)
    own = range(1_000, 1_100) if name == "a" else range(2_000, 2_100)
    return [record(number, {number + 10_000: name}, comment=name) for number in (*kept, *own)]


A, B = generation("a"), generation("b")
WHOLE = {"a": {("a", "a", 200)}, "b": {("b", "b", 200)}}
ONE_STATEMENT = "SELECT comment, redirected_number, count(*) FROM number_redirects GROUP BY comment, redirected_number"


def by_one_statement(connection: Connection) -> set[tuple[Any, ...]]:
    found = {tuple(row) for row in connection.execute(text(ONE_STATEMENT))}
    connection.rollback()
    return found


def by_one_transaction(connection: Connection) -> set[tuple[Any, ...]]:
    """Read parents and children by two statements of one REPEATABLE READ transaction."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN")  # its driver would let each SELECT stand alone
    else:
        connection.execution_options(isolation_level="REPEATABLE READ")
    numbers: dict[int, str] = {row.id: row.comment for row in connection.execute(text("SELECT * FROM virtual_numbers"))}
    redirects = connection.execute(text("SELECT virtual_number_id, number FROM redirect_numbers")).all()
    connection.rollback()
    pairs = [(numbers.pop(parent), number) for parent, number in redirects]
    assert not numbers
    return {(*pair, pairs.count(pair)) for pair in set(pairs)}


@pytest.mark.parametrize("read", [by_one_statement, by_one_transaction])
def test_a_reader_sees_one_snapshot_whole(loader: Loader, read: Callable[[Connection], set[tuple[Any, ...]]]) -> None:
    loader.load(A)
    stop = Event()

    def watch() -> list[set[tuple[Any, ...]]]:
        seen = []
        with loader.database.connect() as connection:
            while True:
                last = stop.is_set()
                seen.append(read(connection))
                if last:
                    return seen

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            for turn in range(ROUNDS):
                loader.load(A if turn % 2 else B)
            loader.load(B)
        finally:
            stop.set()
        seen = watching.result()

    assert [found for found in seen if found not in WHOLE.values()] == []
    assert seen[-1] == WHOLE["b"]


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_nobody_sees_anything_of_a_run_until_its_commit(kind: str, request: pytest.FixtureRequest) -> None:
    databases: Databases = request.getfixturevalue(f"{kind}_databases")
    with databases.migrated() as database, stopped_at_its_end(database) as (loader, let_go):
        loader.load(A)
        before = stored.dump(database)
        with ThreadPoolExecutor(1) as pool, let_go:
            loading_b = pool.submit(loader.load, B)
            wait_until_blocked(database)
            assert has_written(database)
            during = stored.dump(database)
            let_go.rollback()
            run = loading_b.result()
        assert [dict(row)["outcome"] for row in during.pop("sync_runs")] == ["succeeded", "running"]
        assert len(before.pop("sync_runs")) == 1
        assert during == before
        assert stored.live(database) == stored.live_after(database, run)
        with database.connect() as connection:
            assert by_one_statement(connection) == WHOLE["b"]


@contextmanager
def stopped_at_its_end(database: Database) -> Iterator[tuple[Loader, Connection]]:
    """Make a loader whose second run comes to a halt where it would mark itself succeeded, the last thing it writes.

    The connection holds that row until it is rolled back.
    """
    requests = []

    def hold(request: str) -> None:
        requests.append(request)
        if len(requests) == 2:
            holder.execute(text("SELECT id FROM sync_runs WHERE outcome = 'running' FOR UPDATE"))

    with (
        database.connect() as holder,
        SandboxServer(token=TOKEN, on_request=hold) as server,
        loading(database, server) as loader,
    ):
        yield loader, holder


def wait_until_blocked(database: Database) -> None:
    query = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = :name AND wait_event_type = 'Lock'",
        "mariadb": "SELECT count(*) FROM information_schema.innodb_trx JOIN information_schema.processlist "
        "ON id = trx_mysql_thread_id WHERE db = :name AND trx_state = 'LOCK WAIT'",
    }[database.kind].replace(":name", database.server.literal(database.name))
    end = time.monotonic() + SECONDS_TO_BLOCK
    while database.server.execute(query) == [(0,)]:
        assert time.monotonic() < end, "the run does not wait for its row"
        time.sleep(0.15)  # asked more often than ten times a second, InnoDB goes on giving the same answer


def has_written(database: Database) -> bool:
    """Tell whether the run has done its work, though nobody may see it: else the test would prove nothing."""
    if database.kind == "postgresql":
        query = (
            "SELECT count(*) FROM pg_locks JOIN pg_class ON pg_class.oid = relation "
            "WHERE relname = 'virtual_numbers_history' AND mode = 'RowExclusiveLock'"
        )
        return bool(database.scalar(query))
    with database.connect() as connection:
        connection.execution_options(isolation_level="READ UNCOMMITTED")
        return bool(connection.execute(text("SELECT count(*) FROM virtual_numbers WHERE comment = 'b'")).scalar_one())
