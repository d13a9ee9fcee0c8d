"""The floor for MariaDB: digests compared in memory, differences applied with INSERTs of many rows each.

Usage: floor_mariadb.py BASE_URL DATABASE_URL [--keys]
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from urllib.parse import urlsplit

import pymysql
from floor import COLUMNS, Digest, Number, Row, compare, fetch, number_rows, redirect_rows, where_clause
from pymysql.converters import escape_string
from pymysql.cursors import Cursor

# Well under the server's stock `max_allowed_packet` of 16 MiB; longer statements gain nothing.
STATEMENT_CHARACTERS = 1_000_000


def literal(value: str | int | bytes | None) -> str:
    """Write a value as SQL, by itself: the driver's own general conversion takes twice as long."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return f"'{escape_string(value)}'"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return str(int(value))


def insert(cursor: Cursor, table: str, columns: Iterable[str], rows: Iterable[Row]) -> None:
    """Insert rows with as few statements as reasonable."""
    head = f"INSERT INTO {table} ({', '.join(columns)}) VALUES "
    pending: list[str] = []
    length = 0
    for row in rows:
        text = f"({','.join(map(literal, row))})"
        pending.append(text)
        length += len(text)
        if length > STATEMENT_CHARACTERS:
            cursor.execute(head + ",".join(pending))
            pending, length = [], 0
    if pending:
        cursor.execute(head + ",".join(pending))


def read_live(cursor: Cursor) -> dict[Digest, int]:
    """Return the ids of the live numbers by digest."""
    # A value for every few thousand rows: the server concatenates faster than the driver takes rows apart. A group
    # stays far below the stock `group_concat_max_len` of 1 MiB.
    cursor.execute(
        "SELECT GROUP_CONCAT(CONCAT(digest, UNHEX(LPAD(HEX(id), 16, '0'))) SEPARATOR '')"
        " FROM virtual_numbers GROUP BY id DIV 20000"
    )
    return {digest: key for (value,) in cursor.fetchall() for digest, key in struct.iter_unpack(">20sq", value)}


def apply(cursor: Cursor, new: dict[Digest, Number], gone: list[int], where: str) -> None:
    """Replace what differs."""
    if gone:
        keys = ",".join(map(str, gone))
        cursor.execute(f"DELETE FROM redirect_numbers {where} virtual_number_id IN ({keys})")
        cursor.execute(f"DELETE FROM virtual_numbers {where} id IN ({keys})")
    insert(cursor, "virtual_numbers", ("digest", *COLUMNS), number_rows(new))
    insert(cursor, "redirect_numbers", ("virtual_number_id", "id", "number"), redirect_rows(new.values()))


def main() -> None:
    base_url, database_url, *flags = sys.argv[1:]
    url = urlsplit(database_url)
    snapshot = fetch(base_url)
    connection = pymysql.connect(
        host=url.hostname, port=url.port or 3306, user=url.username, database=url.path[1:], charset="utf8mb4"
    )
    cursor = connection.cursor()
    new, gone = compare(snapshot, read_live(cursor))
    if "--keys" not in flags:
        # Lets InnoDB fill an empty table in bulk; not with the foreign key, which would go unchecked.
        cursor.execute("SET unique_checks = 0, foreign_key_checks = 0")
    apply(cursor, new, gone, where_clause(flags))
    connection.commit()
    connection.close()


if __name__ == "__main__":
    main()
