"""Somebody who queries the live tables all the while, and remembers what was seen."""

import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from tests.databases import Database
from tests.faults.world import SCALARS

State = frozenset[tuple[Any, ...]]

_ORPHANS = (
    "SELECT count(*) FROM redirect_numbers AS child LEFT JOIN virtual_numbers AS parent "
    "ON parent.source = child.source AND parent.id = child.virtual_number_id WHERE parent.id IS NULL"
)
_NUMBERS = f"SELECT {', '.join(SCALARS)} FROM virtual_numbers WHERE source = 'main'"
_REDIRECTS = "SELECT virtual_number_id, id, number FROM redirect_numbers WHERE source = 'main'"
_BEGIN = {
    "sqlite": "BEGIN",
    "postgresql": "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "mariadb": "START TRANSACTION WITH CONSISTENT SNAPSHOT",
}


class Reader:
    """Reads in one REPEATABLE READ transaction, and in single statements, until it is told to stop."""

    def __init__(self, database: Database) -> None:
        self.seen: set[State] = set()
        self.orphans = 0
        self.reads = 0
        self._database = database
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read_on, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _read_on(self) -> None:
        while not self._stop.is_set():
            # The server may be down, or going down.
            with suppress(DBAPIError), self._database.connect() as connection:
                while not self._stop.wait(0.005):
                    self._read(connection)
            self._stop.wait(0.05)

    def _read(self, connection: Connection) -> None:
        connection.exec_driver_sql(_BEGIN[self._database.kind])
        numbers = connection.exec_driver_sql(_NUMBERS).all()
        children: dict[int, set[tuple[int, str]]] = {}
        for parent, identity, number in connection.exec_driver_sql(_REDIRECTS):
            children.setdefault(parent, set()).add((identity, number))
        state = frozenset((*row, frozenset(children.pop(row[0], ()))) for row in numbers)
        connection.rollback()
        self.orphans += len(children) + int(connection.exec_driver_sql(_ORPHANS).scalar_one())
        connection.rollback()
        self.seen.add(state)
        self.reads += 1
