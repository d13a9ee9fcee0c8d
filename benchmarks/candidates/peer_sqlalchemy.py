"""SQLAlchemy Core upsert in chunks, as it is usually written by hand: a foreign key, and nothing is ever removed.

Usage: peer_sqlalchemy.py BASE_URL DATABASE_URL [--executemany]

Without the flag each chunk is one INSERT of many VALUES, the recipe that tutorials show; SQLAlchemy compiles each anew,
and that is where its time goes. With it a chunk is a list of parameters for one compiled statement, sent by the
driver's `executemany`: psycopg's pipeline, PyMySQL's joined VALUES, sqlite3's loop; the fastest way Core has here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import requests
from columns import BOOLEANS, INTEGERS, PATH, REDIRECTS, TEXTS, WORDS
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    ForeignKey,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite

# 1,000 rows of 19 columns stay below the 32,766 parameters that SQLite allows; larger chunks gained nothing anywhere.
CHUNK = 1000

metadata = MetaData()
numbers = Table(
    "virtual_numbers",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    *(Column(name, String(64)) for name in WORDS),
    *(Column(name, Text) for name in TEXTS),
    *(Column(name, BigInteger) for name in INTEGERS),
    *(Column(name, Boolean) for name in BOOLEANS),
)
redirects = Table(
    "redirect_numbers",
    metadata,
    Column("virtual_number_id", BigInteger, ForeignKey(numbers.c.id), primary_key=True, autoincrement=False),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("number", String(64)),
)


def upsert(dialect: str, table: Table, rows: Sequence[dict[str, Any]] | None) -> Any:
    """Return the database's own upsert, with the rows in it or to be executed with them."""
    values = [column.name for column in table.columns if not column.primary_key]
    if dialect == "mysql":
        insert = mysql.insert(table).values(rows) if rows else mysql.insert(table)
        return insert.on_duplicate_key_update({name: insert.inserted[name] for name in values})
    statement = (sqlite if dialect == "sqlite" else postgresql).insert(table)
    statement = statement.values(rows) if rows else statement
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key), set_={name: statement.excluded[name] for name in values}
    )


def load(connection: Connection, table: Table, rows: list[dict[str, Any]], executemany: bool) -> None:
    """Upsert rows chunk by chunk."""
    compiled_once = upsert(connection.dialect.name, table, None)
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        if executemany:
            connection.execute(compiled_once, chunk)
        else:
            connection.execute(upsert(connection.dialect.name, table, chunk))


def main() -> None:
    base_url, database_url, *flags = sys.argv[1:]
    records = requests.get(base_url + PATH, headers={"Authorization": "token"}, timeout=60).json()
    children = [
        {"virtual_number_id": record["id"], **redirect} for record in records for redirect in record.pop(REDIRECTS)
    ]
    engine = create_engine(
        database_url.replace("postgresql:", "postgresql+psycopg:").replace("mysql:", "mysql+pymysql:")
    )
    metadata.create_all(engine)
    with engine.begin() as connection:
        load(connection, numbers, records, "--executemany" in flags)
        load(connection, redirects, children, "--executemany" in flags)


if __name__ == "__main__":
    main()
