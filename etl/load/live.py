"""Read what is live for one source."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any, TypeVar

from msgspec import UNSET
from sqlalchemy import BindParameter, Connection, bindparam, select

from etl.db.bulk import fetch_fingerprints
from etl.db.tables import redirect_numbers, virtual_numbers
from etl.records import NUMBER_FIELDS, REDIRECT_FIELDS, ExtraFields, NumberRecord, RedirectRecord

IDS_PER_STATEMENT = 5_000
"""A hundred kilobytes of digits at most, which every database takes in one statement."""

_Item = TypeVar("_Item")


def read_known(connection: Connection, source: str) -> dict[bytes, int]:
    """Map the fingerprint of each live number to its id, and what is no fingerprint where there is none to trust."""
    known: dict[bytes, int] = {}
    rows = 0
    for count, part in fetch_fingerprints(connection, source):
        known.update(part)
        rows += count
    return known if len(known) == rows else _read_unambiguous(connection, source)


def _read_unambiguous(connection: Connection, source: str) -> dict[bytes, int]:
    # Somebody copied rows together with their fingerprints: which of them is the real one is seen by its values.
    marks = [row for _, part in fetch_fingerprints(connection, source) for row in part]
    met = Counter(mark for mark, _ in marks)
    return {mark if met[mark] == 1 else b"%016x" % identity: identity for mark, identity in marks}


def read_digests(connection: Connection, source: str, ids: Collection[int]) -> dict[int, bytes | None]:
    """Return the digests of these live numbers at least, None where one must not be trusted."""
    columns = virtual_numbers.c
    query = select(columns.id, columns["_digest"]).where(columns.source == source)
    # More than one statement takes are as soon read with all the others.
    if len(ids) <= IDS_PER_STATEMENT:
        query = query.where(columns.id.in_(listed(ids)))
    return {row[0]: row[1] for row in connection.execute(query)}


def read_records(connection: Connection, source: str, ids: Collection[int]) -> dict[int, NumberRecord]:
    """Return the live records of these ids, with their redirects."""
    records: dict[int, NumberRecord] = {}
    for batch in batches(sorted(ids), IDS_PER_STATEMENT):
        redirects = _read_redirects(connection, source, batch)
        numbers = virtual_numbers.c
        query = select(*(numbers[name] for name in NUMBER_FIELDS)).where(
            numbers.source == source, numbers.id.in_(listed(batch))
        )
        for row in connection.execute(query):
            record = number_record(row, redirects.get(row.id, []))
            records[record.id] = record
    return records


def _read_redirects(connection: Connection, source: str, ids: Sequence[int]) -> dict[int, list[RedirectRecord]]:
    columns = redirect_numbers.c
    query = (
        select(columns.virtual_number_id, *(columns[name] for name in REDIRECT_FIELDS))
        .where(columns.source == source, columns.virtual_number_id.in_(listed(ids)))
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


def listed(ids: Iterable[int | tuple[int, ...]]) -> BindParameter[Any]:
    """Put ids into a statement's text, for `in_()`: drivers take longer over parameters than servers over the rest."""
    return bindparam(None, list(ids), expanding=True, literal_execute=True)


def batches(items: Sequence[_Item], size: int) -> Iterator[list[_Item]]:
    """Cut a sequence into lists of at most `size` items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
