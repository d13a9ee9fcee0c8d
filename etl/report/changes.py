"""What changed: of a run that is only tried, or of past runs, read back from the timelines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, or_, select

from etl.db.tables import (
    redirect_numbers_history,
    redirect_numbers_timeline,
    virtual_numbers_history,
    virtual_numbers_timeline,
)
from etl.records import NUMBER_FIELDS, REDIRECT_FIELDS, Changes, NumberRecord, RedirectRecord

Values = Mapping[str, Any]

_SIGNS = {"added": "+", "changed": "~", "removed": "-"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row that a run added, changed or removed."""

    source: str
    change: str
    """added, changed or removed."""
    before: Values | None
    """The row's fields before, None where it was added."""
    after: Values | None
    """The row's fields after, None where it was removed."""
    virtual_number_id: int
    """The number itself, or the one that a redirect leads to."""
    is_redirect: bool
    run_id: int | None = None
    """None in a dry run."""
    at: datetime | None = None
    """started_at of the run."""

    @property
    def fields(self) -> dict[str, tuple[Any, Any]]:
        """Fields that differ: old and new value."""
        names = [name for name in (REDIRECT_FIELDS if self.is_redirect else NUMBER_FIELDS) if name != "id"]
        before, after = self.before or {}, self.after or {}
        pairs = {name: (before.get(name), after.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    @property
    def row(self) -> Values:
        """The row as it is now, or was last."""
        return self.after or self.before or {}

    def lines(self) -> Iterator[str]:
        """Describe it for a person."""
        what = "redirect" if self.is_redirect else "number"
        where = f" to the number of id {self.virtual_number_id}" if self.is_redirect else ""
        yield f"{_SIGNS[self.change]} {what} {self.row['number']} (id {self.row['id']}){where}"
        if self.change == "changed":
            for name, (old, new) in self.fields.items():
                yield f"    {name}: {_shown(old)} → {_shown(new)}"

    def document(self) -> dict[str, Any]:
        """Describe it for a program."""
        return {
            "source": self.source,
            "run_id": self.run_id,
            "at": self.at.isoformat() if self.at else None,
            "change": self.change,
            "kind": "redirect" if self.is_redirect else "number",
            "virtual_number_id": self.virtual_number_id,
            "id": self.row["id"],
            "number": self.row["number"],
            "fields": {name: {"old": old, "new": new} for name, (old, new) in self.fields.items()},
        }


def _shown(value: Any) -> str:
    return "none" if value is None else f"“{value}”" if isinstance(value, str) else str(value)


def entries_of(source: str, changes: Changes) -> Iterator[Entry]:
    """Describe the changes of a run that has not happened."""
    for candidate in changes.added:
        yield from _entries(source, None, candidate.record())
    for change in changes.changed:
        yield from _entries(source, change.before, change.after)
    for record in changes.removed:
        yield from _entries(source, record, None)


def _entries(source: str, before: NumberRecord | None, after: NumberRecord | None) -> Iterator[Entry]:
    identity = (after or before).id  # type: ignore[union-attr] # one of the two is a record
    number = _entry(source, identity, _number_values(before), _number_values(after), is_redirect=False)
    if number:
        yield number
    old = {redirect.id: redirect for redirect in before.redirects} if before else {}
    new = {redirect.id: redirect for redirect in after.redirects} if after else {}
    for redirect in sorted(old.keys() | new.keys()):
        values = (_redirect_values(old.get(redirect)), _redirect_values(new.get(redirect)))
        if entry := _entry(source, identity, *values, is_redirect=True):
            yield entry


def _entry(source: str, number: int, before: Values | None, after: Values | None, *, is_redirect: bool) -> Entry | None:
    if before == after:
        return None
    change = "added" if before is None else "removed" if after is None else "changed"
    return Entry(
        source=source,
        change=change,
        before=before,
        after=after,
        virtual_number_id=number,
        is_redirect=is_redirect,
    )


def _number_values(record: NumberRecord | None) -> Values | None:
    if record is None:
        return None
    return {name: getattr(record, name) or None if name == "extra" else getattr(record, name) for name in NUMBER_FIELDS}


def _redirect_values(redirect: RedirectRecord | None) -> Values | None:
    if redirect is None:
        return None
    return {"id": redirect.id, "number": redirect.number, "extra": redirect.extra or None}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which changes are asked for; what is None does not restrict."""

    source: str | None = None
    since: datetime | None = None
    run_id: int | None = None
    number: str | None = None
    """A phone number, of a virtual number or a redirect, or the id of a virtual number."""


@dataclass(slots=True)
class _Row:
    source: str
    run_id: int
    at: datetime
    number: int
    before: Values | None = None
    after: Values | None = None
    is_redirect: bool = field(default=False)


def read_changes(connection: Connection, selection: Selection) -> list[Entry]:
    """Return the changes of past runs, in the order of the runs."""
    ids = _ids_of(connection, selection.number) if selection.number is not None else None
    rows = [
        *_read(connection, selection, ids, virtual_numbers_timeline, virtual_numbers_history, is_redirect=False),
        *_read(connection, selection, ids, redirect_numbers_timeline, redirect_numbers_history, is_redirect=True),
    ]
    rows.sort(key=lambda row: (row.run_id, row.number, row.is_redirect, (row.after or row.before or {})["id"]))
    return [
        Entry(
            source=row.source,
            change="added" if row.before is None else "removed" if row.after is None else "changed",
            before=row.before,
            after=row.after,
            virtual_number_id=row.number,
            is_redirect=row.is_redirect,
            run_id=row.run_id,
            at=row.at,
        )
        for row in rows
    ]


def _ids_of(connection: Connection, number: str) -> list[int]:
    columns = virtual_numbers_timeline.c
    ids = set(connection.scalars(select(columns.id).where(columns.number == number).distinct()))
    # A phone number may be too long to be an id in the database's eyes.
    if number.isascii() and number.isdigit() and len(number) < 19:
        ids.add(int(number))
    return sorted(ids)


def _read(
    connection: Connection,
    selection: Selection,
    ids: Sequence[int] | None,
    timeline: Table,
    history: Table,
    *,
    is_redirect: bool,
) -> list[_Row]:
    parent = "virtual_number_id" if is_redirect else "id"
    names = REDIRECT_FIELDS if is_redirect else NUMBER_FIELDS
    changes: dict[tuple[str, int, int, int], _Row] = {}
    for table, run, moment, which in (
        (history, "valid_to_run", "valid_to", "before"),
        (timeline, "valid_from_run", "valid_from", "after"),
    ):
        query = select(
            table.c.source, table.c[run], table.c[moment], table.c[parent], *(table.c[name] for name in names)
        )
        query = query.where(*_conditions(table, selection, ids, run, moment, is_redirect=is_redirect))
        for source, run_id, at, number, *values in connection.execute(query):
            row = dict(zip(names, values, strict=True))
            key = (source, run_id, number, row["id"])
            entry = changes.setdefault(key, _Row(source, run_id, at, number, is_redirect=is_redirect))
            setattr(entry, which, row)
    return list(changes.values())


def _conditions(
    table: Table, selection: Selection, ids: Sequence[int] | None, run: str, moment: str, *, is_redirect: bool
) -> Iterator[ColumnElement[bool]]:
    if selection.source is not None:
        yield table.c.source == selection.source
    if selection.run_id is not None:
        yield table.c[run] == selection.run_id
    if selection.since is not None:
        yield table.c[moment] >= selection.since
    if ids is not None:
        own = table.c["virtual_number_id" if is_redirect else "id"].in_(ids)
        yield or_(own, table.c.number == selection.number) if is_redirect else own
