"""Who takes part: each candidate's environment, databases and commands, and where its rows stand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.check import SCALARS
from benchmarks.environments import Environment

SCRIPTS = Path(__file__).resolve().parent / "candidates"
ALL = ("postgresql", "sqlite", "mariadb")

Pipeline = list[list[str]]


@dataclass(frozen=True)
class Run:
    """What a candidate needs to know for one run."""

    environment: Environment
    base_url: str
    database_url: str
    directory: Path

    @property
    def dialect(self) -> str:
        """The scheme of the database's URL."""
        return self.database_url.partition(":")[0]


@dataclass(frozen=True)
class Candidate:
    """One way to bring the tables to the snapshot."""

    name: str
    title: str
    # What it does, and what it does not, in the words of the published page.
    note: str
    environment: str
    command: Callable[[Run], Pipeline]
    databases: tuple[str, ...] = ALL
    # Creates the tables before the first load, not timed; None where the candidate's first load does.
    prepare: Callable[[Run], list[str]] | None = None
    variables: Callable[[Run], dict[str, str]] = lambda _run: {}
    redirects: str = "SELECT virtual_number_id, id, number FROM redirect_numbers"
    # The largest size that ends in reasonable time, by database, and why.
    limits: dict[str, tuple[int, str]] = field(default_factory=dict)
    # Slow peers are repeated less often.
    peer: bool = True

    @property
    def numbers(self) -> str:
        """The query for the rows of numbers."""
        return f"SELECT {', '.join(SCALARS)} FROM virtual_numbers"


def script(name: str, *flags: str) -> Callable[[Run], Pipeline]:
    """Return the command of a candidate that is one script."""

    def command(run: Run) -> Pipeline:
        # The floors know databases by the name of this benchmark, the URL by that of its protocol.
        file = name.format(database="mariadb" if run.dialect == "mysql" else run.dialect)
        return [[run.environment.python, str(SCRIPTS / file), run.base_url, run.database_url, *flags]]

    return command


def floor_schema(*flags: str) -> Callable[[Run], list[str]]:
    """Return the command that creates a floor's tables."""
    return lambda run: [run.environment.python, str(SCRIPTS / "floor_schema.py"), run.database_url, *flags]


def job_variables(run: Run) -> dict[str, str]:
    """Configure this job by its environment alone."""
    drivers = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
    scheme, _, rest = run.database_url.partition(":")
    return {
        "ETL_DATABASE_URL": f"{drivers.get(scheme, scheme)}:{rest}",
        "ETL_BASE_URL": run.base_url,
        "ETL_TOKEN": "token",
    }


def singer(run: Run) -> Pipeline:
    """Return the pipe of tap and target; the target's settings are those that make it fastest and exact."""
    settings = {
        "sqlalchemy_url": run.database_url.replace("postgresql:", "postgresql+psycopg:"),
        "default_target_schema": "public",
        "use_copy": True,
        "validate_records": False,
        "activate_version": True,
        "hard_delete": True,
        "batch_size_rows": 100_000,
    }
    file = run.directory / "target.json"
    file.write_text(json.dumps(settings))
    return [
        [run.environment.python, str(SCRIPTS / "peer_singer_tap.py"), run.base_url],
        [run.environment.program("target-postgres"), "--config", str(file)],
    ]


DLT_REDIRECTS = (
    "SELECT parent.id, child.id, child.number FROM virtual_numbers__from_redirect_numbers AS child"
    " LEFT JOIN virtual_numbers AS parent ON parent._dlt_id = child._dlt_parent_id"
)

CANDIDATES = (
    Candidate(
        "etl",
        "this job",
        "keys, foreign key and history tables in place; validates, keeps history, removes what is gone",
        "job",
        lambda run: [[run.environment.python, "-m", "etl", "sync"]],
        prepare=lambda run: [run.environment.python, "-m", "etl", "db", "upgrade"],
        variables=job_variables,
        peer=False,
    ),
    Candidate(
        "floor",
        "floor",
        "hand-written, no features; primary keys only",
        "floor",
        script("floor_{database}.py"),
        prepare=floor_schema(),
        peer=False,
    ),
    Candidate(
        "floor-keys",
        "floor, same keys",
        "the floor with this job's keys, foreign key and history tables in place",
        "floor",
        script("floor_{database}.py", "--keys"),
        prepare=floor_schema("--keys"),
        peer=False,
    ),
    Candidate(
        "dlt",
        "dlt merge",
        "as its documentation sets it up, columns declared; first load creates the tables",
        "dlt",
        script("peer_dlt.py"),
        redirects=DLT_REDIRECTS,
        limits={"mariadb": (10_000, "its merge deletes rows by subqueries that MariaDB runs row by row")},
    ),
    Candidate(
        "dlt-csv",
        "dlt merge, CSV",
        'the same with `loader_file_format="csv"`: COPY, its fastest way into PostgreSQL',
        "dlt",
        script("peer_dlt.py", "--csv"),
        databases=("postgresql",),
        redirects=DLT_REDIRECTS,
    ),
    Candidate(
        "singer",
        "Singer, target-postgres",
        "hand-written tap, `use_copy`, no validation, versions with `hard_delete`; first load creates the tables",
        "singer",
        singer,
        databases=("postgresql",),
    ),
    Candidate(
        "pandas",
        "pandas to_sql",
        "replaces both tables each time, without keys; COPY on PostgreSQL, `executemany` elsewhere",
        "pandas",
        script("peer_pandas.py"),
    ),
    Candidate(
        "sqlalchemy",
        "SQLAlchemy, VALUES",
        "Core upsert, one INSERT of many VALUES per chunk of 1,000 rows, foreign key; removes nothing",
        "sqlalchemy",
        script("peer_sqlalchemy.py"),
        limits=dict.fromkeys(
            ("postgresql", "sqlite"), (10_000, "it takes minutes, all of them in compiling statements")
        ),
    ),
    Candidate(
        "sqlalchemy-executemany",
        "SQLAlchemy, executemany",
        "the same with each chunk as parameters of one compiled statement, the fastest way Core has",
        "sqlalchemy",
        script("peer_sqlalchemy.py", "--executemany"),
    ),
)

# What importing costs by itself: bare interpreter, what the floors import, what this job cannot do without.
FLOOR_IMPORTS = {
    "sqlite": "http.client, msgspec",
    "postgresql": "http.client, msgspec, psycopg",
    "mariadb": "http.client, msgspec, pymysql",
}
JOB_IMPORTS = {
    "sqlite": "requests, sqlalchemy, msgspec",
    "postgresql": "requests, sqlalchemy, msgspec, psycopg",
    "mariadb": "requests, sqlalchemy, msgspec, pymysql",
}
