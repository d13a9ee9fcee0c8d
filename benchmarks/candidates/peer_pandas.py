"""pandas `to_sql`: the tables replaced in one transaction, which is all it offers for a snapshot.

Usage: peer_pandas.py BASE_URL DATABASE_URL

What favours pandas here: on PostgreSQL rows go in with COPY, by the callable that its documentation shows; elsewhere
with the driver's `executemany`, which is faster than `method="multi"`. The tables have no keys.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable
from typing import Any

import pandas as pd
import requests
from columns import BOOLEANS, INTEGERS, PATH, REDIRECTS
from sqlalchemy import Connection, create_engine


def insert_with_copy(table: Any, connection: Connection, keys: list[str], rows: Iterable[Any]) -> None:
    """Insert rows with COPY, as pandas' documentation proposes."""
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    columns = ", ".join(f'"{key}"' for key in keys)
    statement = f"COPY {table.name} ({columns}) FROM STDIN WITH (FORMAT CSV)"
    driver: Any = connection.connection
    with driver.cursor() as cursor, cursor.copy(statement) as stream:
        stream.write(buffer.getvalue())


def main() -> None:
    base_url, database_url = sys.argv[1:]
    records = requests.get(base_url + PATH, headers={"Authorization": "token"}, timeout=60).json()
    numbers = pd.DataFrame(records)
    nested = numbers[["id", REDIRECTS]].explode(REDIRECTS).dropna()
    redirects = pd.DataFrame(nested[REDIRECTS].tolist())
    redirects.insert(0, "virtual_number_id", nested["id"].to_numpy())
    types = dict.fromkeys(INTEGERS, "Int64") | dict.fromkeys(BOOLEANS, "boolean")
    numbers = numbers.drop(columns=REDIRECTS).astype(types)

    engine = create_engine(
        database_url.replace("postgresql:", "postgresql+psycopg:").replace("mysql:", "mysql+pymysql:")
    )
    method = insert_with_copy if engine.dialect.name == "postgresql" else None
    with engine.begin() as connection:
        for name, frame in (("virtual_numbers", numbers), ("redirect_numbers", redirects)):
            frame.to_sql(name, connection, if_exists="replace", index=False, method=method)


if __name__ == "__main__":
    main()
