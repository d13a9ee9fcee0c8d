"""What the server is like: its version, and the settings on which a correct load depends."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text

from etl.db.dialects import sqlite_file
from etl.errors import ConfigError, EtlError, NotPermittedError

_MOUNTS = Path("/proc/self/mounts")
_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "ncpfs", "fuse.sshfs",
     "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone", "virtiofs"}
)  # fmt: skip
_SMALL_PACKET_BYTES = 4 << 20
"""A batch of rows that the driver sends at once stays below 1 MB, unless one row is larger than that."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that is not as it should be."""

    message: str
    advice: str = ""
    error: EtlError | None = None
    """Present when no run can succeed like that."""


def server_name(connection: Connection) -> str:
    """Return what the server is and its version, such as `postgresql 17.2`."""
    version = connection.dialect.server_version_info or ()
    name = "mariadb" if getattr(connection.dialect, "is_mariadb", False) else connection.dialect.name
    return f"{name} {'.'.join(map(str, version))}".rstrip()


def remarks(connection: Connection) -> Iterator[Remark]:
    """Yield what is not as it should be; the connection is one that may write, outside a transaction."""
    look = {"sqlite": _of_sqlite, "postgresql": _of_postgresql}.get(connection.dialect.name, _of_mysql)
    with connection.begin():
        yield from look(connection)


def _refusal(error: EtlError) -> Remark:
    return Remark(str(error), error=error)


def _of_postgresql(connection: Connection) -> Iterator[Remark]:
    if connection.scalar(text("SELECT pg_is_in_recovery()")):
        message = "the server is a standby, which cannot be written to: point database.url at the primary"
        yield _refusal(NotPermittedError(message, code="database_read_only"))
    elif connection.scalar(text("SELECT current_setting('transaction_read_only')")) == "on":
        message = "transactions are read-only for this user or database: reset default_transaction_read_only"
        yield _refusal(NotPermittedError(message, code="database_read_only"))
    encoding = connection.scalar(text("SELECT current_setting('server_encoding')"))
    if encoding == "SQL_ASCII":
        yield Remark(
            "the database's encoding is SQL_ASCII: it checks nothing, and may get what is not UTF-8 from others",
            "create a database with UTF8",
        )
    elif encoding != "UTF8":
        message = f"the database's encoding is {encoding}, which cannot store every comment: create one with UTF8"
        yield _refusal(ConfigError(message, code="database_encoding"))


def _of_mysql(connection: Connection) -> Iterator[Remark]:
    row = connection.execute(
        text(
            "SELECT @@SESSION.sql_mode AS mode, @@GLOBAL.sql_mode AS usual_mode, @@default_storage_engine AS engine, "
            "@@character_set_connection AS encoding, @@max_allowed_packet AS packet, @@read_only AS read_only"
        )
    ).one()
    if "STRICT_" not in row.mode:
        message = "strict mode cannot be switched on, and without it values that do not fit are clipped in silence"
        yield _refusal(ConfigError(f"{message}: allow sessions to set sql_mode", code="not_strict"))
    elif "STRICT_" not in row.usual_mode:
        yield Remark(
            "the server is not in strict mode; the job's own sessions are, those of others are not",
            "add STRICT_TRANS_TABLES to the server's sql_mode if others write there too",
        )
    if row.engine.lower() != "innodb":
        message = f"new tables would be of engine {row.engine}, without transactions: set default_storage_engine=InnoDB"
        yield _refusal(ConfigError(message, code="no_transactions"))
    if row.encoding != "utf8mb4":
        message = (
            f"the connection's character set is {row.encoding}, which loses characters: take charset out of the URL"
        )
        yield _refusal(ConfigError(message, code="database_encoding"))
    if row.packet < _SMALL_PACKET_BYTES:
        yield Remark(
            f"max_allowed_packet is {row.packet} bytes, and a record larger than that cannot be stored",
            "raise max_allowed_packet to 16M or more",
        )
    if str(row.read_only).upper() not in ("0", "OFF"):
        yield Remark("the server is set to read_only (a replica?)", "point database.url at the primary")


def _of_sqlite(connection: Connection) -> Iterator[Remark]:
    if kind := network_file_system(Path(sqlite_file(connection.engine.url) or "").absolute()):
        yield Remark(
            f"the file is on a network file system ({kind}), whose locks SQLite cannot rely on",
            "keep it on a local disk, or use PostgreSQL or MariaDB",
        )
    mode = connection.scalar(text("PRAGMA journal_mode"))
    if mode != "wal":
        yield Remark(
            f"the journal mode is {mode}: a run and readers of the file wait for each other",
            "close all programs that use it and run: sqlite3 FILE 'PRAGMA journal_mode=WAL'",
        )


def network_file_system(file: Path) -> str | None:
    """Return the type of the file system the file is on, if it is one of a network and the system tells."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    # fstab(5): device, mount point, type; blanks are written as \040. Of two mounts at one place the later one counts.
    mounts = [(fields[1].replace("\\040", " "), fields[2]) for fields in map(str.split, lines) if len(fields) > 2]
    real = file.resolve()
    above = [(len(point), index, kind) for index, (point, kind) in enumerate(mounts) if real.is_relative_to(point)]
    kind = max(above, default=(0, 0, ""))[2]
    return kind if kind in _NETWORK_FILE_SYSTEMS else None
