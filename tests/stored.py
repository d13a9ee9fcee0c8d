"""Reads what a run left in the tables, with plain SQL, as an analyst would, and in one form for every database."""

import json
from collections import defaultdict
from typing import Any

from sqlalchemy import Connection, text

from tests.databases import Database
from tests.snapshots import BOOLEANS, SCALARS, Record

# The contract's own words, over a timeline view.
LIVE_AFTER = "source = :source AND valid_from_run <= :run AND (valid_to_run IS NULL OR valid_to_run > :run)"


def select(database: Database, sql: str, **parameters: Any) -> list[dict[str, Any]]:
    """Return rows by column name."""
    with database.connect() as connection:
        return [dict(row) for row in connection.execute(text(sql), parameters).mappings()]


def live(database: Database, source: str = "main") -> dict[int, Record]:
    """Return the live numbers by id, redirects inside, in the form of `snapshots.canonical`."""
    condition = "source = :source"
    return _numbers(database, "virtual_numbers", "redirect_numbers", condition, {"source": source})


def live_after(database: Database, run: int, source: str = "main") -> dict[int, Record]:
    """Return what was live after a run, by the contract's recipe over the timeline views."""
    views = ("virtual_numbers_timeline", "redirect_numbers_timeline")
    return _numbers(database, *views, LIVE_AFTER, {"source": source, "run": run})


def _numbers(
    database: Database, numbers: str, redirects: str, condition: str, parameters: dict[str, Any]
) -> dict[int, Record]:
    extra = _as_text(database, "extra")
    columns = ", ".join(f"n.{name}" for name in SCALARS)
    children: dict[int, dict[int, Record]] = defaultdict(dict)
    with database.connect() as connection:
        query = f"SELECT virtual_number_id, id, number, {extra} AS extra FROM {redirects} WHERE {condition}"
        for row in connection.execute(text(query), parameters):
            siblings = children[row.virtual_number_id]
            assert row.id not in siblings, "two versions of a redirect at one time"
            siblings[row.id] = {"number": row.number, "extra": _json(row.extra)}
        found: dict[int, Record] = {}
        query = f"SELECT {columns}, {extra} AS extra FROM {numbers} AS n WHERE {condition}"
        for mapping in connection.execute(text(query), parameters).mappings():
            row_values = dict(mapping)
            assert row_values["id"] not in found, "two versions of a number at one time"
            for name in BOOLEANS:
                row_values[name] = None if row_values[name] is None else bool(row_values[name])
            row_values["extra"] = _json(row_values["extra"])
            found[row_values["id"]] = row_values | {"redirects": children.pop(row_values["id"], {})}
    assert not children, "a redirect without its number"
    return found


def _as_text(database: Database, column: str) -> str:
    # The driver of PostgreSQL would parse it; MariaDB has text there anyway.
    return column if database.kind == "mariadb" else f"CAST({column} AS TEXT)"


def _json(value: str | None) -> Any:
    # Numbers that Python would round or respell stay text.
    return None if value is None else json.loads(value, parse_int=str, parse_float=str)


def runs(database: Database, source: str = "main") -> list[dict[str, Any]]:
    """Return the log of a source's runs, the oldest first."""
    return select(database, "SELECT * FROM sync_runs WHERE source = :source ORDER BY id", source=source)


def last_run(database: Database, source: str = "main") -> dict[str, Any]:
    """Return the newest row of the log."""
    return runs(database, source)[-1]


def quarantined(database: Database, source: str = "main", *, still: bool = True) -> list[dict[str, Any]]:
    """Return quarantined records by position: those that are there `still`, or all that ever were."""
    condition = "AND valid_to_run IS NULL" if still else ""
    sql = f"SELECT * FROM quarantined_records WHERE source = :source {condition} ORDER BY position, valid_from_run"
    return select(database, sql, source=source)


def rejections(database: Database, source: str = "main") -> list[tuple[int, int | None, str]]:
    """Return position, id and reason code of what is quarantined now."""
    return [(row["position"], row["number_id"], row["reason_code"]) for row in quarantined(database, source)]


DUMPED = (
    "virtual_numbers",
    "redirect_numbers",
    "virtual_numbers_history",
    "redirect_numbers_history",
    "quarantined_records",
    "sync_runs",
    "virtual_numbers_timeline",
    "redirect_numbers_timeline",
    "virtual_numbers_ever",
    "number_redirects",
)
_OF_THE_CLOCK = {"valid_from", "valid_to", "started_at", "finished_at", "removed_at"}


def dump(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Return all logical content but times, as equal values on every database."""
    with database.connect() as connection:
        return {table: _dump_table(connection, table) for table in DUMPED}


def _dump_table(connection: Connection, table: str) -> list[tuple[Any, ...]]:
    rows = []
    for row in connection.execute(text(f"SELECT * FROM {table}")).mappings():
        cells = {name: _cell(name, value) for name, value in row.items() if name != "_id"}
        rows.append(tuple(sorted(cells.items())))
    return sorted(rows, key=repr)


def _cell(name: str, value: Any) -> Any:
    if name in _OF_THE_CLOCK:
        return value is not None
    if name in BOOLEANS:
        return None if value is None else bool(value)
    if name == "extra" and value is not None:
        return json.dumps(json.loads(value) if isinstance(value, str) else value, sort_keys=True)
    return bytes(value) if isinstance(value, memoryview) else value
