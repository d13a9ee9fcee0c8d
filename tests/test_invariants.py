"""Invariants over histories of snapshots that nobody thought of: Hypothesis against a model of the contract.

The model shares nothing with the program. Ids come from a small range, so that numbers change, vanish and return.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl.diff import compare
from etl.records import NumberRecord, Snapshot, digest
from etl.transform.snapshot import read_snapshot
from tests import stored
from tests.databases import Database, Databases
from tests.loading import Loader, loading
from tests.snapshots import Record, body, canonical, record

EXAMPLES = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SOURCES = (f"source-{number}" for number in count())
"""A fresh source is as good as a fresh database, and much cheaper."""

IDS = st.integers(1, 6)
NUMBERS = st.sampled_from(["79200000001", "79200000002", "74950000003"])
COMMENTS = st.sampled_from([None, "", "Заметка", "заметка ", "😀 <b>", "O'Brien\\n"])
REDIRECTS = st.dictionaries(st.integers(100, 103), NUMBERS, max_size=3)
GOOD = st.builds(
    record, IDS, REDIRECTS, number=NUMBERS, comment=COMMENTS, purpose=st.sampled_from(["company", "employee"])
)
OUTSIDE = st.builds(
    lambda made, change: made | change,
    GOOD,
    st.sampled_from([{"state": "freeze"}, {"type": "toll_free"}, {"purpose": "not_specified"}]),
)
EXTRA = st.builds(
    lambda made, value: made | {"new_field": value}, GOOD, st.sampled_from([1, "x", [True], {"b": 1, "a": 2}])
)
BAD = st.builds(
    lambda made, change: made | change, GOOD, st.sampled_from([{"comment": 5}, {"number": ""}, {"app_id": "1"}])
)
UNREADABLE: st.SearchStrategy[Any] = st.sampled_from(
    [None, 5, "x", [], {}, record(1) | {"id": 0}, record(1) | {"id": "1"}]
)
MOSTLY_GOOD = st.one_of(GOOD, GOOD, GOOD, GOOD, EXTRA, OUTSIDE, BAD)
SNAPSHOTS = st.lists(st.one_of(MOSTLY_GOOD, MOSTLY_GOOD, MOSTLY_GOOD, UNREADABLE), max_size=8)
HISTORIES = st.lists(SNAPSHOTS, min_size=1, max_size=5)


@dataclass
class Model:
    """What the contract says of one source's tables after each accepted snapshot."""

    live: dict[int, Record] = field(default_factory=dict)
    quarantined: list[Any] = field(default_factory=list)
    outside: int = 0

    def accept(self, elements: Iterable[Any]) -> None:
        by_id: dict[int, list[Record]] = {}
        spoilt: set[int] = set()
        self.quarantined = []
        hidden = False
        for element in elements:
            identity: Any = element.get("id") if isinstance(element, dict) else None
            readable = type(identity) is int and identity > 0
            if not self._is_good(element):
                if readable and element in self.quarantined:
                    continue
                self.quarantined.append(element)
                hidden |= not readable
                spoilt |= {identity} if readable else set()
            elif canonical(element) not in map(canonical, by_id.setdefault(identity, [])):
                by_id[identity].append(element)
        contradicted = {identity for identity, met in by_id.items() if len(met) > 1 or identity in spoilt}
        for identity in contradicted:
            self.quarantined += by_id.pop(identity)
        inside = {identity: canonical(met[0]) for identity, met in by_id.items() if self._is_inside(met[0])}
        self.outside = len(by_id) - len(inside)
        kept = self.live.keys() if hidden else spoilt | contradicted
        self.live = {identity: self.live[identity] for identity in kept & self.live.keys()} | inside

    @staticmethod
    def _is_good(element: Any) -> bool:
        return (
            isinstance(element, dict)
            and type(element.get("id")) is int
            and element["id"] > 0
            and bool(element["number"])
            and (element["comment"] is None or isinstance(element["comment"], str))
            and type(element["app_id"]) is int
        )

    @staticmethod
    def _is_inside(element: Record) -> bool:
        return bool(element["state"] == "active" and element["type"] == "def" and element["purpose"] != "not_specified")


def as_stored(live: dict[int, Record]) -> dict[int, Record]:
    """Give unknown fields the form in which `stored` reads them: numbers as they are spelled."""
    return {
        identity: values
        | {"extra": values["extra"] and {name: spelled(value) for name, value in values["extra"].items()}}
        for identity, values in live.items()
    }


def spelled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: spelled(child) for name, child in value.items()}
    if isinstance(value, list):
        return [spelled(child) for child in value]
    return value if isinstance(value, bool | str) or value is None else str(value)


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def lasting(request: pytest.FixtureRequest) -> Any:
    """Keep one migrated database for all examples of this file."""
    databases: Databases = request.getfixturevalue(f"{request.param}_databases")
    with databases.migrated() as database, loading(database) as loader:
        yield loader


@EXAMPLES
@given(history=HISTORIES)
def test_tables_and_timelines_hold_exactly_what_the_contract_says_run_by_run(
    lasting: Loader, history: list[Any]
) -> None:
    source, model = next(SOURCES), Model()
    expected: dict[int, dict[int, Record]] = {}
    for snapshot in history:
        run = lasting.load(snapshot, source=source)
        model.accept(snapshot)
        expected[run] = as_stored(model.live)

        logged = stored.last_run(lasting.database, source)
        assert stored.live(lasting.database, source) == expected[run]
        assert (
            len(stored.quarantined(lasting.database, source)) == len(model.quarantined) == logged["records_quarantined"]
        )
        assert logged["records_outside_filter"] == model.outside
        live_before = logged["numbers_changed"] + logged["numbers_removed"] + logged["numbers_unchanged"]
        assert live_before - logged["numbers_removed"] + logged["numbers_added"] == len(model.live)

    for run, live in expected.items():
        assert stored.live_after(lasting.database, run, source) == live


@EXAMPLES
@given(snapshot=SNAPSHOTS, before=SNAPSHOTS, data=st.data())
def test_the_same_snapshot_in_any_order_writes_nothing_but_its_run(
    lasting: Loader, snapshot: list[Any], before: list[Any], data: st.DataObject
) -> None:
    source = next(SOURCES)
    lasting.load(before, source=source)
    lasting.load(snapshot, source=source)
    first = content(lasting.database, source)

    lasting.load([shuffled(element, data) for element in data.draw(st.permutations(snapshot))], source=source)

    assert content(lasting.database, source) == first
    logged = stored.last_run(lasting.database, source)
    assert logged["numbers_added"] == logged["numbers_changed"] == logged["numbers_removed"] == 0


@EXAMPLES
@given(accepted=SNAPSHOTS, refused=SNAPSHOTS)
def test_a_refused_snapshot_changes_nothing_but_the_log_and_the_quarantine(
    lasting: Loader, accepted: list[Any], refused: list[Any]
) -> None:
    source = next(SOURCES)
    lasting.load([*accepted, record(90), record(91)], source=source)
    first = content(lasting.database, source)
    lasting.guarded(max_removed_fraction=0.0, max_quarantined_fraction=1.0)
    try:
        result = lasting.sync(
            [element for element in refused if isinstance(element, dict) and element.get("id")], source=source
        )
        cut = lasting.sync(body(refused)[:-1], source=source)
    finally:
        lasting.guarded(max_removed_fraction=1.0, allow_empty=True, max_quarantined_fraction=1.0)

    assert cut.outcome == "refused"
    if result.outcome == "refused":
        now = content(lasting.database, source)
        assert {table: rows for table, rows in now.items() if table != "quarantined_records"} == {
            table: rows for table, rows in first.items() if table != "quarantined_records"
        }


@settings(EXAMPLES, max_examples=15)
@given(history=HISTORIES)
def test_all_databases_hold_the_same_for_the_same_snapshots(
    sqlite_databases: Databases, postgresql_databases: Databases, mariadb_databases: Databases, history: list[Any]
) -> None:
    dumps = []
    for databases in (sqlite_databases, postgresql_databases, mariadb_databases):
        with databases.migrated() as database, loading(database) as loader:
            for snapshot in history:
                loader.load(snapshot)
            dumps.append(stored.dump(database))

    assert dumps[0] == dumps[1]
    assert dumps[0] == dumps[2]


def content(database: Database, source: str) -> dict[str, list[str]]:
    """Return all rows of one source but its runs."""
    tables = [table for table in stored.DUMPED if table != "sync_runs"]
    return {
        table: sorted(
            map(repr, stored.select(database, f"SELECT * FROM {table} WHERE source = :source", source=source))
        )
        for table in tables
    }


def shuffled(element: Any, data: st.DataObject) -> Any:
    """Put an element's keys and redirects in another order."""
    if not isinstance(element, dict):
        return element
    made = {key: element[key] for key in data.draw(st.permutations(list(element)))}
    if made.get("from_redirect_numbers"):
        made["from_redirect_numbers"] = data.draw(st.permutations(made["from_redirect_numbers"]))
    return made


def read(elements: list[Any], known: Mapping[bytes, int] | None = None) -> Snapshot:
    return read_snapshot(memoryview(body(elements)), known or {})


@settings(max_examples=200, deadline=None)
@given(snapshot=SNAPSHOTS, data=st.data())
def test_every_record_is_loaded_once_or_quarantined_once_in_any_order(snapshot: list[Any], data: st.DataObject) -> None:
    model = Model()
    model.accept(snapshot)
    one = read(snapshot)
    other = read([shuffled(element, data) for element in data.draw(st.permutations(snapshot))])

    assert one.candidates.keys() == other.candidates.keys() == model.live.keys()
    assert {key: digest(value.record()) for key, value in one.candidates.items()} == {
        key: digest(value.record()) for key, value in other.candidates.items()
    }
    assert sorted(bad.identity for bad in one.rejections) == sorted(bad.identity for bad in other.rejections)
    assert len(one.rejections) == len(model.quarantined)
    assert one.outside_filter == model.outside


@settings(max_examples=200, deadline=None)
@given(old=st.lists(GOOD, max_size=6, unique_by=lambda made: made["id"]), new=SNAPSHOTS)
def test_changes_turn_what_is_live_into_the_snapshot(old: list[Any], new: list[Any]) -> None:
    candidates = read(old).candidates
    live = {identity: candidate.record() for identity, candidate in candidates.items()}
    known = {candidate.fingerprint: identity for identity, candidate in candidates.items()}
    snapshot = read(new, known)
    changes = compare(
        known,
        snapshot,
        lambda ids: {key: digest(live[key]) for key in ids},
        lambda ids: {key: live[key] for key in ids},
    )

    after: dict[int, NumberRecord] = dict(live)
    for gone in changes.removed:
        del after[gone.id]
    for change in changes.changed:
        assert change.before == after[change.after.id] != change.after
        after[change.after.id] = change.after
    for candidate in changes.added:
        assert candidate.record().id not in after
        after[candidate.record().id] = candidate.record()
    kept = {key: value for key, value in live.items() if snapshot.hides_ids or key in snapshot.quarantined_ids}
    assert after == kept | {key: candidate.record() for key, candidate in read(new).candidates.items()}
    assert changes.refreshed == []
    assert (
        len(after)
        == changes.counts().numbers_added + changes.counts().numbers_changed + changes.counts().numbers_unchanged
    )


@settings(max_examples=200, deadline=None)
@given(one=GOOD, other=GOOD)
def test_digests_are_equal_exactly_where_values_are(one: Record, other: Record) -> None:
    digests = [digest(next(iter(read([made]).candidates.values())).record()) for made in (one, other)]

    assert (digests[0] == digests[1]) == (canonical(one) == canonical(other))
