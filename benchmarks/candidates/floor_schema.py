"""Creates the floors' tables; not timed, as `etl db upgrade` is not.

Usage: floor_schema.py DATABASE_URL [--keys]

Without `--keys` the tables have the least keys that a loader can work with. With it they have what this job's tables
have: both keys begin with the source, redirects refer to their number by a foreign key, history tables stand beside.
The floors' statements are the same for both: the source is filled in by the column's default.
"""

from __future__ import annotations

import sqlite3
import sys
from typing import Any
from urllib.parse import urlsplit

TYPES = {
    "sqlite": {"digest": "BLOB", "integer": "INTEGER", "boolean": "INTEGER", "text": "TEXT", "short": "TEXT"},
    "postgresql": {"digest": "BYTEA", "integer": "BIGINT", "boolean": "BOOLEAN", "text": "TEXT", "short": "TEXT"},
    "mysql": {
        "digest": "BINARY(20)",
        "integer": "BIGINT",
        "boolean": "BOOLEAN",
        "text": "TEXT",
        "short": "VARCHAR(64)",
    },
}
NUMBERS = """CREATE TABLE {table} (digest {digest} NOT NULL, id {integer} NOT NULL, number {short} NOT NULL,
comment {text}, type {short}, purpose {short}, scenario_id {integer}, group_scenario_id {integer}, group_id {integer},
is_scenario_active {boolean}, is_group_scenario_active {boolean}, state {short}, reason {text}, employee_id {integer},
dgn_number {short}, redirect_number {short}, region_name {text}, sip_uri {text}, nc_type {short}, app_id {integer}
{keys}){options}"""
REDIRECTS = """CREATE TABLE {table} (virtual_number_id {integer} NOT NULL, id {integer} NOT NULL,
number {short} NOT NULL {keys}){options}"""


def statements(dialect: str, keys: bool) -> list[str]:
    """Return the statements that create the tables."""
    types = TYPES[dialect]
    source = f", source {types['short']} NOT NULL DEFAULT 'main'"
    number_keys, redirect_keys = ", PRIMARY KEY (id)", ", PRIMARY KEY (virtual_number_id, id)"
    if keys:
        number_keys = f"{source}, PRIMARY KEY (source, id)"
        redirect_keys = f"""{source}, PRIMARY KEY (source, virtual_number_id, id),
            FOREIGN KEY (source, virtual_number_id) REFERENCES virtual_numbers (source, id)"""
    # A table that is its own index saves SQLite one of two trees per row.
    options = " WITHOUT ROWID" if dialect == "sqlite" else ""
    # An INTEGER PRIMARY KEY is the row's own address in SQLite: nothing is faster than the plain table.
    number_options = options if keys else ""
    created = [
        NUMBERS.format(table="virtual_numbers", keys=number_keys, options=number_options, **types),
        REDIRECTS.format(table="redirect_numbers", keys=redirect_keys, options=options, **types),
    ]
    if keys:
        created += [
            NUMBERS.format(table="virtual_numbers_history", keys=source, options="", **types),
            REDIRECTS.format(table="redirect_numbers_history", keys=source, options="", **types),
        ]
    return created


def main() -> None:
    database_url, *flags = sys.argv[1:]
    url = urlsplit(database_url)
    connection: Any
    if url.scheme == "sqlite":
        connection = sqlite3.connect(url.path[1:])
        connection.execute("PRAGMA journal_mode = WAL")
    elif url.scheme == "postgresql":
        import psycopg  # noqa: PLC0415 - only the driver that is needed

        connection = psycopg.connect(database_url)
    else:
        import pymysql  # noqa: PLC0415

        connection = pymysql.connect(
            host=url.hostname, port=url.port or 3306, user=url.username, database=url.path[1:], charset="utf8mb4"
        )
    cursor = connection.cursor()
    for statement in statements(url.scheme, "--keys" in flags):
        cursor.execute(statement)
    connection.commit()
    connection.close()


if __name__ == "__main__":
    main()
