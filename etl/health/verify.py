"""Compare the tables with what the loader wrote down about them, and find what was changed by hand.

A live number must have the values and redirects of its digest and, where the archive holds the body that was accepted
last, those of its record there. A row of history must begin and end with runs of its source that succeeded, and at
their times, and no two versions of one key may be live at once. Numbers are read a batch at a time, so that memory does
not grow with them; an archived body takes as much of it as a first load does.
"""

from collections.abc import Iterator
from enum import StrEnum

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, and_, exists, func, or_, select

from etl.db.tables import (
    quarantined_records,
    redirect_numbers,
    redirect_numbers_history,
    sync_runs,
    virtual_numbers,
    virtual_numbers_history,
)
from etl.health.archived import Archived
from etl.load.live import IDS_PER_STATEMENT, read_records
from etl.records import DIGEST_VERSION, digest

_PAIRS = ((virtual_numbers, virtual_numbers_history), (redirect_numbers, redirect_numbers_history))
_LOADED = ("succeeded",)
_JUDGED = ("succeeded", "refused")


class Mend(StrEnum):
    """What `--repair` does about a finding, or what else has to happen."""

    COMPARE = "compare"
    """Clear the digests, so that the next sync compares the number by value and restores it."""
    DELETE = "delete"
    """Delete a redirect that has no number."""
    REOPEN = "reopen"
    """Let a live row begin with the last run that succeeded, or at the time of its run."""
    SYNC = "sync"
    """Nothing: the next sync restores it without that."""
    PERSON = "person"
    """Nothing: what history should say is known to nobody but a backup."""


_ADVICE = {
    Mend.COMPARE: "run `etl verify --repair`; the next sync restores it",
    Mend.DELETE: "run `etl verify --repair`; it deletes the row",
    Mend.REOPEN: "run `etl verify --repair`; it lets the row begin with a run that is known",
    Mend.SYNC: "run `etl sync`; it restores the row",
    Mend.PERSON: "compare with a backup: history is never changed by repair",
}


class Finding(msgspec.Struct, frozen=True):
    """Something that the loader did not do."""

    source: str
    kind: str
    """A stable word."""
    table: str
    key: tuple[int, ...]
    """The row's key without its source; empty when the whole table is meant."""
    what: str
    mend: Mend

    @property
    def advice(self) -> str:
        """What to do about it."""
        return _ADVICE[self.mend]


def verify(connection: Connection, source: str, archived: Archived | None = None) -> Iterator[Finding]:
    """Yield all that is wrong with one source's rows; the connection's transaction must see one moment only.

    `archived` tells of the records of the body that was accepted last, where the archive holds it.
    """
    yield from _numbers(connection, source, archived)
    yield from _fingerprints(connection, source)
    yield from _missing(connection, source, archived)
    yield from _orphans(connection, source)
    for live, history in _PAIRS:
        yield from _runs_of_live(connection, source, live)
        yield from _overlap_of_live(connection, source, live, history)
        yield from _runs_of_history(connection, source, history)
        yield from _overlaps(connection, source, history)
    yield from _quarantine(connection, source)


# Live numbers, by value -----------------------------------------------------------------------------------------------


def _numbers(connection: Connection, source: str, archived: Archived | None) -> Iterator[Finding]:
    for page in _pages(connection, source):
        records = read_records(connection, source, [identity for identity, _, _ in page])
        for identity, mark, stored in page:
            actual = digest(records[identity])
            told = _judge(actual, stored, archived.digests.get(identity) if archived else None)
            if archived and told is None:
                told = _judge_by_archive(identity, mark, archived)
            if told:
                yield Finding(source, told[0], virtual_numbers.name, (identity,), told[1], Mend.COMPARE)


def _pages(connection: Connection, source: str) -> Iterator[list[tuple[int, bytes | None, bytes | None]]]:
    columns = virtual_numbers.c
    query = select(columns.id, columns["_fingerprint"], columns["_digest"]).where(columns.source == source)
    query = query.order_by(columns.id).limit(IDS_PER_STATEMENT)
    page = connection.execute(query).all()
    while page:
        yield [(identity, mark, stored) for identity, mark, stored in page]
        page = connection.execute(query.where(columns.id > page[-1].id)).all()


def _judge(actual: bytes, stored: bytes | None, archived: bytes | None) -> tuple[str, str] | None:
    """Return kind and description of what is wrong with a number's values or digest."""
    if archived is not None and actual != archived:
        return "row_edited", "its values or redirects are not those of the snapshot that was accepted last"
    if stored is None:
        return "no_digest", "it has no digest: added by hand, or repaired and not yet restored by a sync"
    if stored == actual or not stored.startswith(DIGEST_VERSION):
        # A digest of another version is no lie: the next sync compares by value and renews it.
        return None
    if archived is not None:
        return "digest_wrong", "its values are right but its digest is not"
    return "row_edited", "its values or redirects do not match its digest"


def _judge_by_archive(identity: int, mark: bytes | None, archived: Archived) -> tuple[str, str] | None:
    if not archived.may_be_live(identity):
        return "row_added", "the snapshot that was accepted last does not hold it"
    if mark is not None and archived.marks.get(mark, identity) != identity:
        return "fingerprint_elsewhere", "its fingerprint is that of another number's record"
    return None


def _fingerprints(connection: Connection, source: str) -> Iterator[Finding]:
    columns = virtual_numbers.c
    mark = columns["_fingerprint"]
    shared = (
        select(mark)
        .where(columns.source == source, mark.is_not(None))
        .group_by(mark)
        .having(func.count() > 1)
        .subquery()
    )
    query = select(columns.id).join(shared, shared.c[0] == mark).where(columns.source == source).order_by(columns.id)
    for identity in connection.scalars(query):
        what = "another number has the same fingerprint"
        yield Finding(source, "fingerprint_shared", virtual_numbers.name, (identity,), what, Mend.COMPARE)


def _missing(connection: Connection, source: str, archived: Archived | None) -> Iterator[Finding]:
    columns = virtual_numbers.c
    if archived:
        live = set(connection.scalars(select(columns.id).where(columns.source == source)))
        for identity in sorted(archived.digests.keys() - live):
            what = "the snapshot that was accepted last holds it, the table does not"
            yield Finding(source, "row_missing", virtual_numbers.name, (identity,), what, Mend.SYNC)
        return
    runs = sync_runs.c
    left = runs.numbers_added + runs.numbers_changed + runs.numbers_unchanged
    last = select(left).where(runs.source == source, runs.outcome == "succeeded").order_by(runs.id.desc()).limit(1)
    expected = connection.scalar(last)
    found = connection.scalar(select(func.count()).select_from(virtual_numbers).where(columns.source == source))
    if expected is not None and expected != found:
        what = f"{found} numbers are live, the last run left {expected}: rows were added or deleted by hand"
        yield Finding(source, "row_count", virtual_numbers.name, (), what, Mend.SYNC)


def _orphans(connection: Connection, source: str) -> Iterator[Finding]:
    child, parent = redirect_numbers.c, virtual_numbers.c
    has_parent = exists().where(parent.source == child.source, parent.id == child.virtual_number_id)
    query = select(*_key(redirect_numbers)).where(child.source == source, ~has_parent)
    for row in connection.execute(query):
        what = "the number that it leads to does not exist"
        yield Finding(source, "orphan", redirect_numbers.name, tuple(row), what, Mend.DELETE)


# Runs and times -------------------------------------------------------------------------------------------------------


def _runs_of_live(connection: Connection, source: str, live: Table) -> Iterator[Finding]:
    yield from _ends(connection, source, live, "from", Mend.REOPEN)


def _runs_of_history(connection: Connection, source: str, history: Table) -> Iterator[Finding]:
    for end in ("from", "to"):
        yield from _ends(connection, source, history, end, Mend.PERSON)
    query = select(*_key(history)).where(history.c.source == source, history.c.valid_to_run <= history.c.valid_from_run)
    for row in connection.execute(query):
        what = "it ends before it begins"
        yield Finding(source, "backwards", history.name, tuple(row), what, Mend.PERSON)


def _ends(connection: Connection, source: str, table: Table, end: str, mend: Mend) -> Iterator[Finding]:
    run, moment = table.c[f"valid_{end}_run"], table.c[f"valid_{end}"]
    known = _known_run(source, run, _LOADED)
    wrong_time = exists().where(sync_runs.c.id == run, sync_runs.c.source == source, sync_runs.c.started_at != moment)
    for kind, wrong, what in (
        ("run_unknown", ~known, f"valid_{end}_run names no run of this source that succeeded"),
        ("time_wrong", and_(known, wrong_time), f"valid_{end} is not the time of its run"),
    ):
        for row in connection.execute(select(*_key(table)).where(table.c.source == source, wrong)):
            yield Finding(source, kind, table.name, tuple(row), what, mend)


def _known_run(source: str, run: ColumnElement[int], outcomes: tuple[str, ...]) -> ColumnElement[bool]:
    runs = sync_runs.c
    return exists().where(runs.id == run, runs.source == source, runs.outcome.in_(outcomes))


def _overlap_of_live(connection: Connection, source: str, live: Table, history: Table) -> Iterator[Finding]:
    same_key = [history.c[column.name] == column for column in live.primary_key]
    later = exists().where(*same_key, history.c.valid_to_run > live.c.valid_from_run)
    for row in connection.execute(select(*_key(live)).where(live.c.source == source, later)):
        what = "history holds a version of it that ends after this one began"
        yield Finding(source, "overlap", live.name, tuple(row), what, Mend.REOPEN)


def _overlaps(connection: Connection, source: str, history: Table) -> Iterator[Finding]:
    keys = _key(history)
    following = func.lead(history.c.valid_from_run).over(partition_by=keys[:-1], order_by=keys[-1]).label("following")
    versions = select(*keys, history.c.valid_to_run, following).where(history.c.source == source).subquery()
    query = select(*(versions.c[key.name] for key in keys)).where(versions.c.valid_to_run > versions.c.following)
    for row in connection.execute(query):
        what = "the next version begins before this one ends"
        yield Finding(source, "overlap", history.name, tuple(row), what, Mend.PERSON)


def _quarantine(connection: Connection, source: str) -> Iterator[Finding]:
    columns = quarantined_records.c
    first, last = columns.valid_from_run, columns.valid_to_run
    possible_end = or_(last.is_(None), and_(_known_run(source, last, _JUDGED), last > first))
    wrong = or_(~_known_run(source, first, _JUDGED), ~possible_end)
    for key in connection.scalars(select(columns["_id"]).where(columns.source == source, wrong)):
        what = "its runs are none that this source had, or end before they begin"
        yield Finding(source, "run_unknown", quarantined_records.name, (key,), what, Mend.PERSON)


def _key(table: Table) -> list[ColumnElement[int]]:
    """Return the columns of the table's key but for the source."""
    return [column for column in table.primary_key if column.name != "source"]
