"""Counts that do not vary: statements sent, rows written, requests made, modules imported."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Engine, event

from etl.config import Database as DatabaseSection
from etl.sandbox import SandboxServer
from tests.command import environment, run
from tests.databases import Databases
from tests.faults.proxy import Proxy
from tests.loading import TOKEN, Loader, loading
from tests.snapshots import Record, body, record

MANY = 300


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    """Collect what every engine sends; rows that are fetched or copied past SQLAlchemy are one statement more each."""
    sent: list[str] = []

    def note(_1: object, _2: object, statement: str, *_: object) -> None:
        sent.append(" ".join(statement.split())[:60])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def business(statements: list[str]) -> list[str]:
    """Leave out what sets up a session, takes the lock and asks for the schema's revision."""
    verbs = (
        "INSERT",
        "UPDATE",
        "DELETE",
        "SELECT sync_runs",
        "SELECT virtual",
        "SELECT redirect",
        "SELECT quarantined",
    )
    return [text for text in statements if text.startswith(verbs)]


def test_an_unchanged_run_sends_the_same_few_statements_whatever_the_size(loader: Loader) -> None:
    seen = []
    for size in (3, MANY):
        snapshot = [record(number, {number + 1000: "74950000000"}) for number in range(1, size + 1)]
        loader.load(snapshot, source=f"size-{size}")
        with counted_statements() as sent:
            loader.load(snapshot, source=f"size-{size}")
        seen.append(business(sent))

    assert seen[0] == seen[1]
    writes = [text.split("(")[0].strip() for text in seen[0] if not text.startswith("SELECT")]
    assert [text.split()[0:2] for text in writes] == [["INSERT", "INTO"], ["UPDATE", "sync_runs"]]
    assert all("sync_runs" in text for text in writes)


def test_a_changed_run_sends_as_many_statements_for_many_changes_as_for_few(loader: Loader) -> None:
    counts = []
    for size in (5, MANY):
        numbers = range(1, size + 1)
        name = f"size-{size}"
        loader.load([record(number, {number + 1000: "74950000000"}) for number in numbers], source=name)
        changed = [record(number, {number + 1000: "74950000001"}, comment="другая") for number in numbers]
        with counted_statements() as sent:
            loader.load(changed, source=name)
        counts.append(len(business(sent)))

    assert counts[0] == counts[1]
    assert counts[0] <= 14


def test_a_run_asks_the_source_once(loader: Loader) -> None:
    loader.load([record(1)])
    loader.load([record(2)])

    assert len(loader.server.requests) == 2


def modules_of(*arguments: str, cwd: Path, variables: dict[str, str]) -> set[str]:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "etl", *arguments],
        cwd=cwd, env=environment(variables), capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize(("kind", "at_most"), [("postgresql", (37, 46)), ("mariadb", (33, 40))])
def test_a_run_waits_for_the_server_as_often_whatever_the_size(
    kind: str, at_most: tuple[int, int], request: pytest.FixtureRequest
) -> None:
    databases: Databases = request.getfixturevalue(f"{kind}_databases")
    unchanged: list[int] = []
    changed: list[int] = []
    with databases.migrated() as database, loading(database) as loader, Proxy(database.server.port) as proxy:
        section = DatabaseSection(url=proxy.url(database.url))
        proxied = Loader(database, loader.server, msgspec.structs.replace(loader.config, database=section))

        def round_trips(snapshot: list[Record], source: str) -> int:
            before = proxy.round_trips
            proxied.load(snapshot, source=source)
            return proxy.round_trips - before

        for size in (3, MANY):
            snapshot = [record(number) for number in range(1, size + 1)]
            loader.load(snapshot, source=f"size-{size}")
            unchanged.append(round_trips(snapshot, f"size-{size}"))
            changed.append(round_trips([made | {"comment": "другая"} for made in snapshot], f"size-{size}"))

    assert unchanged[0] == unchanged[1] <= at_most[0]
    assert changed[0] == changed[1] <= at_most[1]


NEVER_NEEDED_BY_CRON = {
    "alembic", "apprise", "apscheduler", "difflib", "prometheus_client", "psycopg", "pymysql", "rich", "zoneinfo",
    "sqlalchemy.dialects.mysql", "sqlalchemy.dialects.postgresql", "sqlalchemy.orm",
    "etl.db.models", "etl.extract.archive", "etl.extract.file", "etl.integrations.metrics", "etl.integrations.notify",
    "etl.integrations.ping", "etl.report.changes", "etl.report.progress", "etl.sandbox", "etl.scheduler",
}  # fmt: skip


def test_a_cron_run_on_sqlite_imports_nothing_that_it_does_not_use(sqlite_databases: Databases, tmp_path: Path) -> None:
    with sqlite_databases.migrated() as database, SandboxServer(token=TOKEN) as server:
        server.serve_body(body([record(1)]))
        variables = {"ETL_DATABASE_URL": database.url, "ETL_BASE_URL": server.base_url, "ETL_TOKEN": TOKEN}
        assert run("sync", "--quiet", cwd=tmp_path, variables=variables).code == 0
        imported = modules_of("sync", "--quiet", cwd=tmp_path, variables=variables)

    assert {"requests", "sqlalchemy", "msgspec"} <= imported
    assert imported & NEVER_NEEDED_BY_CRON == set()


NEEDED_BY_FEW = {
    "requests", "urllib3", "etl.extract.client", "etl.pipeline", "etl.transform.snapshot", "etl.report.changes",
    *NEVER_NEEDED_BY_CRON,
}  # fmt: skip
NEEDED: dict[str, set[str]] = {
    "status": set(),
    "changes": {"etl.report.changes"},
    "quarantine": set(),
    "db current": set(),
    "db check": set(),
    "verify": {"etl.transform.snapshot", "etl.extract.archive", "etl.extract.file"},
    "doctor": {"requests", "urllib3", "etl.extract.client"},
    "sync --dry-run": {
        "requests", "urllib3", "etl.extract.client", "etl.pipeline", "etl.transform.snapshot", "etl.report.changes"
    },
}  # fmt: skip


@pytest.mark.parametrize("command", NEEDED)
def test_a_command_imports_nothing_that_others_need(command: str, sqlite_databases: Databases, tmp_path: Path) -> None:
    with sqlite_databases.migrated() as database, SandboxServer(token=TOKEN) as server:
        server.serve_body(body([record(1)]))
        variables = {"ETL_DATABASE_URL": database.url, "ETL_BASE_URL": server.base_url, "ETL_TOKEN": TOKEN}
        imported = modules_of(*command.split(), cwd=tmp_path, variables=variables)

    assert "etl.config" in imported
    assert imported & NEEDED_BY_FEW == NEEDED[command]


def test_help_imports_neither_the_database_nor_http(tmp_path: Path) -> None:
    imported = modules_of("--help", cwd=tmp_path, variables={})

    assert "argparse" in imported
    assert imported & {"sqlalchemy", "requests", "msgspec", "alembic", "rich", "apscheduler"} == set()


def test_a_file_needs_no_http(tmp_path: Path, sqlite_databases: Databases) -> None:
    (tmp_path / "saved.json").write_bytes(body([record(1)]))
    with sqlite_databases.migrated() as database:
        imported = modules_of(
            "sync", "--from-file", "saved.json", cwd=tmp_path, variables={"ETL_DATABASE_URL": database.url}
        )

    assert "etl.extract.file" in imported
    assert imported & {"requests", "urllib3", "etl.extract.client"} == set()


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_no_driver_of_another_database_is_imported(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    databases: Databases = request.getfixturevalue(f"{kind}_databases")
    (tmp_path / "saved.json").write_bytes(body([record(1)]))
    with databases.migrated() as database:
        variables = {"ETL_DATABASE_URL": database.url}
        imported = modules_of("sync", "--from-file", "saved.json", cwd=tmp_path, variables=variables)

    own, other = ("psycopg", "pymysql") if kind == "postgresql" else ("pymysql", "psycopg")
    assert own in imported
    assert other not in imported
    assert "sqlite3" not in imported


def test_rows_are_bound_for_every_database_without_passing_its_limit(loader: Loader) -> None:
    many = 7_000  # of SQLite's 32,766 parameters, as many numbers as these have columns would use four times as many
    loader.load([record(number) for number in range(1, many + 1)])
    loader.load([record(number, comment="другая") for number in range(1, many + 1)])
    loader.load([])

    assert loader.database.scalar("SELECT count(*) FROM virtual_numbers") == 0
    assert loader.database.scalar("SELECT count(*) FROM virtual_numbers_history") == 2 * many
