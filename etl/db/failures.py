"""What a database's error means for the person who runs the job."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError

from etl.errors import ConfigError, EtlError, NotPermittedError, StorageError, UnavailableError

# SQLite's names of result codes, by their first word.
_SQLITE = {
    "BUSY": (UnavailableError, "database_locked", "another program has locked it; close that program, or try again"),
    "LOCKED": (UnavailableError, "database_locked", "another program has locked it; close that program, or try again"),
    "READONLY": (NotPermittedError, "database_read_only", "it is read-only; give this user write access to the file and its folder"),
    "PERM": (NotPermittedError, "database_read_only", "access is denied; give this user write access to the file and its folder"),
    "CANTOPEN": (NotPermittedError, "database_unreadable", "the file cannot be opened or made; check that its folder exists and this user may write there"),
    "FULL": (StorageError, "disk_full", "the disk is full; make room"),
    "IOERR": (StorageError, "io_error", "the disk reports an I/O error; check it, and how much room is left"),
    "CORRUPT": (StorageError, "database_damaged", "the file is damaged; restore it from a backup, or remove it and sync again"),
    "NOTADB": (StorageError, "database_damaged", "the file is not an SQLite database; check database.url"),
}  # fmt: skip

# SQLSTATE classes and codes of PostgreSQL, the longest match first.
_POSTGRESQL = {
    "28": (NotPermittedError, "database_login", "it refuses this user or password; check database.url"),
    "3D": (ConfigError, "no_database", "the server has no such database; create it, or check database.url"),
    "42501": (NotPermittedError, "database_rights", "this user lacks rights there; have them granted"),
    "25006": (NotPermittedError, "database_read_only", "it is read-only (a standby?); point database.url at the primary"),
    "42P01": (ConfigError, "schema_damaged", "a table is missing; run `etl db check`"),
    "42703": (ConfigError, "schema_damaged", "a column is missing; run `etl db check`"),
    "53100": (StorageError, "disk_full", "its disk is full; make room"),
    "53": (UnavailableError, "database_overloaded", "it is out of connections or memory; try again later"),
    "58": (StorageError, "io_error", "it reports an I/O error; see the server's log"),
    "XX": (StorageError, "database_damaged", "it reports damaged data; see the server's log"),
    "55P03": (UnavailableError, "database_locked", "a lock on the tables did not become free; see who holds it, and try again"),
    "40": (UnavailableError, "database_conflict", "other transactions kept getting in the way; try again"),
    "57": (UnavailableError, "database_unreachable", "the server is shutting down, starting, or ended this session; try again later"),
    "08": (UnavailableError, "database_unreachable", "the connection failed; check that it runs and database.url is right"),
}  # fmt: skip

_UNREACHABLE = (
    UnavailableError,
    "database_unreachable",
    "the connection failed; check that it runs and database.url is right",
)
_LOGIN = _POSTGRESQL["28"]
_RIGHTS = _POSTGRESQL["42501"]
_LOCKED = _POSTGRESQL["55P03"]
_CONFLICT = _POSTGRESQL["40"]
_DISK_FULL = _POSTGRESQL["53100"]
_MISSING = _POSTGRESQL["42P01"]
_DAMAGED = _POSTGRESQL["XX"]
_PACKET = (
    ConfigError,
    "packet_too_large",
    "a record is larger than the server's max_allowed_packet; raise that setting",
)

# Error numbers of MariaDB and MySQL.
_MYSQL = {
    **dict.fromkeys((1045, 1698, 1251), _LOGIN),
    **dict.fromkeys((1044, 1142, 1143, 1227, 1370), _RIGHTS),
    **dict.fromkeys((1290, 1792, 1836), _POSTGRESQL["25006"]),
    **dict.fromkeys((1046, 1049), _POSTGRESQL["3D"]),
    **dict.fromkeys((1054, 1146), _MISSING),
    1205: _LOCKED,
    **dict.fromkeys((1020, 1213), _CONFLICT),
    **dict.fromkeys((1021, 1114), _DISK_FULL),
    **dict.fromkeys((1034, 1194, 1195, 1712, 1932), _DAMAGED),
    **dict.fromkeys((1030, 1026, 1028), _POSTGRESQL["58"]),
    1153: _PACKET,
    1040: _POSTGRESQL["53"],
    **dict.fromkeys((1053, 1077, 1079, 1927, 1969, 2002, 2003, 2005, 2006, 2013, 2014, 2055), _UNREACHABLE),
}  # fmt: skip


@contextmanager
def database_failures(where: str = "database") -> Iterator[None]:
    """Turn any database error of the block into one that says what to do; the driver's text is not repeated.

    That text may quote rows, and with them phone numbers and comments.
    """
    try:
        yield
    except EtlError:
        raise
    except SQLAlchemyError as error:
        raise explain(error, where) from error
    except Exception as error:
        # Rows that are copied past SQLAlchemy raise the driver's own errors.
        if not _is_driver_error(error):
            raise
        raise explain(error, where) from error


def explain(error: Exception, where: str = "database") -> EtlError:
    """Classify an error of SQLAlchemy's or of a driver's."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    kind, code, what = _look_up(cause) or (None, "", "")
    if kind is not None:
        return kind(f"{where}: {what}", code=code)
    if isinstance(error, DisconnectionError) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return UnavailableError(f"{where}: {_UNREACHABLE[2]}", code="database_unreachable")
    detail = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None) or ""
    return EtlError(
        f"{where}: unexpected {type(cause).__name__} {detail}".rstrip() + "; please report it", code="database_error"
    )


def may_succeed_again(error: EtlError) -> bool:
    """Whether the same transaction, begun anew, may well succeed: a deadlock, or a conflict with another one."""
    return error.code == "database_conflict"


def _is_driver_error(error: Exception) -> bool:
    return any(base.__name__ == "Error" and base.__module__.partition(".")[0] in ("psycopg", "pymysql", "sqlite3")
               for base in type(error).__mro__)  # fmt: skip


def _look_up(cause: Any) -> tuple[type[EtlError], str, str] | None:
    if isinstance(cause, sqlite3.Error):
        # Python leaves the name out where it raises by itself.
        name = getattr(cause, "sqlite_errorname", "") or ""
        return _SQLITE.get(name.removeprefix("SQLITE_").partition("_")[0])
    module = type(cause).__module__.partition(".")[0]
    if module == "pymysql":
        number = cause.args[0] if cause.args and isinstance(cause.args[0], int) else 0
        return _MYSQL.get(number) or (_UNREACHABLE if type(cause).__name__ == "InterfaceError" else None)
    if module == "psycopg" or hasattr(cause, "sqlstate") or hasattr(cause, "pgcode"):
        return _look_up_postgresql(cause)
    return None


def _look_up_postgresql(cause: Any) -> tuple[type[EtlError], str, str] | None:
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""
    for prefix in sorted(_POSTGRESQL, key=len, reverse=True):
        if state.startswith(prefix):
            return _POSTGRESQL[prefix]
    if state or type(cause).__name__ not in ("OperationalError", "InterfaceError", "ConnectionTimeout"):
        return None
    # A connection that was never made has no SQLSTATE, only the server's sentence.
    sentence = str(cause)
    if "authentication failed" in sentence or "pg_hba.conf" in sentence or "no password supplied" in sentence:
        return _LOGIN
    if "does not exist" in sentence and "database" in sentence:
        return _POSTGRESQL["3D"]
    return _UNREACHABLE
