"""Databases for tests: one dataclass for all kinds, and what makes empty and migrated ones of each kind."""

import fcntl
import itertools
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, make_url, text

from tests.databases_mariadb import MariaDB
from tests.databases_postgresql import PostgreSQL
from tests.databases_servers import Server

SERVER_TYPES: Mapping[str, type[Server]] = {"postgresql": PostgreSQL, "mariadb": MariaDB}
TEMPLATE = "test_template"
NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Database:
    """One database of a test's own. An empty SQLite database has no file until something connects to it."""

    kind: str
    url: str
    _make: Callable[[], AbstractContextManager["Database"]] = field(repr=False, compare=False)
    _server: Server | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The database's name on its server, the path of SQLite's file."""
        return str(make_url(self.url).database)

    @property
    def server(self) -> Server:
        if self._server is None:
            raise ValueError("SQLite has no server")
        return self._server

    def fresh(self) -> AbstractContextManager["Database"]:
        """Make another database in the state this one was in when the test began, for one example of Hypothesis."""
        return self._make()

    def with_driver(self, drivername: str) -> str:
        """Return the URL under another of SQLAlchemy's driver names, such as `postgresql` or `mariadb+pymysql`."""
        return make_url(self.url).set(drivername=drivername).render_as_string(hide_password=False)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Open one connection; what it does not commit is rolled back."""
        with self._engine.connect() as connection:
            yield connection

    @cached_property
    def _engine(self) -> Engine:
        # Kept, for each new engine asks the server five questions; it keeps no connection.
        connect_args = SERVER_TYPES[self.kind].connect_args if self.kind in SERVER_TYPES else {}
        return create_engine(self.url, poolclass=NullPool, connect_args=dict(connect_args))

    def rows(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql), parameters)]

    def scalar(self, sql: str, **parameters: Any) -> Any:
        with self.connect() as connection:
            return connection.execute(text(sql), parameters).scalar_one()

    def execute(self, sql: str, **parameters: Any) -> None:
        with self.connect() as connection:
            connection.execute(text(sql), parameters)
            connection.commit()


class Databases(ABC):
    """Makes databases of one kind."""

    def __init__(self, shared: Path, create_schema: Callable[[str], None]) -> None:
        """Keep templates in a folder shared by all processes of the test run."""
        self._shared = shared
        self._create_schema = create_schema

    @abstractmethod
    def empty(self) -> AbstractContextManager[Database]:
        """Make an empty database and remove it afterwards."""

    @abstractmethod
    def migrated(self) -> AbstractContextManager[Database]:
        """Make a database with the product's schema and remove it afterwards."""


class SQLiteDatabases(Databases):
    """Makes SQLite files, each in a new folder."""

    def __init__(self, shared: Path, create_schema: Callable[[str], None], folder: Path) -> None:
        super().__init__(shared, create_schema)
        self._folder = folder

    @contextmanager
    def empty(self) -> Iterator[Database]:
        with self._new_file() as file:
            yield Database("sqlite", f"sqlite:///{file}", self.empty)  # an absolute path: four slashes in all

    @contextmanager
    def migrated(self) -> Iterator[Database]:
        with self._new_file() as file:
            shutil.copy(self._template(), file)
            yield Database("sqlite", f"sqlite:///{file}", self.migrated)

    @contextmanager
    def _new_file(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            yield Path(folder) / "numbers.db"

    def _template(self) -> Path:
        template = self._shared / "template.db"
        with exclusive(self._shared / "sqlite.lock"):
            if not template.exists():
                with self._new_file() as file:
                    self._create_schema(f"sqlite:///{file}")
                    shutil.move(file, template)
        return template


class ServerDatabases(Databases):
    """Makes databases on a server."""

    def __init__(self, shared: Path, create_schema: Callable[[str], None], server: Server) -> None:
        super().__init__(shared, create_schema)
        self.server = server

    def create(self) -> Database:
        """Make an empty database that lasts as long as the server."""
        name = new_name()
        self.server.create_database(name)
        return Database(self.server.kind, self.server.url(name), self.empty, self.server)

    @contextmanager
    def empty(self) -> Iterator[Database]:
        database = self.create()
        try:
            yield database
        finally:
            self.server.drop_database(database.name)

    @contextmanager
    def migrated(self) -> Iterator[Database]:
        self._ensure_template()
        name = new_name()
        self.server.clone_database(TEMPLATE, name)
        try:
            yield Database(self.server.kind, self.server.url(name), self.migrated, self.server)
        finally:
            self.server.drop_database(name)

    def _ensure_template(self) -> None:
        ready = self._shared / f"{self.server.kind}.template"
        with exclusive(ready.with_suffix(".lock")):
            if not ready.exists():
                self.server.drop_database(TEMPLATE)
                self.server.create_database(TEMPLATE)
                self._create_schema(self.server.url(TEMPLATE))
                ready.touch()


def new_name() -> str:
    return f"test_{os.getpid()}_{next(NUMBERS)}"


def shared_server(server_type: type[Server], shared: Path) -> Server:
    """Return the test run's one server of a type; whichever process first wants it starts it."""
    facts = shared / f"{server_type.kind}.json"
    with exclusive(facts.with_suffix(".lock")):
        if not facts.exists():
            server = server_type.create(shared)
            facts.touch(0o600)
            facts.write_text(server.facts)
            return server
    return server_type.attach(facts.read_text())


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Keep the other processes of the test run out."""
    with lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
