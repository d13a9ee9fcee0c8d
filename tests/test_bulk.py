"""The fast ways for many rows: past SQLAlchemy, and so past all that it would have looked after."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from etl.config import Database as DatabaseSection
from etl.db import bulk
from etl.db.engine import open_engine
from etl.db.failures import database_failures
from etl.db.tables import redirect_numbers, virtual_numbers
from etl.errors import EtlError
from etl.load import apply
from tests import stored
from tests.databases import Database, Databases
from tests.loading import Loader, loading
from tests.snapshots import Record, canonical, record

TEXTS = [
    "O'Brien", "''", '"', "\\", "\\'", "ends in \\", "\\n\n\r\t", "\x1a\x7f", "50 %", "%s %(id)s %%", ":id ?",
    "\U0001f4de", "'); DELETE FROM virtual_numbers; --", "x'00'", "NULL", "", "{} {0}", "/* */", "`", "\u2028", "; ",
]  # fmt: skip


@pytest.fixture
def mariadb_loader(mariadb_databases: Databases) -> Iterator[Loader]:
    with mariadb_databases.migrated() as database, loading(database) as loader:
        yield loader


@pytest.fixture
def postgresql_loader(postgresql_databases: Databases) -> Iterator[Loader]:
    with postgresql_databases.migrated() as database, loading(database) as loader:
        yield loader


def expected(snapshot: list[Record]) -> dict[int, Record]:
    return {made["id"]: canonical(made) for made in snapshot}


def hostile(start: int = 1) -> list[Record]:
    return [record(number, {number + 1000: text or "0"}, comment=text) for number, text in enumerate(TEXTS, start)]


def test_texts_that_mean_something_to_sql_arrive_as_they_are(loader: Loader) -> None:
    snapshot = [*hostile(), record(500) | {"новое": 'it\'s \\ "%s"'}]
    loader.load(snapshot)
    assert stored.live(loader.database) == expected(snapshot)

    changed = [made | {"comment": f"{made['comment']}'\\"} for made in snapshot]
    loader.load(changed)
    assert stored.live(loader.database) == expected(changed)


@pytest.mark.parametrize("mode", ["NO_BACKSLASH_ESCAPES", "ANSI", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES"])
def test_no_mode_of_the_server_changes_what_a_text_means(mariadb_loader: Loader, mode: str) -> None:
    url = make_url(mariadb_loader.database.url).update_query_dict({"init_command": f"SET sql_mode = '{mode}'"})
    database = DatabaseSection(url=url.render_as_string(hide_password=False))
    mariadb_loader.config = msgspec.structs.replace(mariadb_loader.config, database=database)
    mariadb_loader.load(hostile())

    assert stored.live(mariadb_loader.database) == expected(hostile())


def test_more_rows_than_are_prepared_at_once(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "_ADDED_PER_SLICE", 7)
    # Slices with redirects, without any, and one that is not full.
    snapshot = [record(number, {number: "7"} if number % 20 < 10 else None) for number in range(1, 54)]
    loader.load(snapshot)

    assert stored.live(loader.database) == expected(snapshot)


def test_a_list_of_digests_that_the_server_cuts_short_is_read_otherwise(
    mariadb_loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = [record(number) for number in range(1, 301)]
    mariadb_loader.load(snapshot)
    # As it is where `max_allowed_packet` is small.
    monkeypatch.setattr(bulk, "_JOINED_LENGTH_ON_MYSQL", 1024)
    run = mariadb_loader.load(snapshot)

    (last,) = [row for row in stored.runs(mariadb_loader.database) if row["id"] == run]
    assert (last["numbers_added"], last["numbers_removed"], last["numbers_unchanged"]) == (0, 0, 300)


def test_a_copied_row_is_told_from_its_original_by_value(loader: Loader) -> None:
    snapshot = [record(number) for number in (1, 2, 3)]
    loader.load(snapshot)
    columns = [column.name for column in virtual_numbers.columns]
    chosen = ", ".join("4711" if name == "id" else f"{name}" for name in columns)
    loader.database.execute(
        f"INSERT INTO virtual_numbers ({', '.join(columns)}) SELECT {chosen} FROM virtual_numbers WHERE id = 2"
    )
    loader.load(snapshot)

    assert stored.live(loader.database) == expected(snapshot)
    assert loader.database.rows("SELECT id FROM virtual_numbers_history") == [(4711,)]


def test_numbers_without_digests_are_compared_by_value(loader: Loader) -> None:
    snapshot = [record(number, {number: "7"}) for number in (1, 2, 2**63 - 1)]
    loader.load(snapshot)
    loader.database.execute("UPDATE virtual_numbers SET _fingerprint = NULL, _digest = NULL WHERE id <> 2")
    loader.load(snapshot)

    assert stored.last_run(loader.database)["numbers_unchanged"] == 3
    assert loader.database.scalar("SELECT count(*) FROM virtual_numbers WHERE _digest IS NULL") == 0
    assert loader.database.scalar("SELECT count(*) FROM virtual_numbers_history") == 0


class TestMeanwhile:
    """PostgreSQL is at work while the next rows are prepared."""

    @staticmethod
    def insert(database: Database, parent: int, work: Any) -> Any:
        row = ("main", parent, 5, "7", None, 1, datetime(2026, 1, 1, tzinfo=UTC))
        with open_engine(database.url).connect() as connection, database_failures(), connection.begin():
            driver = connection.connection.driver_connection
            try:
                bulk.bulk_insert(connection, redirect_numbers, [row], work)
            finally:
                left: Any = driver.meanwhile  # type: ignore[union-attr] # psycopg's, with an attribute more
            return left

    def test_it_is_called_once_and_forgotten(self, postgresql_loader: Loader) -> None:
        postgresql_loader.load([record(1)])
        calls: list[str] = []

        assert self.insert(postgresql_loader.database, 1, lambda: calls.append("called")) is None
        assert len(calls) <= 1
        assert stored.live(postgresql_loader.database)[1]["redirects"].keys() == {5}

    def test_rows_that_are_refused_are_an_error_all_the_same(self, postgresql_loader: Loader) -> None:
        postgresql_loader.load([record(1)])
        with pytest.raises((EtlError, DBAPIError)):
            self.insert(postgresql_loader.database, 2, lambda: None)

        assert stored.live(postgresql_loader.database) == expected([record(1)])
