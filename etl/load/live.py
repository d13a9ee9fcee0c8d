"""Read what is live for one source."""

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby, islice
from typing import Any, TypeVar

from msgspec import UNSET
from sqlalchemy import Connection, select

from etl.db.bulk import fetch_digests
from etl.db.tables import redirect_numbers, virtual_numbers
from etl.records import NUMBER_FIELDS, REDIRECT_FIELDS, ExtraFields, Live, NumberRecord, RedirectRecord

IDS_PER_STATEMENT = 5_000
"""Well below every database's limit on the parameters of a statement."""

_Item = TypeVar("_Item")


def read_live(connection: Connection, source: str) -> Live:
    """Return the digests of all live numbers of the source."""
    live = Live()
    known, digests = live.known, live.digests
    for rows in fetch_digests(connection, source):
        for identity, mark, values in rows:
            known[mark] = identity
            digests[identity] = values
    return live


def read_records(connection: Connection, source: str, ids: Collection[int]) -> dict[int, NumberRecord]:
    """Return the live records of these ids, with their redirects."""
    records: dict[int, NumberRecord] = {}
    for batch in batches(sorted(ids), IDS_PER_STATEMENT):
        redirects = _read_redirects(connection, source, batch)
        numbers = virtual_numbers.c
        query = select(*(numbers[name] for name in NUMBER_FIELDS)).where(
            numbers.source == source, numbers.id.in_(batch)
        )
        for row in connection.execute(query):
            record = number_record(row, redirects.get(row.id, []))
            records[record.id] = record
    return records


def _read_redirects(connection: Connection, source: str, ids: Sequence[int]) -> dict[int, list[RedirectRecord]]:
    columns = redirect_numbers.c
    query = (
        select(columns.virtual_number_id, *(columns[name] for name in REDIRECT_FIELDS))
        .where(columns.source == source, columns.virtual_number_id.in_(ids))
        .order_by(columns.virtual_number_id, columns.id)
    )
    rows = connection.execute(query)
    return {parent: [redirect_record(row[1:]) for row in group] for parent, group in groupby(rows, lambda row: row[0])}


def number_record(row: Sequence[Any], redirects: list[RedirectRecord]) -> NumberRecord:
    """Make a record of a row's values, which stand in the order of NUMBER_FIELDS."""
    values = dict(zip(NUMBER_FIELDS, row, strict=True))
    values["extra"] = UNSET if values["extra"] is None else ExtraFields(values["extra"])
    return NumberRecord(**values, from_redirect_numbers=redirects)


def redirect_record(row: Sequence[Any]) -> RedirectRecord:
    """Make a redirect of a row's values, which stand in the order of REDIRECT_FIELDS."""
    identity, number, extra = row
    return RedirectRecord(id=identity, number=number, extra=UNSET if extra is None else ExtraFields(extra))


def batches(items: Sequence[_Item], size: int) -> Iterator[list[_Item]]:
    """Cut a sequence into lists of at most `size` items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
