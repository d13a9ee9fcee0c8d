"""MariaDB for the tests, from the programs that Debian's mariadb-server installs."""

import os
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from graphlib import TopologicalSorter
from typing import Any, ClassVar

from sqlalchemy.exc import DBAPIError

from tests.databases_servers import HOST, OWNER, Server, ServerUnavailableError, run_setup

DATABASE = "`%database%`"  # stands for the database's quoted name in captured statements


def find_program(name: str) -> str:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    if program := shutil.which(name, path=path):
        return program
    raise ServerUnavailableError(f"MariaDB: no {name} on PATH or in /usr/sbin; apt-get install mariadb-server")


class MariaDB(Server):
    """A MariaDB server; only its Unix socket, in a folder of its own, lets root in without a password."""

    kind = "mariadb"
    drivername = "mysql+pymysql"
    url_query: ClassVar[Mapping[str, str]] = {"charset": "utf8mb4"}
    # Otherwise PyMySQL loads the system's certificates before it learns that the server has no TLS: 20 ms.
    connect_args: ClassVar[Mapping[str, Any]] = {"ssl_disabled": True}
    admin = "admin"
    admin_database = "mysql"
    stop_signal = signal.SIGTERM
    end_signal = signal.SIGKILL

    def prepare(self) -> None:
        find_program("mariadbd")
        command = [find_program("mariadb-install-db"), *self._basic_options(), "--skip-test-db"]
        command += ["--auth-root-authentication-method=socket"]
        run_setup(command)
        account = f"{self.admin}@'{HOST}'"
        script = self.folder / "first.sql"
        script.touch(0o600)
        script.write_text(
            f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO {account} WITH GRANT OPTION;\n"
        )

    def command(self) -> list[str]:
        return [
            find_program("mariadbd"),
            *self._basic_options(),
            "--skip-networking=0",
            f"--bind-address={HOST}",
            f"--port={self.port}",
            f"--socket={self.folder / 'socket'}",
            f"--pid-file={self.folder / 'pid'}",
            f"--init-file={self.folder / 'first.sql'}",
            "--skip-name-resolve",
            "--performance-schema=off",
            "--innodb-buffer-pool-size=64M",
            # As in Debian's configuration; collation and sql_mode stay at the server's defaults, as there.
            "--character-set-server=utf8mb4",
            "--default-time-zone=+03:00",
            # A commit reaches the kernel, and so outlives the server, but nothing waits for the disk.
            "--innodb-flush-log-at-trx-commit=2",
            "--loose-innodb-flush-method=nosync",
            "--loose-debug-no-sync",
        ]

    def literal(self, text: str) -> str:
        return super().literal(text.replace("\\", "\\\\"))  # here a backslash escapes, whatever the standard says

    def create_user(self, name: str, password: str) -> None:
        self.execute(f"CREATE USER {self._account(name)} IDENTIFIED BY {self.literal(password)}")

    def allow_owner(self) -> None:
        self.execute(f"GRANT ALL ON `test\\_%`.* TO {self._account(OWNER)}")

    def create_database(self, name: str) -> None:
        self.execute(f"CREATE DATABASE {self.identifier(name)}")

    def clone_database(self, template: str, name: str) -> None:
        if template not in self._captured:
            self._captured[template] = self._capture(template)
        database = self.identifier(name)
        self.execute(*(statement.replace(DATABASE, database) for statement in self._captured[template]))

    def drop_database(self, name: str) -> None:
        # An open transaction, left behind by a test or a killed process, would keep DROP waiting for a day.
        query = f"SELECT id FROM information_schema.processlist WHERE db = {self.literal(name)}"
        for (connection,) in self.execute(query):
            with suppress(DBAPIError):  # it has ended by itself
                self.execute(f"KILL {connection}")
        self.execute(f"DROP DATABASE IF EXISTS {self.identifier(name)}")

    @cached_property
    def _captured(self) -> dict[str, list[str]]:
        return {}

    def _capture(self, template: str) -> list[str]:
        """Return the statements that make a copy of a database: its tables, their rows, its views."""
        for catalogue, column in (("triggers", "trigger_schema"), ("routines", "routine_schema")):
            query = f"SELECT count(*) FROM information_schema.{catalogue} WHERE {column} = {self.literal(template)}"
            if self.execute(query) != [(0,)]:
                raise NotImplementedError(f"cloning a MariaDB database with {catalogue}")
        source = self.identifier(template)
        listed = self.execute(f"SHOW FULL TABLES FROM {source}")
        tables = [self.identifier(name) for name, what in listed if what == "BASE TABLE"]
        views = [self.identifier(name) for name, what in listed if what == "VIEW"]
        statements = [self.execute(f"SHOW CREATE DATABASE {source}")[0][1].replace(source, DATABASE), f"USE {DATABASE}"]
        statements += ["SET foreign_key_checks = 0"]
        statements += [self.execute(f"SHOW CREATE TABLE {source}.{table}")[0][1] for table in tables]
        statements += [
            f"INSERT INTO {table} SELECT * FROM {source}.{table}"
            for table in tables
            if self.execute(f"SELECT EXISTS (SELECT * FROM {source}.{table})") == [(1,)]
        ]
        statements += ["SET foreign_key_checks = 1"]
        created = {view: self.execute(f"SHOW CREATE VIEW {source}.{view}")[0][1] for view in views}
        used = {
            view: [other for other in views if other != view and f"{source}.{other}" in text]
            for view, text in created.items()
        }
        statements += [created[view].replace(source, DATABASE) for view in TopologicalSorter(used).static_order()]
        return [*statements, f"USE {self.identifier(self.admin_database)}"]

    def _account(self, name: str) -> str:
        return f"{self.literal(name)}@'{HOST}'"

    def _basic_options(self) -> list[str]:
        options = ["--no-defaults", f"--datadir={self.folder / 'data'}", f"--tmpdir={self.folder}"]
        options += ["--innodb-log-file-size=32M"]
        return [*options, "--user=root"] if os.geteuid() == 0 else options
