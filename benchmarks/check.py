"""Compares the tables a candidate left with the snapshot it was served, value by value.

Runs as a process of its own, for it holds all of both: `python -m benchmarks.check`, a JSON question on standard input,
a JSON answer on standard output. The answer counts rows that are missing, stale (no longer in the snapshot), or wrong.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psycopg
import pymysql

SCALARS = (
    *("id", "number", "comment", "type", "purpose", "scenario_id", "group_scenario_id", "group_id"),
    *("is_scenario_active", "is_group_scenario_active", "state", "reason", "employee_id", "dgn_number"),
    *("redirect_number", "region_name", "sip_uri", "nc_type", "app_id"),
)
Row = tuple[Any, ...]


def connect(database_url: str) -> Any:
    """Open a database by its URL."""
    url = urlsplit(database_url)
    if url.scheme == "sqlite":
        return sqlite3.connect(url.path[1:])
    if url.scheme == "postgresql":
        return psycopg.connect(database_url)
    return pymysql.connect(
        host=url.hostname, port=url.port or 3306, user=url.username, database=url.path[1:], charset="utf8mb4"
    )


def fetch(connection: Any, query: str) -> list[Row]:
    """Return a query's rows, booleans as the integers that two of the databases make of them."""
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(query)
        return [tuple(int(value) if isinstance(value, bool) else value for value in row) for row in cursor.fetchall()]


def snapshot(body: Path) -> tuple[list[Row], list[Row]]:
    """Return the rows that the body stands for."""
    records = msgspec.json.decode(body.read_bytes())
    numbers = [
        tuple(int(value) if isinstance(value, bool) else value for value in map(record.get, SCALARS))
        for record in records
    ]
    redirects = [
        (record["id"], redirect["id"], redirect["number"])
        for record in records
        for redirect in record["from_redirect_numbers"]
    ]
    return numbers, redirects


def differences(expected: Iterable[Row], found: list[Row], key: int) -> dict[str, int]:
    """Count rows by what is wrong with them; the first columns are the key."""
    wanted = {row[:key]: row for row in expected}
    held = {row[:key]: row for row in found}
    return {
        "rows": len(found),
        "duplicate": len(found) - len(held),
        "missing": len(wanted.keys() - held.keys()),
        "stale": len(held.keys() - wanted.keys()),
        "wrong": sum(1 for name, row in held.items() if name in wanted and wanted[name] != row),
    }


def check(question: dict[str, str]) -> dict[str, Any]:
    """Answer for both tables, and whether all is as it should be."""
    numbers, redirects = snapshot(Path(question["body"]))
    with contextlib.closing(connect(question["url"])) as connection:
        answer: dict[str, Any] = {
            "numbers": differences(numbers, fetch(connection, question["numbers"]), key=1),
            "redirects": differences(redirects, fetch(connection, question["redirects"]), key=2),
        }
    faults = ("duplicate", "missing", "stale", "wrong")
    answer["exact"] = not any(answer[table][fault] for table in ("numbers", "redirects") for fault in faults)
    return answer


if __name__ == "__main__":
    json.dump(check(json.load(sys.stdin)), sys.stdout)
