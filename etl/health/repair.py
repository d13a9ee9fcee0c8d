"""Make the next sync restore what was changed by hand. History is left as it is."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, tuple_, update

from etl.db.tables import redirect_numbers, sync_runs, virtual_numbers
from etl.health.verify import Finding, Mend
from etl.load.live import IDS_PER_STATEMENT, batches

_KEYS_PER_STATEMENT = 1_000


def repair(connection: Connection, source: str, findings: Sequence[Finding]) -> None:
    """Do what the findings of one source ask for, in the caller's transaction. The source's lock must be held."""
    _clear_digests(connection, source, sorted({item.key[0] for item in findings if item.mend is Mend.COMPARE}))
    _delete_redirects(connection, source, [item.key for item in findings if item.mend is Mend.DELETE])
    for table in (virtual_numbers, redirect_numbers):
        chosen = [item for item in findings if item.mend is Mend.REOPEN and item.table == table.name]
        _correct_times(connection, source, table, [item.key for item in chosen if item.kind == "time_wrong"])
        _reopen(connection, source, table, [item.key for item in chosen if item.kind != "time_wrong"])


def _clear_digests(connection: Connection, source: str, ids: Sequence[int]) -> None:
    columns = virtual_numbers.c
    for batch in batches(ids, IDS_PER_STATEMENT):
        chosen = update(virtual_numbers).where(columns.source == source, columns.id.in_(batch))
        # Without the fingerprint the record is decoded, without the digest it is compared by value.
        connection.execute(chosen.values(_fingerprint=None, _digest=None))


def _delete_redirects(connection: Connection, source: str, keys: Sequence[tuple[int, ...]]) -> None:
    columns = redirect_numbers.c
    for batch in batches(keys, _KEYS_PER_STATEMENT):
        chosen = tuple_(columns.virtual_number_id, columns.id).in_(batch)
        connection.execute(delete(redirect_numbers).where(columns.source == source, chosen))


def _correct_times(connection: Connection, source: str, table: Table, keys: Sequence[tuple[int, ...]]) -> None:
    time = select(sync_runs.c.started_at).where(sync_runs.c.id == table.c.valid_from_run).scalar_subquery()
    for batch in batches(keys, _KEYS_PER_STATEMENT):
        connection.execute(update(table).where(table.c.source == source, _among(table, batch)).values(valid_from=time))


def _reopen(connection: Connection, source: str, table: Table, keys: Sequence[tuple[int, ...]]) -> None:
    runs = sync_runs.c
    newest = select(func.max(runs.id)).where(runs.source == source, runs.outcome == "succeeded").scalar_subquery()
    last = connection.execute(select(runs.id, runs.started_at).where(runs.id == newest)).one_or_none()
    if last is None:
        return
    opened = {"valid_from_run": last.id, "valid_from": last.started_at}
    for batch in batches(keys, _KEYS_PER_STATEMENT):
        connection.execute(update(table).where(table.c.source == source, _among(table, batch)).values(opened))


def _among(table: Table, keys: Sequence[tuple[int, ...]]) -> ColumnElement[bool]:
    columns = [column for column in table.primary_key if column.name != "source"]
    return columns[0].in_([key[0] for key in keys]) if len(columns) == 1 else tuple_(*columns).in_(keys)
