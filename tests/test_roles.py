"""The scripts that part migrating, loading and reading, run on real servers: each role does its work and no more."""

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from tests.command import CHECKOUT, Ended, run
from tests.databases import SERVER_TYPES, Database
from tests.databases_servers import HOST, OWNER
from tests.snapshots import body, record

COUNT = itertools.count(1)
NAMES = ("etl_migrator", "etl_loader", "etl_reader")
PASSWORD = "a-password"


@dataclass
class Roles:
    """A database whose tables belong to a migrator."""

    database: Database
    suffix: str

    def url(self, name: str) -> str:
        return self.database.server.url(self.database.name, f"{name}{self.suffix}", PASSWORD)

    def etl(self, name: str, *arguments: str, cwd: Path) -> Ended:
        """Run a command as one of the roles, on a schema that it has to find as it needs it."""
        config = cwd / "config.toml"
        config.write_text('[database]\nmigrate = "check"\n[guard]\nmax_removed_fraction = 1.0\n')
        return run(*arguments, "--config", str(config), cwd=cwd, variables={"ETL_DATABASE_URL": self.url(name)})

    def allowed(self, name: str, statement: str) -> bool:
        """Whether the database lets the role do it; nothing of it stays."""
        with connection_to(self.database.kind, self.url(name)) as connection:
            try:
                connection.execute(text(statement))
            except DBAPIError as error:
                if re.search("denied|must be owner", str(error.orig)):
                    return False
                raise
        return True


def connection_to(kind: str, url: str) -> Connection:
    return create_engine(url, poolclass=NullPool, connect_args=dict(SERVER_TYPES[kind].connect_args)).connect()


@pytest.fixture(params=list(SERVER_TYPES))
def roles(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Roles]:
    """Run the script before and after the first upgrade, as its head says."""
    databases = request.getfixturevalue(f"{request.param}_databases")
    with databases.empty() as database:
        made = Roles(database, f"_{os.getpid()}_{next(COUNT)}")
        try:
            run_script(made, before_upgrade=True)
            set_passwords(made)
            assert made.etl("etl_migrator", "db", "upgrade", cwd=tmp_path).code == 0
            run_script(made)
            run_script(made)
            yield made
        finally:
            drop_roles(made)


def run_script(roles: Roles, *, before_upgrade: bool = False) -> None:
    """Run the script under names of this test's own, for roles belong to the whole server."""
    kind = roles.database.kind
    script = (CHECKOUT / "deploy" / f"roles-{kind}.sql").read_text()
    for name in NAMES:
        script = script.replace(name, f"{name}{roles.suffix}")
    if kind == "postgresql":
        roles.database.server.execute_in(roles.database.name, script)
        return
    script = script.replace("`numbers`", f"`{roles.database.name}`").replace("'%'", f"'{HOST}'")
    if before_upgrade:
        script = script.partition("-- From here on the tables must be there.")[0]
    statements = re.sub(r"^--.*$", "", script, flags=re.MULTILINE).split(";")
    roles.database.server.execute(*(statement for statement in statements if statement.strip()))


def set_passwords(roles: Roles) -> None:
    server = roles.database.server
    for name in NAMES:
        if roles.database.kind == "postgresql":
            server.execute(f"ALTER ROLE {name}{roles.suffix} PASSWORD '{PASSWORD}'")
        else:
            server.execute(f"ALTER USER '{name}{roles.suffix}'@'{HOST}' IDENTIFIED BY '{PASSWORD}' ACCOUNT UNLOCK")


def drop_roles(roles: Roles) -> None:
    server = roles.database.server
    for name in NAMES:
        if roles.database.kind == "postgresql":
            role = f"{name}{roles.suffix}"
            server.execute_in(
                roles.database.name, f"REASSIGN OWNED BY {role} TO {OWNER}; DROP OWNED BY {role}; DROP ROLE {role}"
            )
        else:
            server.execute(f"DROP USER IF EXISTS '{name}{roles.suffix}'@'{HOST}'")


def sync(roles: Roles, folder: Path, *records: Any) -> Ended:
    saved = folder / "body.json"
    saved.write_bytes(body(records))
    return roles.etl("etl_loader", "sync", "--from-file", str(saved), cwd=folder)


def test_the_loader_syncs_verifies_and_repairs_a_schema_that_it_may_not_alter(roles: Roles, tmp_path: Path) -> None:
    for records in (
        [record(1, {7: "1"}), record(2), {"id": None}],
        [record(1, {8: "2"}, comment="changed")],
        [],
        [record(1)],
    ):
        ended = sync(roles, tmp_path, *records, *([record(9)] if len(records) < 3 else []))
        assert ended.code in (0, 65), ended.stderr
    assert roles.etl("etl_loader", "verify", "--repair", cwd=tmp_path).code == 0
    assert roles.database.server.execute_in(roles.database.name, "SELECT count(*) FROM virtual_numbers_history") > [
        (0,)
    ]
    assert roles.database.server.execute_in(roles.database.name, "SELECT count(*) FROM quarantined_records") > [(0,)]
    assert roles.etl("etl_loader", "db", "upgrade", cwd=tmp_path).code == 0, "there is nothing to upgrade"
    assert roles.etl("etl_loader", "db", "downgrade", "base", "--yes", cwd=tmp_path).code == 77


TABLES = ("virtual_numbers", "redirect_numbers", "virtual_numbers_history", "redirect_numbers_history", "sync_runs",
          "quarantined_records", "alembic_version")  # fmt: skip
VIEWS = ("virtual_numbers_timeline", "redirect_numbers_timeline", "virtual_numbers_ever", "number_redirects")


def test_the_reader_reads_everything_and_writes_nothing(roles: Roles, tmp_path: Path) -> None:
    assert sync(roles, tmp_path, record(1, {7: "1"})).code == 0
    for command in (["status"], ["changes"], ["quarantine"], ["verify"], ["db", "check"], ["db", "current"]):
        ended = roles.etl("etl_reader", *command, "--json", cwd=tmp_path)
        assert ended.code == 0, (command, ended.stderr)
    for table in TABLES + VIEWS:
        assert roles.allowed("etl_reader", f"SELECT * FROM {table}")
    for table in TABLES:
        assert not roles.allowed("etl_reader", f"DELETE FROM {table}")
        assert not roles.allowed("etl_reader", f"INSERT INTO {table} SELECT * FROM {table}")
        assert not roles.allowed("etl_reader", f"DROP TABLE {table}")
    assert not roles.allowed("etl_reader", "UPDATE virtual_numbers SET number = '0'")
    assert not roles.allowed("etl_reader", "CREATE TABLE another (id integer)")
    refused = roles.etl("etl_reader", "sync", "--from-file", str(tmp_path / "body.json"), cwd=tmp_path)
    assert refused.code == 77
    assert "have them granted" in refused.stdout + refused.stderr


def test_the_loader_changes_neither_schema_nor_past_nor_revision(roles: Roles, tmp_path: Path) -> None:
    assert sync(roles, tmp_path, record(1)).code == 0
    for table in TABLES:
        assert roles.allowed("etl_loader", f"SELECT * FROM {table}")
        assert not roles.allowed("etl_loader", f"DROP TABLE {table}")
        assert not roles.allowed("etl_loader", f"ALTER TABLE {table} ADD COLUMN another integer")
    for view in VIEWS:
        assert not roles.allowed("etl_loader", f"DROP VIEW {view}")
    assert not roles.allowed("etl_loader", "UPDATE virtual_numbers_history SET number = '0'")
    assert not roles.allowed("etl_loader", "UPDATE redirect_numbers_history SET number = '0'")
    assert not roles.allowed("etl_loader", "UPDATE alembic_version SET version_num = 'x'")
    assert not roles.allowed("etl_loader", "DELETE FROM alembic_version")
    assert not roles.allowed("etl_loader", "CREATE TABLE another (id integer)")


def test_a_role_that_was_just_made_lets_nobody_in(roles: Roles) -> None:
    new = Roles(roles.database, f"{roles.suffix}_new")
    try:
        run_script(new, before_upgrade=True)
        for password in ("", PASSWORD):
            url = roles.database.server.url(roles.database.name, f"etl_loader{new.suffix}", password or " ")
            with pytest.raises(DBAPIError), connection_to(roles.database.kind, url):
                pass
    finally:
        drop_roles(new)
