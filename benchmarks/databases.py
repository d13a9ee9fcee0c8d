"""The three databases as the benchmark sees them: made anew, brought to rest, and asked what a run cost them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pymysql

from benchmarks import servers

# Tables in which a candidate notes that it ran: not rows of data, so not counted as rows rewritten.
BOOKKEEPING = ("_dlt_", "sync_runs", "alembic_version")


@dataclass(frozen=True)
class Counters:
    """What a database server has done since it started, or since the database was made."""

    cpu: float = 0.0
    wal_bytes: int | None = None
    # By the table's identity and name: a table that was dropped and made again begins at nothing.
    rows: dict[tuple[int, str], int] | None = None

    def since(self, earlier: Counters) -> dict[str, Any]:
        """Return what happened in between."""
        rows: dict[str, int] | None = None
        if self.rows is not None:
            rows = Counter()
            for table, count in self.rows.items():
                rows[table[1]] += count - (earlier.rows or {}).get(table, 0)
            rows = {table: count for table, count in sorted(rows.items()) if count}
        data = None if rows is None else sum(n for t, n in rows.items() if not t.startswith(BOOKKEEPING))
        wal = None if self.wal_bytes is None else self.wal_bytes - (earlier.wal_bytes or 0)
        return {"cpu_server": self.cpu - earlier.cpu, "wal_bytes": wal, "rows_by_table": rows, "rows_written": data}


class Database(ABC):
    """One kind of database; `url` names the one that the next candidate gets."""

    name: str
    url: str

    @abstractmethod
    def recreate(self, directory: Path) -> None:
        """Make the candidate's database anew and empty; a file goes into the directory."""

    @abstractmethod
    def settle(self) -> None:
        """Finish what earlier runs left to do in the background, so that no run pays for another's."""

    @abstractmethod
    def counters(self) -> Counters:
        """Read the server's counters."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Return the server's version and the settings that matter."""


class Sqlite(Database):
    """A file beside the candidate; it has no server, so its work is the candidate's own."""

    name = "sqlite"

    def recreate(self, directory: Path) -> None:
        """Choose a file that does not exist yet; whoever opens it first creates it."""
        self.url = f"sqlite:///{directory / 'numbers.db'}"

    def settle(self) -> None:
        """Write out what the system still holds for earlier runs."""
        os.sync()

    def counters(self) -> Counters:
        """Return nothing: SQLite counts nothing."""
        return Counters()

    def description(self) -> dict[str, Any]:
        """Return the library's version; journal mode and `synchronous` are each candidate's own choice."""
        return {"version": sqlite3.sqlite_version, "settings": {}}


class Postgresql(Database):
    """A private PostgreSQL server."""

    name = "postgresql"

    def __init__(self, server: servers.Server) -> None:
        self._server = server
        # Trusted on loopback; the password is there for peers that insist on one.
        self.url = f"postgresql://postgres:postgres@127.0.0.1:{server.port}/benchmark"

    def _connect(self, database: str = "benchmark") -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.url.rpartition("/")[0] + f"/{database}", autocommit=True)

    def recreate(self, directory: Path) -> None:  # noqa: ARG002 - the server keeps its own files
        """Drop and create the database."""
        with self._connect("postgres") as connection:
            connection.execute("DROP DATABASE IF EXISTS benchmark WITH (FORCE)")
            connection.execute("CREATE DATABASE benchmark")

    def settle(self) -> None:
        """Do what autovacuum and the checkpointer do in the quarter of an hour between two real runs."""
        with self._connect() as connection:
            connection.execute("VACUUM (ANALYZE)")
            # Again, for what the first wrote itself: the next reader of a row that nobody has read since it was written
            # marks it as committed, and under checksums that mark goes into the log as a whole page.
            connection.execute("VACUUM")
            connection.execute("CHECKPOINT")
        os.sync()

    def counters(self) -> Counters:
        """Read CPU first, as reading the rest costs some; rows after every other session has reported its own."""
        cpu = servers.cpu_seconds(self._server.pid)
        with self._connect() as connection:
            for _ in range(100):
                row = connection.execute(
                    "SELECT count(*), pg_sleep(0.05) FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                ).fetchone()
                if row and not row[0]:
                    break
            lsn = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
            rows = connection.execute(
                "SELECT relid, relname, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables"
            ).fetchall()
        return Counters(cpu, int(lsn[0]) if lsn else None, {(table, name): count for table, name, count in rows})

    def description(self) -> dict[str, Any]:
        """Return the version, what differs from the stock settings, and the stock values that matter most."""
        stock = ("fsync", "synchronous_commit", "data_checksums", "shared_buffers", "wal_level")
        with self._connect("postgres") as connection:
            row = connection.execute("SHOW server_version").fetchone()
            settings = {name: str((connection.execute(f"SHOW {name}").fetchone() or [""])[0]) for name in stock}
        return {"version": row[0] if row else "", "settings": {**self._server.settings, **settings}}


class Mariadb(Database):
    """A private MariaDB server."""

    name = "mariadb"

    def __init__(self, server: servers.Server) -> None:
        self._server = server
        self.url = f"mysql://root@127.0.0.1:{server.port}/benchmark?charset=utf8mb4"

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[Any]:
        connection = pymysql.connect(host="127.0.0.1", port=self._server.port, user="root", autocommit=True)
        with contextlib.closing(connection), connection.cursor() as cursor:
            yield cursor

    def recreate(self, directory: Path) -> None:  # noqa: ARG002 - the server keeps its own files
        """Drop and create the database."""
        with self._cursor() as cursor:
            cursor.execute("DROP DATABASE IF EXISTS benchmark")
            cursor.execute("CREATE DATABASE benchmark CHARACTER SET utf8mb4")

    def settle(self) -> None:
        """Write out what the system still holds for earlier runs."""
        os.sync()

    def counters(self) -> Counters:
        """Read CPU, redo log and rows; MariaDB counts rows for all tables together, bookkeeping included."""
        cpu = servers.cpu_seconds(self._server.pid)
        with self._cursor() as cursor:
            cursor.execute("SHOW GLOBAL STATUS")
            status = dict(cursor.fetchall())
        rows = sum(int(status[name]) for name in ("Handler_write", "Handler_update", "Handler_delete"))
        return Counters(cpu, int(status["Innodb_lsn_current"]), {(0, "(all tables)"): rows})

    def description(self) -> dict[str, Any]:
        """Return the version, what differs from the stock settings, and the stock values that matter most."""
        stock = ("innodb_flush_log_at_trx_commit", "innodb_buffer_pool_size", "log_bin", "sync_binlog")
        with self._cursor() as cursor:
            cursor.execute("SHOW GLOBAL VARIABLES")
            variables = dict(cursor.fetchall())
        settings = {name: variables[name] for name in stock}
        return {"version": variables["version"], "settings": {**self._server.settings, **settings}}


@contextlib.contextmanager
def opened(name: str) -> Iterator[Database]:
    """Start what a database needs and yield it."""
    if name == "postgresql":
        with servers.postgresql() as server:
            yield Postgresql(server)
    elif name == "mariadb":
        with servers.mariadb() as server:
            yield Mariadb(server)
    else:
        yield Sqlite()
