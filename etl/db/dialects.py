"""What differs between the databases: drivers, session settings, and how rows are numbered.

Together with its neighbours `bulk`, `locks` and `failures` the only place that asks which database it is.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import (
    Connection,
    Table,
    delete,
    event,
    func,
    insert,
    select,
)
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import IntegrityError

from etl.errors import ConfigError

DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
"""The driver used for a URL that names none."""

_EXTRAS = {"postgresql": "postgresql", "mysql": "mysql", "mariadb": "mysql"}
_LOCK_WAIT_SECONDS = 60
"""How long a statement waits for a lock of somebody else before the run fails."""

_LOCK_SPELL_MILLISECONDS = 200


def settle_url(url: URL) -> URL:
    """Name the driver where the URL leaves it open; raises ConfigError for a database that is not supported."""
    backend = url.get_backend_name()
    if backend not in DRIVERS:
        raise ConfigError(
            f"database.url: {backend!r} is not supported; use sqlite, postgresql, mysql or mariadb", code="bad_url"
        )
    if "+" not in url.drivername:
        url = url.set(drivername=f"{backend}+{DRIVERS[backend]}")
    if backend in ("mysql", "mariadb") and "charset" not in url.query:
        url = url.update_query_dict({"charset": "utf8mb4"})
    return url


def missing_driver(url: URL, module: str | None) -> ConfigError:
    """Say which extra brings the driver that could not be imported."""
    extra = _EXTRAS.get(url.get_backend_name())
    way_out = f"pip install 'virtual-numbers-etl[{extra}]'" if extra else "install it"
    return ConfigError(f"the database driver {module or url.drivername} is not installed: {way_out}", code="no_driver")


def connect_arguments(url: URL) -> dict[str, Any]:
    """Return driver arguments that bound every wait, save those that the URL itself gives."""
    return {name: value for name, value in _bounds(url.get_driver_name()).items() if name not in url.query}


def _bounds(driver: str) -> dict[str, Any]:
    if driver == "pysqlite":
        return {"timeout": _LOCK_WAIT_SECONDS}
    if driver == "psycopg":
        return {
            "connect_timeout": 10,
            "application_name": "virtual-numbers-etl",
            # Whatever PGCLIENTENCODING or the server would have it be: what is not UTF-8 cannot hold every comment.
            "client_encoding": "UTF8",
            # A peer that vanished without a word is noticed within a minute or so.
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 60_000,
        }
    if driver == "pymysql":
        return {"connect_timeout": 10, "read_timeout": 300, "write_timeout": 300}
    return {}


def prepare_sessions(engine: Engine, *, migrating: bool, read_only: bool) -> None:
    """Arrange the settings that every new connection of this engine needs."""
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, migrating=migrating, read_only=read_only)
    elif engine.dialect.name == "postgresql":
        settings = [f"SET lock_timeout = '{_LOCK_WAIT_SECONDS}s'"]
        if read_only:
            settings.append("SET default_transaction_read_only = on")
        if engine.dialect.driver == "psycopg":
            _connect_patiently(engine)
        _on_connect(engine, settings)
    else:
        settings = [
            # Without strict mode, values that do not fit would be clipped in silence.
            "SET SESSION sql_mode = CONCAT_WS(',', @@SESSION.sql_mode, 'STRICT_ALL_TABLES')",
            f"SET SESSION innodb_lock_wait_timeout = {_LOCK_WAIT_SECONDS}",
            f"SET SESSION lock_wait_timeout = {_LOCK_WAIT_SECONDS}",
        ]
        if read_only:
            settings.append("SET SESSION TRANSACTION READ ONLY")
        _on_connect(engine, settings)


def _on_connect(engine: Engine, statements: Sequence[str]) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()
        # Outside a transaction, so that a first rollback does not undo it.
        connection.commit()


def _connect_patiently(engine: Engine) -> None:
    @event.listens_for(engine, "do_connect")
    def connect(_: object, __: object, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
        from etl.db.patience import SILENCE_SECONDS, PatientConnection  # noqa: PLC0415 - needs the driver

        # The name that PyMySQL has for it: in a URL, `?read_timeout=60` means the same everywhere.
        limit = float(options.pop("read_timeout", SILENCE_SECONDS))
        connection = PatientConnection.connect(*arguments, **options)
        connection.silence_seconds = limit
        return connection


def _prepare_sqlite(engine: Engine, *, migrating: bool, read_only: bool) -> None:
    import sqlite3  # noqa: PLC0415 - other databases do without

    path = sqlite_file(engine.url)

    @event.listens_for(engine, "do_connect")
    def create_private(*_: object) -> None:
        if path and not read_only and not Path(path).exists():
            # SQLite would make it readable by everybody; its -wal and -shm follow the file's mode. Where it cannot be
            # made, SQLite cannot either, and its error is one that is understood.
            with suppress(OSError):
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        # The driver's own transactions leave DDL outside; BEGIN is sent below instead.
        connection.isolation_level = None
        if read_only:
            connection.execute("PRAGMA query_only = ON")
        if migrating:
            # Readers go on reading the last commit while a run writes the next. The file remembers the mode.
            _execute_patiently(connection, "PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        # A table that is rebuilt by a migration would take its children along.
        connection.execute(f"PRAGMA foreign_keys = {'OFF' if migrating else 'ON'}")

    @event.listens_for(engine, "close")
    def roll_back(connection: Any, _: object) -> None:
        # A statement that a signal cut short keeps a closed connection alive, and with it the lock of its transaction.
        with suppress(sqlite3.Error):
            connection.rollback()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        driver_connection: Any = connection.connection.driver_connection
        if read_only:
            driver_connection.execute("BEGIN")
        else:
            # A transaction begun as a reader's would find out half-way that somebody else writes.
            _execute_patiently(driver_connection, "BEGIN IMMEDIATE")


def _execute_patiently(connection: Any, statement: str) -> None:
    """Execute a statement for which SQLite may have to wait until another connection is done."""
    import sqlite3  # noqa: PLC0415 - other databases do without

    # Python sees no signal while SQLite waits, so it waits in short spells; for a change of the journal's mode SQLite
    # does not wait at all.
    end = time.monotonic() + _LOCK_WAIT_SECONDS
    connection.execute(f"PRAGMA busy_timeout = {_LOCK_SPELL_MILLISECONDS}")
    try:
        while True:
            try:
                connection.execute(statement)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
                time.sleep(0.01)
            else:
                return
    finally:
        connection.execute(f"PRAGMA busy_timeout = {_LOCK_WAIT_SECONDS * 1000}")


def sqlite_file(url: URL) -> str | None:
    """Return the path of an SQLite URL's file; None for another database and for one in memory."""
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name == ":memory:":
        return None
    if name.startswith("file:"):
        return unquote(urlsplit(name).path) or None
    return name


def insert_numbered(connection: Connection, table: Table, row: dict[str, Any], above: int) -> int:
    """Insert a row whose key the database numbers by itself; returns the number, which is greater than `above`."""
    key = next(iter(table.primary_key))
    number = _insert_one(connection, table, row)
    if number > above:
        return number
    connection.execute(delete(table).where(key == number))
    if connection.dialect.name == "postgresql":
        # Taken one by one: to set a sequence takes a right that inserting does not.
        taken = func.nextval(func.pg_get_serial_sequence(table.name, key.name))
        numbers = func.generate_series(1, above - number).table_valued("number")
        connection.execute(select(func.max(taken)).select_from(numbers))
    else:
        # A number that was given once, even to a row that is gone, is not given again, nor any below it.
        with suppress(IntegrityError), connection.begin_nested():
            connection.execute(insert(table), row | {key.name: above})
            connection.execute(delete(table).where(key == above))
    return _insert_one(connection, table, row)


def _insert_one(connection: Connection, table: Table, row: dict[str, Any]) -> int:
    key: Any = connection.execute(insert(table), row).inserted_primary_key
    return int(key[0])
