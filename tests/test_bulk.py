"""The fast ways for many rows: past SQLAlchemy, and so past all that it would have looked after."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, event, make_url
from sqlalchemy.exc import DBAPIError

from etl.config import Database as DatabaseSection
from etl.db import bulk
from etl.db.engine import open_engine
from etl.db.failures import database_failures
from etl.db.tables import redirect_numbers, virtual_numbers
from etl.errors import EtlError
from etl.events import Action
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


@pytest.mark.parametrize(("limit", "value"), [("_ROWS_PER_SLICE", 7), ("_BYTES_PER_SLICE", 2_000)])
def test_more_rows_than_are_prepared_at_once(
    loader: Loader, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(apply, limit, value)
    # Slices with redirects, without any, and one that is not full.
    snapshot = [record(number, {number: "7"} if number % 20 < 10 else None) for number in range(1, 54)]
    snapshot.append(record(99, dict.fromkeys(range(1000, 1050), "8")))
    loader.load(snapshot)

    assert stored.live(loader.database) == expected(snapshot)


def test_a_load_that_is_tried_again_half_way_loads_everything_once(
    postgresql_loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "_ROWS_PER_SLICE", 7)
    database = postgresql_loader.database
    # A sequence does not take part in the roll-back, so only the third statement of all fails.
    for statement in (
        "CREATE SEQUENCE tries",
        "CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('tries') = 3 THEN "
        "RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01'; END IF; RETURN NULL; END $$",
        "CREATE TRIGGER fail_once AFTER INSERT ON redirect_numbers FOR EACH STATEMENT EXECUTE FUNCTION fail_once()",
    ):
        database.execute(statement)
    snapshot = [record(number, {number: "7"}) for number in range(1, 54)]
    postgresql_loader.load(snapshot)

    assert len(postgresql_loader.told(Action.LOAD_RETRIED)) == 1
    assert stored.live(database) == expected(snapshot)


def test_a_statement_ends_before_it_grows_too_long_and_a_long_row_has_one_of_its_own(
    mariadb_loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "_CHARACTERS_PER_STATEMENT", 10_000)
    sent: list[int] = []

    def note(_1: object, _2: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO virtual_numbers "):
            sent.append(len(statement))

    snapshot = [record(number, comment="x" * (15_000 if number == 50 else 100)) for number in range(1, 101)]
    event.listen(Engine, "before_cursor_execute", note)
    try:
        mariadb_loader.load(snapshot)
    finally:
        event.remove(Engine, "before_cursor_execute", note)

    assert sorted(length > 10_500 for length in sent) == [*[False] * (len(sent) - 1), True]
    assert 4 < len(sent) < 12
    assert stored.live(mariadb_loader.database) == expected(snapshot)


def test_a_statement_that_fails_does_not_show_what_it_was_to_insert(mariadb_loader: Loader) -> None:
    mariadb_loader.load([record(1)])
    with mariadb_loader.database.connect() as connection:
        connection.exec_driver_sql("SET FOREIGN_KEY_CHECKS = 0")
        connection.exec_driver_sql(
            "INSERT INTO redirect_numbers (source, virtual_number_id, id, number, valid_from_run, valid_from) "
            "SELECT source, 2, 5, '7', valid_from_run, valid_from FROM virtual_numbers"
        )
        connection.commit()
    result = mariadb_loader.sync([record(1), record(2, {5: "79990005566"}, comment="Тайна")])

    assert result.outcome == "failed"
    told = f"{result.error} {mariadb_loader.events} {stored.runs(mariadb_loader.database)}"
    assert "7999000" not in told
    assert "Тайна" not in told


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

    def test_it_is_called_once_while_the_server_is_at_work(self, postgresql_loader: Loader) -> None:
        database = postgresql_loader.database
        postgresql_loader.load([record(1)])
        calls: list[str] = []
        with database.connect() as other:
            other.exec_driver_sql("SELECT * FROM virtual_numbers FOR UPDATE")

            def work() -> None:
                calls.append("called")
                # Only now can the foreign key be checked, and so the answer come.
                other.rollback()

            assert self.insert(database, 1, work) is None

        assert calls == ["called"]
        assert stored.live(database)[1]["redirects"].keys() == {5}

    def test_what_it_raises_is_told_as_what_it_is(self, postgresql_loader: Loader) -> None:
        postgresql_loader.load([record(1)])

        def work() -> None:
            raise MemoryError

        with pytest.raises(MemoryError):
            self.insert(postgresql_loader.database, 1, work)
        assert stored.live(postgresql_loader.database) == expected([record(1)])

    def test_rows_that_are_refused_are_an_error_all_the_same(self, postgresql_loader: Loader) -> None:
        postgresql_loader.load([record(1)])
        with pytest.raises((EtlError, DBAPIError)):
            self.insert(postgresql_loader.database, 2, lambda: None)

        assert stored.live(postgresql_loader.database) == expected([record(1)])
