"""The tables and views as the contract's section 4 names them: columns, keys, types, and time that is not trusted."""

import json
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.exc import IntegrityError

from etl.db.bulk import driver_value
from etl.db.reading import reading
from etl.db.tables import UtcDateTime
from etl.report.changes import Selection, read_changes
from tests import stored
from tests.databases import Database, Databases
from tests.loading import Loader
from tests.snapshots import SCALARS, record

OPENED = ("valid_from_run", "valid_from")
CLOSED = ("valid_to_run", "valid_to")
NUMBERS = ("source", *SCALARS, "extra", *OPENED)
REDIRECTS = ("source", "virtual_number_id", "id", "number", "extra", *OPENED)
COLUMNS = {
    "virtual_numbers": NUMBERS,
    "redirect_numbers": REDIRECTS,
    "virtual_numbers_history": (*NUMBERS, *CLOSED),
    "redirect_numbers_history": (*REDIRECTS, *CLOSED),
    "virtual_numbers_timeline": (*NUMBERS, *CLOSED),
    "redirect_numbers_timeline": (*REDIRECTS, *CLOSED),
    "virtual_numbers_ever": (*NUMBERS, "removed_at"),
    "number_redirects": ("source", "id", "number", "comment", "redirect_id", "redirected_number"),
    "sync_runs": (
        "id", "source", "started_at", "finished_at", "outcome", "error_code", "error_message", "http_status",
        "attempts", "body_bytes", "body_sha256", "records_received", "records_quarantined", "records_outside_filter",
        "numbers_added", "numbers_changed", "numbers_removed", "numbers_unchanged",
        "redirects_added", "redirects_changed", "redirects_removed", "etl_version",
    ),
    "quarantined_records": (
        "source", "valid_from_run", "valid_to_run", "position", "number_id", "reason_code", "reason", "record",
    ),
}  # fmt: skip
TIMES = {"started_at", "finished_at", "valid_from", "valid_to", "removed_at"}
LATER = "2099-12-31 23:59:59.000000"


@pytest.mark.parametrize("name", COLUMNS)
def test_a_table_has_the_columns_of_the_contract_and_its_own_behind_an_underscore(
    migrated_database: Database, name: str
) -> None:
    with migrated_database.connect() as connection:
        found = {column["name"] for column in inspect(connection).get_columns(name)}
    assert {column for column in found if not column.startswith("_")} == set(COLUMNS[name])


def test_every_table_and_view_is_the_contracts(migrated_database: Database) -> None:
    with migrated_database.connect() as connection:
        inspector = inspect(connection)
        found = {*inspector.get_table_names(), *inspector.get_view_names()}
    assert found == {*COLUMNS, "alembic_version"}


def test_keys(migrated_database: Database) -> None:
    with migrated_database.connect() as connection:
        inspector = inspect(connection)
        assert inspector.get_pk_constraint("virtual_numbers")["constrained_columns"] == ["source", "id"]
        assert inspector.get_pk_constraint("redirect_numbers")["constrained_columns"] == [
            "source", "virtual_number_id", "id",
        ]  # fmt: skip
        (parent,) = inspector.get_foreign_keys("redirect_numbers")
    assert parent["referred_table"] == "virtual_numbers"
    assert parent["constrained_columns"] == ["source", "virtual_number_id"]
    assert parent["referred_columns"] == ["source", "id"]


@pytest.mark.parametrize("name", COLUMNS)
def test_times_are_moments_to_the_microsecond(migrated_database: Database, name: str) -> None:
    with migrated_database.connect() as connection:
        columns = {column["name"]: column["type"] for column in inspect(connection).get_columns(name)}
    for column in columns.keys() & TIMES:
        kind = columns[column]
        if migrated_database.kind == "postgresql":
            assert isinstance(kind, postgresql.TIMESTAMP)
            assert kind.timezone
        elif migrated_database.kind == "mariadb":
            assert isinstance(kind, mysql.DATETIME)
            assert kind.fsp == 6


def test_sqlite_has_times_as_text_in_utc_down_to_a_fraction_of_zeros(sqlite_databases: Databases) -> None:
    noon_in_moscow = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=3)))
    with sqlite_databases.migrated() as database, database.connect() as connection:
        assert driver_value(connection, UtcDateTime(), noon_in_moscow) == "2026-01-01 09:00:00.000000"


def test_extra_can_be_asked_by_the_database_itself(loader: Loader) -> None:
    loader.load([record(1) | {"новое": {"поле": [1, "два"]}}, record(2)])
    query = {
        "sqlite": "SELECT id, json_extract(extra, '$.новое.поле[1]') FROM virtual_numbers ORDER BY id",
        "postgresql": "SELECT id, extra #>> '{новое,поле,1}' FROM virtual_numbers ORDER BY id",
        "mariadb": "SELECT id, JSON_VALUE(extra, '$.новое.поле[1]') FROM virtual_numbers ORDER BY id",
    }[loader.database.kind]
    with loader.database.connect() as connection:
        rows = [tuple(row) for row in connection.exec_driver_sql(query)]
    assert rows == [(1, "два"), (2, None)]


def test_a_child_needs_its_parent_in_the_database_itself(loader: Loader) -> None:
    loader.load([record(1, {5: "7"})])
    with loader.database.connect() as connection:
        if loader.database.kind == "sqlite":
            connection.execute(text("PRAGMA foreign_keys = ON"))
        with pytest.raises(IntegrityError):
            connection.execute(text("DELETE FROM virtual_numbers"))


def test_history_is_ordered_by_runs_where_the_clock_falls(loader: Loader) -> None:
    first = loader.load([record(1, comment="a", redirects={5: "a"}), record(2)])
    second = loader.load([record(1, comment="b", redirects={5: "b"})])
    for table in ("virtual_numbers", "redirect_numbers", "virtual_numbers_history", "redirect_numbers_history"):
        loader.database.execute(f"UPDATE {table} SET valid_from = '{LATER}'")
        if table.endswith("history"):
            loader.database.execute(f"UPDATE {table} SET valid_to = '{LATER}'")
    loader.database.execute(f"UPDATE sync_runs SET started_at = '{LATER}', finished_at = '{LATER}'")
    third = loader.load([record(1, comment="c", redirects={5: "c"}), record(2, comment="back")])
    fourth = loader.load([record(1, comment="c", redirects={5: "c"})])

    assert first < second < third < fourth
    comments = {run: stored.live_after(loader.database, run)[1]["comment"] for run in (first, second, third, fourth)}
    assert comments == {first: "a", second: "b", third: "c", fourth: "c"}
    latest = stored.select(loader.database, "SELECT id, comment, removed_at FROM virtual_numbers_ever ORDER BY id")
    assert [(row["id"], row["comment"]) for row in latest] == [(1, "c"), (2, "back")]
    assert "2099" not in str(latest[1]["removed_at"])
    with reading(loader.database.url) as connection:
        assert connection is not None
        told = [entry.run_id for entry in read_changes(connection, Selection())]
    assert told == sorted(told, key=lambda run: run or 0)


def test_a_redirect_of_two_numbers_is_a_row_of_each(loader: Loader) -> None:
    loader.load([record(1, {7: "7495"}), record(2, {7: "7495", 1: "79200000001"})])
    rows = loader.database.rows("SELECT virtual_number_id, id, number FROM redirect_numbers ORDER BY 1, 2")
    assert rows == [(1, 7, "7495"), (2, 1, "79200000001"), (2, 7, "7495")]


def test_a_redirect_alone_changes_and_its_number_stays(loader: Loader) -> None:
    first = loader.load([record(1, {5: "a", 6: "b", 7: "c"})])
    second = loader.load([record(1, {5: "a", 6: "B"}), record(9)])
    assert [row["valid_from_run"] for row in stored.select(loader.database, "SELECT * FROM virtual_numbers")] == [
        first,
        second,
    ]
    assert loader.database.rows("SELECT * FROM virtual_numbers_history") == []
    versions = loader.database.rows(
        "SELECT id, number, valid_from_run, valid_to_run FROM redirect_numbers_timeline ORDER BY id, valid_from_run"
    )
    assert versions == [
        (5, "a", first, None), (6, "b", first, second), (6, "B", second, None), (7, "c", first, second),
    ]  # fmt: skip


def test_unknown_fields_are_versioned_like_others(loader: Loader) -> None:
    one = loader.load([record(1) | {"new": 1}])
    two = loader.load([record(1) | {"new": 1.0}])
    three = loader.load([record(1)])
    extras = [stored.live_after(loader.database, run)[1]["extra"] for run in (one, two, three)]
    assert json.dumps(extras) == '[{"new": "1"}, {"new": "1.0"}, null]'
