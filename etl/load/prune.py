"""Delete what is old, a few rows at a time, and never what anything that stays refers to.

No lock is needed for that: a run under way refers to itself and to what is live, and none of that is old.
"""

from datetime import datetime, timedelta

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, tuple_

from etl.config import Retention
from etl.db.failures import database_failures
from etl.db.tables import (
    quarantined_records,
    redirect_numbers,
    redirect_numbers_history,
    sync_runs,
    virtual_numbers,
    virtual_numbers_history,
)
from etl.load.live import batches

_ROWS_PER_TRANSACTION = 1_000
_LIVE = (redirect_numbers, virtual_numbers)
_HISTORY = (redirect_numbers_history, virtual_numbers_history)


class Plan(msgspec.Struct, frozen=True):
    """What of one source is old enough to go."""

    source: str
    closed_before_run: int
    """History goes as far as it was closed by a run before this one; 0 means that none goes."""
    quarantined: list[int]
    """Keys of quarantined records."""
    runs: list[int]
    counts: dict[str, int]
    """Rows that go, by table."""


def make_plan(connection: Connection, source: str, retention: Retention, now: datetime) -> Plan:
    """Find out what of a source is older than the ages of `retention`."""
    first_kept = _first_run_kept_in_history(connection, source, _horizon(now, retention.history))
    quarantined = _old_quarantine(connection, source, _horizon(now, retention.quarantine))
    runs = _old_runs(connection, source, _horizon(now, retention.runs))
    if runs:
        runs -= _referred_to(connection, source, first_kept, quarantined)
    counts = {table.name: _count(connection, table, _closed_before(table, source, first_kept)) for table in _HISTORY}
    counts |= {quarantined_records.name: len(quarantined), sync_runs.name: len(runs)}
    return Plan(source, first_kept, sorted(quarantined), sorted(runs), counts)


def _horizon(now: datetime, age: float | None) -> datetime | None:
    return None if age is None else now - timedelta(seconds=age)


def _first_run_kept_in_history(connection: Connection, source: str, horizon: datetime | None) -> int:
    """Return the run from which on everything closed stays.

    The cut is made between two runs, in both tables alike, and not by the clock, which may have been set back: so all
    that was live after a run from here on can still be told, exactly.
    """
    if horizon is None:
        return 0
    young, last = [], []
    for table in _HISTORY:
        closed = func.min(table.c.valid_to_run)
        own = table.c.source == source
        young.append(connection.scalar(select(closed).where(own, table.c.valid_to >= horizon)))
        last.append(connection.scalar(select(func.max(table.c.valid_to_run)).where(own)))
    return min((run for run in young if run is not None), default=max((run for run in last if run), default=0) + 1)


def _closed_before(table: Table, source: str, run: int) -> ColumnElement[bool]:
    return (table.c.source == source) & (table.c.valid_to_run < run)


def _old_quarantine(connection: Connection, source: str, horizon: datetime | None) -> set[int]:
    if horizon is None:
        return set()
    columns = quarantined_records.c
    query = (
        select(columns["_id"])
        .join(sync_runs, sync_runs.c.id == columns.valid_to_run)
        .where(columns.source == source, sync_runs.c.started_at < horizon)
    )
    return set(connection.scalars(query))


def _old_runs(connection: Connection, source: str, horizon: datetime | None) -> set[int]:
    if horizon is None:
        return set()
    columns = sync_runs.c
    own = columns.source == source
    old = set(
        connection.scalars(select(columns.id).where(own, columns.started_at < horizon, columns.outcome != "running"))
    )
    newest = select(func.max(columns.id)).where(own)
    return old - {connection.scalar(newest), connection.scalar(newest.where(columns.outcome == "succeeded"))}


def _referred_to(connection: Connection, source: str, first_kept: int, quarantined: set[int]) -> set[int]:
    """Return the runs that some row which stays names."""
    found: set[int | None] = set()
    # The live tables come first: a row that a run moves into history meanwhile is then seen twice, not never.
    for table in _LIVE:
        found.update(connection.scalars(select(table.c.valid_from_run).where(table.c.source == source).distinct()))
    for table in _HISTORY:
        ends = table.c.valid_from_run, table.c.valid_to_run
        kept = ends[1] >= first_kept
        for row in connection.execute(select(*ends).where(table.c.source == source, kept).distinct()):
            found.update(row)
    columns = quarantined_records.c
    query = select(columns["_id"], columns.valid_from_run, columns.valid_to_run).where(columns.source == source)
    for key, *ends_of_record in connection.execute(query):
        if key not in quarantined:
            found.update(ends_of_record)
    return {run for run in found if run is not None}


def carry_out(connection: Connection, plan: Plan) -> None:
    """Delete what was planned, a bounded number of rows in each transaction; one that is cut short can be repeated."""
    for table in _HISTORY:
        _delete(connection, table, _closed_before(table, plan.source, plan.closed_before_run))
    # Runs go last: until then nothing refers to a run that is gone.
    for table, keys in ((quarantined_records, plan.quarantined), (sync_runs, plan.runs)):
        key = next(iter(table.primary_key))
        for batch in batches(keys, _ROWS_PER_TRANSACTION):
            with database_failures(), connection.begin():
                connection.execute(delete(table).where(key.in_(batch)))


def count_rows(connection: Connection, source: str) -> dict[str, int]:
    """Return how many rows of each table are of this source."""
    tables = (*_LIVE, *_HISTORY, quarantined_records, sync_runs)
    return {table.name: _count(connection, table, table.c.source == source) for table in tables}


def forget(connection: Connection, source: str) -> None:
    """Delete all that the database knows of a source, whose lock must be held.

    What is live goes in one transaction, for no reader shall see half of it; the rest a bounded number of rows at a
    time. The runs go last: until then the source is known, and a command that was cut short can be repeated.
    """
    with database_failures(), connection.begin():
        for table in _LIVE:
            connection.execute(delete(table).where(table.c.source == source))
    for table in (*_HISTORY, quarantined_records, sync_runs):
        _delete(connection, table, table.c.source == source)


def _count(connection: Connection, table: Table, chosen: ColumnElement[bool]) -> int:
    return connection.scalar(select(func.count()).select_from(table).where(chosen)) or 0


def _delete(connection: Connection, table: Table, chosen: ColumnElement[bool]) -> None:
    keys = list(table.primary_key)
    query = select(*keys).where(chosen).limit(_ROWS_PER_TRANSACTION)
    while True:
        with database_failures(), connection.begin():
            rows = [tuple(row) for row in connection.execute(query)]
            if not rows:
                return
            # Of two conditions that say the same, the first lets every database walk the primary key.
            leading = [column.in_({row[at] for row in rows}) for at, column in enumerate(keys[:2])]
            exact = [tuple_(*keys).in_(rows)] if len(keys) > 1 else []
            connection.execute(delete(table).where(*leading, *exact))
