"""What a database's error means for the person who runs the job."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError

from etl.errors import ConfigError, EtlError, Interrupted, NotPermittedError, StorageError, UnavailableError

_Meaning = tuple[type[EtlError], str, str]

_UNREACHABLE: _Meaning = (
    UnavailableError,
    "database_unreachable",
    "the connection failed; check that the server runs and that database.url is right",
)
_LOGIN: _Meaning = (NotPermittedError, "database_login", "it refuses this user or password; check database.url")
_RIGHTS: _Meaning = (NotPermittedError, "database_rights", "this user lacks rights there; have them granted")
_NO_DATABASE: _Meaning = (
    ConfigError,
    "no_database",
    "the server has no such database; create it, or check database.url",
)
_STANDBY: _Meaning = (
    NotPermittedError,
    "database_read_only",
    "it is read-only (a standby?); point database.url at the primary",
)
_READ_ONLY_FILE: _Meaning = (
    NotPermittedError,
    "database_read_only",
    "it is read-only; give this user write access to the file and its folder",
)
_NO_FILE: _Meaning = (
    NotPermittedError,
    "database_unreadable",
    "the file cannot be opened or made; check that its folder exists and that this user may write there",
)
_LOCKED: _Meaning = (
    UnavailableError,
    "database_locked",
    "somebody else's lock did not become free; find out who holds it, and try again",
)
_CONFLICT: _Meaning = (UnavailableError, "database_conflict", "other transactions kept getting in the way; try again")
_OVERLOADED: _Meaning = (
    UnavailableError,
    "database_overloaded",
    "it is out of connections or memory; try again later",
)
_DISK_FULL: _Meaning = (StorageError, "disk_full", "the disk is full; make room")
_IO_ERROR: _Meaning = (StorageError, "io_error", "the disk reports an I/O error; check it, and how much room is left")
_DAMAGED: _Meaning = (StorageError, "database_damaged", "it reports damaged data; see its log, or restore a backup")
_NOT_A_DATABASE: _Meaning = (
    StorageError,
    "database_damaged",
    "the file is not an SQLite database; check database.url",
)
_EDITED: _Meaning = (
    StorageError,
    "edited_by_hand",
    "rows stand in the way that no run wrote: run `etl verify --repair`",
)
_TABLE_MISSING: _Meaning = (ConfigError, "schema_damaged", "a table or column is missing; run `etl db check`")
_PACKET: _Meaning = (
    StorageError,
    "packet_too_large",
    "a record is larger than the server's max_allowed_packet; raise that setting",
)

# SQLite's names of result codes, by their first word.
_SQLITE = {
    "BUSY": _LOCKED,
    "LOCKED": _LOCKED,
    "READONLY": _READ_ONLY_FILE,
    "PERM": _READ_ONLY_FILE,
    "CANTOPEN": _NO_FILE,
    "FULL": _DISK_FULL,
    "IOERR": _IO_ERROR,
    "CORRUPT": _DAMAGED,
    "NOTADB": _NOT_A_DATABASE,
    "CONSTRAINT": _EDITED,
}

# SQLSTATE classes and codes of PostgreSQL; the longest match counts.
_POSTGRESQL = {
    "08": _UNREACHABLE,
    "23": _EDITED,
    "25006": _STANDBY,
    "28": _LOGIN,
    "3D": _NO_DATABASE,
    "40": _CONFLICT,
    "42501": _RIGHTS,
    "42703": _TABLE_MISSING,
    "42P01": _TABLE_MISSING,
    "53": _OVERLOADED,
    "53100": _DISK_FULL,
    "55P03": _LOCKED,
    "57": _UNREACHABLE,
    "58": _IO_ERROR,
    "XX": _DAMAGED,
}

# Error numbers of MariaDB and MySQL.
_MYSQL = {
    **dict.fromkeys((1062, 1451, 1452), _EDITED),
    **dict.fromkeys((1045, 1251, 1698), _LOGIN),
    **dict.fromkeys((1044, 1142, 1143, 1227, 1370), _RIGHTS),
    **dict.fromkeys((1290, 1792, 1836), _STANDBY),
    **dict.fromkeys((1046, 1049), _NO_DATABASE),
    **dict.fromkeys((1054, 1146), _TABLE_MISSING),
    **dict.fromkeys((1020, 1213), _CONFLICT),
    **dict.fromkeys((1021, 1114), _DISK_FULL),
    **dict.fromkeys((1034, 1194, 1195, 1712, 1932), _DAMAGED),
    **dict.fromkeys((1026, 1028, 1030), _IO_ERROR),
    **dict.fromkeys((1053, 1077, 1079, 1927, 1969, 2002, 2003, 2005, 2006, 2013, 2014, 2055), _UNREACHABLE),
    1040: _OVERLOADED,
    1153: _PACKET,
    1205: _LOCKED,
}


@contextmanager
def database_failures(where: str = "database") -> Iterator[None]:
    """Turn any database error of the block into one that says what to do; the driver's text is not repeated.

    That text may quote rows, and with them phone numbers and comments. Where the error is but the consequence of a
    signal that arrived in the middle of a statement, the signal is raised again.
    """
    try:
        yield
    except EtlError:
        raise
    except Exception as error:
        # Rows that are copied past SQLAlchemy raise the driver's own errors.
        if not isinstance(error, SQLAlchemyError) and not _is_driver_error(error):
            raise
        if interruption := _interruption_behind(error):
            raise interruption from None
        raise explain(error, where) from error


def _interruption_behind(error: BaseException | None) -> BaseException | None:
    """Return the signal on whose way out an error arose, such as that a rollback found the connection in no state."""
    while error is not None and not isinstance(error, KeyboardInterrupt | Interrupted):
        error = error.__cause__ or error.__context__
    return error


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


def _look_up(cause: Any) -> _Meaning | None:
    module = type(cause).__module__.partition(".")[0]
    if module == "sqlite3":
        # Python leaves the name out where it raises by itself.
        name = getattr(cause, "sqlite_errorname", "") or ""
        return _SQLITE.get(name.removeprefix("SQLITE_").partition("_")[0])
    if module == "pymysql":
        number = cause.args[0] if cause.args and isinstance(cause.args[0], int) else 0
        # Where the driver itself gives up on the connection, there is no number: it was closed, or spoke gibberish.
        gave_up = type(cause).__name__ in ("InterfaceError", "InternalError") and not number
        return _MYSQL.get(number) or (_UNREACHABLE if gave_up else None)
    if module == "psycopg" or hasattr(cause, "sqlstate") or hasattr(cause, "pgcode"):
        return _look_up_postgresql(cause)
    return None


def _look_up_postgresql(cause: Any) -> _Meaning | None:
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
        return _NO_DATABASE
    return _UNREACHABLE
