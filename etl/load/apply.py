"""Apply the changes of one run to the live tables, moving old versions into history.

Everything happens in the caller's transaction, and nothing here reads back what it wrote: the source's lock proves that
the rows are as the changes say.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, bindparam, delete, insert, literal, select, tuple_, update

from etl.db.bulk import Row, bulk_insert, driver_value, upsert
from etl.db.tables import (
    UtcDateTime,
    redirect_numbers,
    redirect_numbers_history,
    virtual_numbers,
    virtual_numbers_history,
)
from etl.load.live import IDS_PER_STATEMENT, batches, listed
from etl.records import Candidate, Changes, NumberChange, NumberRecord, RedirectRecord, digest

_REDIRECTS_PER_STATEMENT = 1_000
_ROWS_PER_SLICE = 30_000
_ROWS_PER_FIRST_SLICE = 3_000
"""So that the database soon has something to do."""
_BYTES_PER_SLICE = 16_000_000


class Boundary(msgspec.Struct, frozen=True):
    """The one point in the history of a source at which all changes of a run happen."""

    source: str
    run_id: int
    time: datetime


def apply(connection: Connection, boundary: Boundary, changes: Changes) -> None:
    """Bring the live tables from the state the changes were computed from to the snapshot."""
    _Application(connection, boundary).apply(changes)


class _Application:
    def __init__(self, connection: Connection, boundary: Boundary) -> None:
        self._connection = connection
        self._boundary = boundary
        self._opened = (boundary.run_id, driver_value(connection, UtcDateTime(), boundary.time))

    def apply(self, changes: Changes) -> None:
        removed = [record.id for record in changes.removed]
        changed = [change for change in changes.changed if change.number_differs]
        # Children go before their parents and come after them.
        self._retire_redirects_of(removed)
        self._retire_redirects(_outdated_redirects(changes.changed))
        self._retire_numbers([*removed, *(change.after.id for change in changed)])
        self._delete_numbers(removed)
        if changed:
            rows = (self._number_row(change.after, change.fingerprint, change.digest) for change in changed)
            upsert(self._connection, virtual_numbers, rows)
        self._refresh_digests(changes)
        redirects = [self._redirect_row(parent, redirect) for parent, redirect in _fresh_redirects(changes.changed)]
        bulk_insert(self._connection, redirect_numbers, redirects)
        self._add(changes)

    def _add(self, changes: Changes) -> None:
        slices = self._rows_added(changes)
        coming: list[tuple[list[Row], list[Row]]] = []

        def prepare() -> None:
            # Whatever it raises has to end the load: the rows that failed will not come again.
            if not coming:
                coming.extend(islice(slices, 1))

        prepare()
        while coming:
            numbers, redirects = coming.pop()
            bulk_insert(self._connection, virtual_numbers, numbers)
            # Looking up each redirect's number takes a server longer than all the rest: time to go on.
            bulk_insert(self._connection, redirect_numbers, redirects, prepare)
            prepare()

    def _rows_added(self, changes: Changes) -> Iterator[tuple[list[Row], list[Row]]]:
        """Yield rows of numbers and of their redirects: some at a time, for all at once may not fit into memory."""
        for batch in _slices(changes.added):
            numbers: list[Row] = []
            redirects: list[Row] = []
            for candidate in batch:
                record = candidate.record()
                numbers.append(self._number_row(record, candidate.fingerprint, candidate.digest or digest(record)))
                redirects += [self._redirect_row(record.id, redirect) for redirect in record.redirects]
            changes.let_go()
            yield numbers, redirects
            # Whoever asks for more has done with these, and is now at leisure to free them.
            numbers.clear()
            redirects.clear()

    def _retire_redirects_of(self, numbers: Sequence[int]) -> None:
        parent = redirect_numbers.c.virtual_number_id
        for batch in batches(numbers, IDS_PER_STATEMENT):
            self._move_to_history(redirect_numbers, redirect_numbers_history, parent.in_(listed(batch)))
            self._delete(redirect_numbers, parent.in_(listed(batch)))

    def _retire_redirects(self, keys: Sequence[tuple[int, int]]) -> None:
        columns = redirect_numbers.c
        for batch in batches(keys, _REDIRECTS_PER_STATEMENT):
            # The second condition says nothing new, but lets every database walk the primary key.
            chosen = tuple_(columns.virtual_number_id, columns.id).in_(listed(batch)) & columns.virtual_number_id.in_(
                listed(sorted({parent for parent, _ in batch}))
            )
            self._move_to_history(redirect_numbers, redirect_numbers_history, chosen)
            self._delete(redirect_numbers, chosen)

    def _retire_numbers(self, numbers: Sequence[int]) -> None:
        for batch in batches(numbers, IDS_PER_STATEMENT):
            self._move_to_history(virtual_numbers, virtual_numbers_history, virtual_numbers.c.id.in_(listed(batch)))

    def _delete_numbers(self, numbers: Sequence[int]) -> None:
        for batch in batches(numbers, IDS_PER_STATEMENT):
            self._delete(virtual_numbers, virtual_numbers.c.id.in_(listed(batch)))

    def _move_to_history(self, live: Table, history: Table, chosen: ColumnElement[bool]) -> None:
        kept = [column for column in live.columns if column.name in history.columns]
        closed = [
            literal(self._boundary.run_id).label("valid_to_run"),
            literal(self._boundary.time, UtcDateTime()).label("valid_to"),
        ]
        query = select(*kept, *closed).where(live.c.source == self._boundary.source, chosen)
        names = [*(column.name for column in kept), "valid_to_run", "valid_to"]
        self._connection.execute(insert(history).from_select(names, query))

    def _delete(self, table: Table, chosen: ColumnElement[bool]) -> None:
        self._connection.execute(delete(table).where(table.c.source == self._boundary.source, chosen))

    def _refresh_digests(self, changes: Changes) -> None:
        columns = virtual_numbers.c
        fresh = [
            *(
                (change.after.id, change.fingerprint, change.digest)
                for change in changes.changed
                if not change.number_differs
            ),
            *changes.refreshed,
        ]
        rows = [{"this": identity, "mark": mark, "values": values} for identity, mark, values in fresh]
        if rows:
            statement = update(virtual_numbers).where(
                columns.source == self._boundary.source, columns.id == bindparam("this")
            )
            self._connection.execute(
                statement.values(_fingerprint=bindparam("mark"), _digest=bindparam("values")), rows
            )

    def _number_row(self, record: NumberRecord, mark: bytes, values: bytes) -> Row:
        # In the order of the table's columns.
        return (
            self._boundary.source,
            record.id,
            record.number,
            record.comment,
            record.type,
            record.purpose,
            record.scenario_id,
            record.group_scenario_id,
            record.group_id,
            record.is_scenario_active,
            record.is_group_scenario_active,
            record.state,
            record.reason,
            record.employee_id,
            record.dgn_number,
            record.redirect_number,
            record.region_name,
            record.sip_uri,
            record.nc_type,
            record.app_id,
            record.extra or None,
            *self._opened,
            mark,
            values,
        )

    def _redirect_row(self, number: int, redirect: RedirectRecord) -> Row:
        return (self._boundary.source, number, redirect.id, redirect.number, redirect.extra or None, *self._opened)


def _slices(candidates: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    """Cut into lists whose rows, and the texts they are made of, fit into memory however uneven they are."""
    part: list[Candidate] = []
    rows = max(_ROWS_PER_SLICE - _ROWS_PER_FIRST_SLICE, 0)
    size = 0
    for candidate in candidates:
        part.append(candidate)
        rows += 1 + candidate.redirect_count
        size += len(candidate.text)
        if rows >= _ROWS_PER_SLICE or size >= _BYTES_PER_SLICE:
            yield part
            part, rows, size = [], 0, 0
    if part:
        yield part


def _fresh_redirects(changed: Sequence[NumberChange]) -> Iterator[tuple[int, RedirectRecord]]:
    for change in changed:
        for redirect in change.redirects_added:
            yield change.after.id, redirect
        for _, redirect in change.redirects_changed:
            yield change.after.id, redirect


def _outdated_redirects(changed: Sequence[NumberChange]) -> list[tuple[int, int]]:
    keys = []
    for change in changed:
        keys += [(change.after.id, redirect.id) for redirect in change.redirects_removed]
        keys += [(change.after.id, before.id) for before, _ in change.redirects_changed]
    return keys
