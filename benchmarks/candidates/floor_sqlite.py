"""The floor for SQLite: digests compared in memory, differences applied with `executemany` in one transaction.

Usage: floor_sqlite.py BASE_URL DATABASE_URL [--keys]
"""

from __future__ import annotations

import sqlite3
import sys

from floor import COLUMNS, Digest, Number, compare, fetch, number_rows, redirect_rows, where_clause

INSERT_NUMBER = f"INSERT INTO virtual_numbers (digest, {', '.join(COLUMNS)}) VALUES (?{', ?' * len(COLUMNS)})"
INSERT_REDIRECT = "INSERT INTO redirect_numbers (virtual_number_id, id, number) VALUES (?, ?, ?)"


def apply(connection: sqlite3.Connection, new: dict[Digest, Number], gone: list[int], where: str) -> None:
    """Replace what differs."""
    with connection:
        keys = [(key,) for key in gone]
        connection.executemany(f"DELETE FROM redirect_numbers {where} virtual_number_id = ?", keys)
        connection.executemany(f"DELETE FROM virtual_numbers {where} id = ?", keys)
        connection.executemany(INSERT_NUMBER, number_rows(new))
        connection.executemany(INSERT_REDIRECT, redirect_rows(new.values()))


def main() -> None:
    base_url, database_url, *flags = sys.argv[1:]
    snapshot = fetch(base_url)
    connection = sqlite3.connect(database_url.removeprefix("sqlite:///"))
    # The same durability as the job's: a write-ahead log, flushed at checkpoints.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    live = dict(connection.execute("SELECT digest, id FROM virtual_numbers"))
    new, gone = compare(snapshot, live)
    if new or gone:
        apply(connection, new, gone, where_clause(flags))
    connection.close()


if __name__ == "__main__":
    main()
