"""dlt with merge, in its own words: one resource, a primary key, redirects as the nested table dlt makes of the array.

Usage: peer_dlt.py BASE_URL DATABASE_URL [--csv]

What favours dlt here: the columns are declared, so their types are not inferred from every value; the whole list is
yielded at once, not record by record; orjson is installed; telemetry is off. The merge strategy is the default,
`delete-insert`, the only one offered on every database here. On PostgreSQL `upsert` took as long, and with 100,000
numbers minutes once its tables had been analysed, as they are between two real runs. On SQLite and MariaDB the keys and
indexes that a merge joins by, off by default there, are switched on. `--csv` makes the files between dlt's steps CSV,
loaded with COPY, its fastest way into PostgreSQL; without it they are what dlt writes by default.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

import dlt
import requests
from columns import BOOLEANS, INTEGERS, PATH, TEXTS, WORDS

COLUMNS: dict[str, Any] = {
    "id": {"data_type": "bigint", "nullable": False},
    **{name: {"data_type": "text"} for name in (*WORDS, *TEXTS)},
    **{name: {"data_type": "bigint"} for name in INTEGERS},
    **{name: {"data_type": "bool"} for name in BOOLEANS},
}


def main() -> None:
    base_url, database_url, *flags = sys.argv[1:]
    dialect = database_url.partition(":")[0]
    if dialect == "postgresql":
        destination = dlt.destinations.postgres(database_url)
    else:
        destination = dlt.destinations.sqlalchemy(
            database_url.replace("mysql:", "mysql+pymysql:"), create_primary_keys=True, create_unique_indexes=True
        )

    @dlt.resource(
        name="virtual_numbers",
        primary_key="id",
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
        columns=COLUMNS,
    )
    def virtual_numbers() -> Iterator[Any]:
        yield requests.get(base_url + PATH, headers={"Authorization": "token"}, timeout=60).json()

    pipeline = dlt.pipeline(
        "benchmark",
        destination=destination,
        # The tables stand where every candidate's stand: in the schema, file or database that the URL names.
        dataset_name={"postgresql": "public", "sqlite": "main"}.get(dialect, urlsplit(database_url).path[1:]),
        pipelines_dir=str(Path.cwd() / "pipelines"),
    )
    pipeline.run(virtual_numbers(), loader_file_format="csv" if "--csv" in flags else None).raise_on_failed_jobs()


if __name__ == "__main__":
    main()
