"""Who holds one of the locks of `etl.db.locks`: looked up without taking it, so that no run is ever turned away."""

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from etl.db.locks import POSTGRESQL_KEY, lock_file, mysql_key

_KERNEL_LOCKS = Path("/proc/locks")

# pg_locks: a lock of one 64-bit key shows its halves, and 1 in objsubid.
_POSTGRESQL_HOLDER = f"""
SELECT held.pid, session.usename, host(session.client_addr) AS client
FROM pg_locks AS held
CROSS JOIN (SELECT {POSTGRESQL_KEY} AS number) AS wanted
LEFT JOIN pg_stat_activity AS session ON session.pid = held.pid
WHERE held.locktype = 'advisory' AND held.objsubid = 1 AND held.granted
  AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND CAST(held.classid AS bigint) = (wanted.number >> 32) & 4294967295
  AND CAST(held.objid AS bigint) = wanted.number & 4294967295
"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True)
class Holder:
    """What is known of the process that holds a lock."""

    description: str
    """Such as `process 4711` or `session 12 of user etl from 10.0.0.7`."""


def is_held(connection: Connection, name: str) -> bool | None:
    """Whether anybody holds the lock; None where the system does not tell."""
    try:
        return find_holder(connection, name) is not None
    except LookupError:
        return None


def find_holder(connection: Connection, name: str) -> Holder | None:
    """Return who holds the lock, None if nobody does. Raises LookupError where the system does not tell."""
    look = {"sqlite": _on_sqlite, "postgresql": _on_postgresql}.get(connection.dialect.name, _on_mysql)
    return look(connection, name)


def _on_sqlite(connection: Connection, name: str) -> Holder | None:
    file = Path(lock_file(connection, name))
    if not file.exists():
        return None
    status = file.stat()
    # proc_locks(5): "1: FLOCK ADVISORY WRITE 4711 fd:01:9182 0 EOF"; the place is the device's numbers and the inode.
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = _KERNEL_LOCKS.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise LookupError(name) from error
    for line in lines:
        fields = line.split()
        if "->" not in fields and len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == place:
            return Holder(f"process {fields[4]}")
    return None


def _on_postgresql(connection: Connection, name: str) -> Holder | None:
    row = connection.execute(text(_POSTGRESQL_HOLDER), {"key": name}).first()
    return Holder(_session(row.pid, row.usename, row.client)) if row else None


def _on_mysql(connection: Connection, name: str) -> Holder | None:
    query = text("SELECT IS_USED_LOCK(:key)")
    session = connection.execute(query, {"key": mysql_key(connection, name)}).scalar()
    if session is None:
        return None
    query = text("SELECT user, host FROM information_schema.processlist WHERE id = :id")
    try:
        row = connection.execute(query, {"id": session}).first()
    except DBAPIError:
        row = None  # without the right to see others' sessions, the number alone is known
    return Holder(_session(session, row.user if row else None, row.host if row else None))


def _session(number: int, user: str | None, client: str | None) -> str:
    return f"session {number}{f' of user {user}' if user else ''}{f' from {client}' if client else ''}"
