"""Locks that all processes and machines sharing a database respect, and that die with their holder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from etl.db.dialects import sqlite_file
from etl.errors import BusyError


@contextmanager
def exclusive_lock(connection: Connection, name: str) -> Iterator[None]:
    """Hold the database's lock `name` while the block runs.

    On servers it belongs to the connection's session: where that ends, for whatever reason, so does the lock.
    On SQLite it belongs to the process, through a file beside the database.
    Raises BusyError at once when somebody else holds it.
    """
    if connection.dialect.name == "sqlite":
        with _file_lock(lock_file(connection, name), name):
            yield
        return
    take, release, key = _session_lock(connection, name)
    with connection.begin():
        taken = connection.execute(text(take), {"key": key}).scalar()
    if not taken:
        raise _busy(name)
    try:
        yield
    finally:
        # A connection that is lost or in a failed state has given its locks back, or will when it is closed.
        with suppress(DBAPIError):
            connection.rollback()
            if not connection.invalidated:  # or else a new session would be opened to give back what it does not hold
                with connection.begin():
                    connection.execute(text(release), {"key": key})


def _session_lock(connection: Connection, name: str) -> tuple[str, str, str]:
    if connection.dialect.name == "postgresql":
        return f"SELECT pg_try_advisory_lock({POSTGRESQL_KEY})", f"SELECT pg_advisory_unlock({POSTGRESQL_KEY})", name
    return "SELECT GET_LOCK(:key, 0)", "SELECT RELEASE_LOCK(:key)", mysql_key(connection, name)


POSTGRESQL_KEY = "hashtextextended(concat('virtual-numbers-etl ', current_schema(), ' ', CAST(:key AS text)), 0)"
"""Advisory locks belong to a database; the tables to a schema in it. The parameter is the lock's name."""


def mysql_key(connection: Connection, name: str) -> str:
    """Return the lock's name on MariaDB and MySQL, where it belongs to the whole server and ends at 64 characters."""
    unique = sha256(f"{connection.engine.url.database} {name}".encode()).hexdigest()[:32]
    return f"virtual-numbers-etl {unique}"


def lock_file(connection: Connection, name: str) -> str:
    """Return the path of the file that is the lock on SQLite."""
    return f"{sqlite_file(connection.engine.url)}-{name}.lock"


@contextmanager
def _file_lock(path: str, name: str) -> Iterator[None]:
    # The file stays: were it removed, two processes could hold locks on two files of the same name.
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(name) from None
        yield
    finally:
        os.close(descriptor)


def _busy(name: str) -> BusyError:
    what = "an upgrade of the schema" if name == MIGRATION_LOCK else f"another run of source {name.partition('.')[2]}"
    return BusyError(f"{what} is in progress; nothing to do: it is bringing the tables up to date")


MIGRATION_LOCK = "migration"


def source_lock(source: str) -> str:
    """Name of the lock that makes runs of one source exclude each other."""
    return f"source.{source}"
