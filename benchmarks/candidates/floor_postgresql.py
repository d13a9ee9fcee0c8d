"""The floor for PostgreSQL: digests compared in memory, differences applied with binary COPY.

Usage: floor_postgresql.py BASE_URL DATABASE_URL [--keys]
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable

import psycopg
from floor import COLUMNS, Digest, Number, Row, compare, fetch, number_rows, redirect_rows, where_clause
from psycopg import Connection, sql

NUMBER_TYPES = [
    *("bytea", "int8", "text", "text", "text", "text", "int8", "int8", "int8", "bool", "bool"),
    *("text", "text", "int8", "text", "text", "text", "text", "text", "int8"),
]
REDIRECT_TYPES = ["int8", "int8", "text"]


def read_live(connection: Connection[Row]) -> dict[Digest, int]:
    """Return the ids of the live numbers by digest."""
    # One value for the whole table: the server concatenates faster than the client takes rows apart.
    query = "SELECT string_agg(digest || int8send(id), '') FROM virtual_numbers"
    row = connection.cursor(binary=True).execute(query).fetchone()
    return dict(struct.iter_unpack(">20sq", row[0])) if row and row[0] else {}


def copy(
    connection: Connection[Row], table: str, columns: tuple[str, ...], types: list[str], rows: Iterable[Row]
) -> None:
    """Copy rows into a table."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as stream:
        stream.set_types(types)
        write = stream.write_row
        for row in rows:
            write(row)


def apply(connection: Connection[Row], new: dict[Digest, Number], gone: list[int], where: str) -> None:
    """Replace what differs."""
    if gone:
        connection.execute(f"DELETE FROM redirect_numbers {where} virtual_number_id = ANY(%s)", [gone])
        connection.execute(f"DELETE FROM virtual_numbers {where} id = ANY(%s)", [gone])
    if new:
        copy(connection, "virtual_numbers", ("digest", *COLUMNS), NUMBER_TYPES, number_rows(new))
        columns = ("virtual_number_id", "id", "number")
        copy(connection, "redirect_numbers", columns, REDIRECT_TYPES, redirect_rows(new.values()))


def main() -> None:
    base_url, database_url, *flags = sys.argv[1:]
    snapshot = fetch(base_url)
    with psycopg.connect(database_url) as connection:
        new, gone = compare(snapshot, read_live(connection))
        apply(connection, new, gone, where_clause(flags))


if __name__ == "__main__":
    main()
