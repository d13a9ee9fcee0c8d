"""A second run of the same data writes no row but its own, by the databases' own account and not by the program's."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import text

from tests.databases import Database
from tests.loading import Loader
from tests.snapshots import Record, bad, body, record

TABLES = (
    "virtual_numbers",
    "redirect_numbers",
    "virtual_numbers_history",
    "redirect_numbers_history",
    "quarantined_records",
    "sync_runs",
    "alembic_version",
)
SECONDS_TO_SETTLE = 20

Writes = Counter[str]

OWN_ROW = Writes({"sync_runs insert": 1, "sync_runs update": 1})

SNAPSHOT: list[Any] = [
    record(1, {11: "78009966666", 12: "74994088157"}),
    record(2, purpose="\u0441ompany", region_name="регион Москва"),
    record(3, {13: "78009966666"}) | {"unknown": {"b": 1.5, "a": [1, 2]}, "newer": None},
    record(4, type="abc", comment=None),
    record(5, state="freeze"),
    record(6, purpose="robot"),
    record(7),
    record(7),
    bad(8, redirects={18: "1", 19: "2"}),
    record(9, comment="one"),
    record(9, comment="other"),
    record(10) | {"id": "10"},
    record(10) | {"id": "10"},
    None,
]


def reordered(elements: list[Any]) -> bytes:
    """Put records, redirects, and the keys on every level in another order."""
    dice = random.Random(1)

    def turned(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: turned(child) for key, child in reversed(value.items())}

    def mixed(element: Record | None) -> Any:
        if element is None:
            return None
        redirects = [turned(redirect) for redirect in reversed(element["from_redirect_numbers"])]
        return turned(element) | {"from_redirect_numbers": redirects}

    return body(dice.sample([mixed(element) for element in elements], len(elements)))


def respelled(elements: list[Any]) -> bytes:
    """Write the same values with other white space and escapes."""
    return b"\xef\xbb\xbf \n" + json.dumps(elements, ensure_ascii=True, indent=4).encode() + b"\r\n\t "


def without_nulls(elements: list[Any]) -> bytes:
    """Leave fields out that are null, which means the same; bad records would be others then."""

    def brief(element: Any) -> Any:
        if element is None or element["id"] in (8, "10"):
            return element
        kept = {key: value for key, value in element.items() if value is not None or key == "newer"}
        return kept | {"from_redirect_numbers": element["from_redirect_numbers"] or None}

    return body(map(brief, elements))


@contextmanager
def counting(database: Database) -> Iterator[Writes]:
    """Yield a counter that says afterwards how many rows of which table the block has inserted, updated and deleted."""
    writes = Writes()
    count = _count_by_statistics if database.kind == "postgresql" else _count_by_triggers
    with count(database, writes):
        yield writes


@contextmanager
def _count_by_statistics(database: Database, writes: Writes) -> Iterator[None]:
    before = _statistics(database)
    yield
    writes.update(_statistics(database) - before)


def _statistics(database: Database) -> Writes:
    others = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    counted = text("SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables")
    with database.connect() as connection:
        # A session reports what it did at the latest when it ends, and is listed until it has.
        end = time.monotonic() + SECONDS_TO_SETTLE
        while connection.execute(others).scalar_one():
            connection.rollback()
            assert time.monotonic() < end, "a session of the run is still there"
            time.sleep(0.01)
        connection.rollback()
        rows = connection.execute(counted).all()
    assert {row.relname for row in rows} == {*TABLES}
    return Writes(
        {
            f"{table} {verb}": count
            for table, *counts in rows
            for verb, count in zip(("insert", "update", "delete"), counts, strict=True)
        }
    )


@contextmanager
def _count_by_triggers(database: Database, writes: Writes) -> Iterator[None]:
    begin, end = ("BEGIN", "; END") if database.kind == "sqlite" else ("", "")
    database.execute("CREATE TABLE written (what VARCHAR(64))")
    for table in TABLES:
        for verb in ("insert", "update", "delete"):
            database.execute(
                f"CREATE TRIGGER {verb}_{table} AFTER {verb} ON {table} FOR EACH ROW "
                f"{begin} INSERT INTO written VALUES ('{table} {verb}'){end}"
            )
    yield
    writes.update(what for (what,) in database.rows("SELECT what FROM written"))


def writes_of_a_second_run(loader: Loader, form: Callable[[list[Any]], bytes]) -> Writes:
    loader.load(SNAPSHOT)
    with counting(loader.database) as writes:
        loader.load(form(SNAPSHOT))
    return writes


def test_the_same_bytes_again(loader: Loader) -> None:
    assert writes_of_a_second_run(loader, body) == OWN_ROW


@pytest.mark.parametrize("form", [reordered, respelled, without_nulls])
def test_the_same_values_in_another_form(loader: Loader, form: Callable[[list[Any]], bytes]) -> None:
    assert form(SNAPSHOT) != body(SNAPSHOT)
    assert writes_of_a_second_run(loader, form) == OWN_ROW


def test_the_same_empty_list_again(loader: Loader) -> None:
    loader.load([])
    with counting(loader.database) as writes:
        loader.load([])
    assert writes == OWN_ROW


def test_the_same_again_after_a_run_that_changed_redirects_alone(loader: Loader) -> None:
    loader.load([record(1, {10: "a"}), record(2)])
    loader.load([record(1, {10: "b", 11: "c"}), record(2)])
    with counting(loader.database) as writes:
        loader.load([record(2), record(1, {11: "c", 10: "b"})])
    assert writes == OWN_ROW


def test_the_same_refused_snapshot_again(loader: Loader) -> None:
    loader.load(SNAPSHOT)
    loader.guarded(max_removed_fraction=0.0, max_quarantined_fraction=1.0)
    refused = [record(1), bad(20)]
    assert loader.sync(refused).outcome == "refused"
    with counting(loader.database) as writes:
        assert loader.sync(refused).outcome == "refused"
    assert writes == OWN_ROW


def test_a_body_that_is_no_snapshot_writes_the_row_of_its_run_alone(loader: Loader) -> None:
    loader.load(SNAPSHOT)
    with counting(loader.database) as writes:
        assert loader.sync(b"<html>").outcome == "refused"
    assert writes == OWN_ROW


def test_a_dry_run_writes_no_row(loader: Loader) -> None:
    loader.load(SNAPSHOT)
    with counting(loader.database) as writes:
        loader.sync([record(1, comment="other"), record(99), bad(98)], dry_run=True)
    assert writes == Writes()


def test_a_change_writes_the_rows_it_touches_and_no_others(loader: Loader) -> None:
    """Prove besides that the counters see what is written."""
    many = [record(number, {number + 1000: "7"}) for number in range(1, 101)]
    loader.load(many)
    changed = [
        record(1, {1001: "7"}, comment="changed"),
        record(2, {1002: "7", 5000: "8"}),
        record(3, {1003: "8"}),
        *many[4:],
        record(200, {2000: "7"}),
        bad(300),
    ]
    with counting(loader.database) as writes:
        loader.load(changed)
    # Number 1 and the digests of 2 and 3 are written anew and 200 is added; redirects 5000 and 1003, and that of 200.
    assert writes["virtual_numbers insert"] + writes["virtual_numbers update"] == 4
    assert writes["redirect_numbers insert"] + writes["redirect_numbers update"] == 3
    assert writes["virtual_numbers delete"] == 1
    assert writes["redirect_numbers delete"] == 2
    assert writes["virtual_numbers_history insert"] == 2
    assert writes["redirect_numbers_history insert"] == 2
    assert writes["quarantined_records insert"] == 1
    assert writes["sync_runs insert"] + writes["sync_runs update"] == 2
    assert writes["virtual_numbers_history update"] + writes["redirect_numbers_history update"] == 0
