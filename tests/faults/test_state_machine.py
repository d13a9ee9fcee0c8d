"""Random courses of snapshots, faults, kills, restarts and concurrent runs, against a simple model of the contract."""

import json
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from etl.sandbox import Answer, SandboxServer
from tests.conftest import KINDS, create_schema, server_expected
from tests.databases import SERVER_TYPES, Database, Databases, ServerDatabases
from tests.databases_servers import private_server
from tests.faults.jobs import ForkedJob, Outcome, write_config
from tests.faults.reader import Reader
from tests.faults.world import Record, Rows, as_of, business, check_timelines, expected, live, record, runs

PATIENCE = 20.0

IDS = range(1, 11)


@st.composite
def snapshots(draw: st.DrawFn) -> list[Record]:
    """Draw an answer of the source: most numbers there and good, some gone, outside the filter, or bad."""
    some = st.sets(st.sampled_from(IDS), max_size=2)
    gone = draw(st.one_of(some, some, st.sets(st.sampled_from(IDS))))
    bad, outside = draw(st.one_of(st.just(set[int]()), some)), draw(st.one_of(st.just(set[int]()), some))
    variants = draw(st.lists(st.integers(0, 3), min_size=len(IDS), max_size=len(IDS)))
    children = draw(st.lists(st.integers(0, 7), min_size=len(IDS), max_size=len(IDS)))
    records = [
        record(
            identity,
            number="" if identity in bad else str(79_000 + identity + variant // 2),
            comment=f"v{variant}" if variant else None,
            state="freeze" if identity in outside else "active",
            from_redirect_numbers=[
                {"id": 100 + place, "number": f"7{place}{variant}"} for place in range(3) if redirects >> place & 1
            ],
        )
        for identity, variant, redirects in zip(IDS, variants, children, strict=True)
        if identity in bad or identity not in gone
    ]
    unreadable = draw(st.sampled_from(["", "", "", "x", "y"]))
    return [*records, *([record(0, id=unreadable)] if unreadable else [])]


SNAPSHOTS = snapshots()
FAULTS = {
    "500": (Answer(500), 69),
    "404": (Answer(404), 76),
    "401": (Answer(401), 77),
    "reset": (Answer(reset=True), 69),
    "short": (Answer(body=b"[]", content_length=50), 69),
    "no last chunk": (Answer(body=b"[]", chunked=True, end_chunks=False), 69),
    "not JSON": (Answer(body=b"<html>"), 65),
    "an object": (Answer(body=b"{}"), 65),
}


class Model:
    """What the contract says must be there: small enough to be seen to be right."""

    def __init__(self) -> None:
        self.live: dict[int, Record] = {}
        self.accepted: dict[int, Rows] = {}
        self.quarantined: set[str] = set()

    def takes(self, snapshot: list[Record], run: int, *, outcome: str) -> None:
        """Follow a run that came to an end, and check that it ended as it had to."""
        after, verdict = self._judge(snapshot)
        assert outcome == verdict, f"the run {outcome}, by the contract it is {verdict}"
        self.quarantined = {json.dumps(item, ensure_ascii=False) for item in snapshot if self._is_bad(item)}
        if verdict == "succeeded":
            self.live = after
            self.accepted[run] = expected(list(after.values()))

    def _judge(self, snapshot: list[Record]) -> tuple[dict[int, Record], str]:
        bad = [item for item in snapshot if self._is_bad(item)]
        good = {item["id"]: item for item in snapshot if item not in bad and item["state"] == "active"}
        kept = {item["id"] for item in bad}
        suspended = any(not isinstance(item["id"], int) for item in bad)
        removed = set() if suspended else self.live.keys() - good.keys() - kept
        if len(bad) > 0.25 * len(snapshot) or (removed and not good) or len(removed) > 0.5 * len(self.live):
            return self.live, "refused"
        return {**{key: item for key, item in self.live.items() if key not in removed}, **good}, "succeeded"

    @staticmethod
    def _is_bad(item: Record) -> bool:
        return not item["number"] or not isinstance(item["id"], int)


class Course(RuleBasedStateMachine):
    """One random course of events on one database."""

    databases: Databases

    def __init__(self) -> None:
        super().__init__()
        self._closing = ExitStack()
        self.database: Database = self._closing.enter_context(self.databases.migrated())
        self.folder = Path(self._closing.enter_context(tempfile.TemporaryDirectory()))
        self.servers = [self._closing.enter_context(SandboxServer()) for _ in range(2)]
        self.reader = self._closing.enter_context(Reader(self.database))
        self.model = Model()
        self.last: list[Record] = []

    def teardown(self) -> None:
        try:
            self.timelines_tell_every_accepted_snapshot()
            self._closing.close()
            allowed = [frozenset(), *(frozenset(rows.values()) for rows in self.model.accepted.values())]
            for state in self.reader.seen:
                assert state in allowed, "somebody saw a mix of snapshots"
            assert self.reader.orphans == 0
        finally:
            self._closing.close()

    def start(self, server: int = 0) -> ForkedJob:
        folder = self.folder / str(server)
        folder.mkdir(exist_ok=True)
        config = write_config(folder, self.database.url, {"main": self.servers[server].base_url})
        return ForkedJob(folder, "sync", "--json", "--config", str(config))

    def sync(self) -> Outcome:
        """Run; a server may need a moment to notice that the client before is dead."""
        end = time.monotonic() + PATIENCE
        while (outcome := self.start().wait()).code == 75 and time.monotonic() < end:
            time.sleep(0.05)
        return outcome

    def ended(self, outcome: Outcome, snapshot: list[Record]) -> None:
        assert outcome.code in (0, 65), outcome.errors
        run = outcome.runs[0]
        self.model.takes(snapshot, run["run_id"], outcome=run["outcome"])

    def serve(self, snapshot: list[Record], server: int = 0) -> None:
        self.servers[server].serve_body(json.dumps(snapshot, ensure_ascii=False).encode())

    @rule(snapshot=SNAPSHOTS)
    def load(self, snapshot: list[Record]) -> None:
        self.serve(snapshot)
        self.ended(self.sync(), snapshot)
        self.last = snapshot

    @rule(seed=st.integers(0, 1000))
    def load_the_same_in_another_order(self, seed: int) -> None:
        known = list(self.model.live.values())
        bad = [item for item in self.last if Model._is_bad(item)]
        shuffled = random.Random(seed).sample(known, len(known))
        if self.model.quarantined != {json.dumps(item, ensure_ascii=False) for item in bad} or bad:
            return  # only a snapshot that is live as a whole is the same again
        before = business(self.database)
        self.serve([dict(reversed(item.items())) for item in shuffled])
        outcome = self.sync()
        self.ended(outcome, shuffled)
        assert business(self.database) == before

    @rule(fault=st.sampled_from(sorted(FAULTS)))
    def meet_a_fault(self, fault: str) -> None:
        answer, code = FAULTS[fault]
        before = business(self.database)
        self.servers[0].script(answer)
        outcome = self.sync()
        assert outcome.code == code, outcome.errors
        assert business(self.database) == before

    @rule(snapshot=SNAPSHOTS, number=st.sampled_from([signal.SIGKILL, signal.SIGTERM]), delay=st.floats(0, 0.15))
    def be_killed(self, snapshot: list[Record], number: int, delay: float) -> None:
        self.serve(snapshot)
        before = {row[0] for row in runs(self.database)}
        was = business(self.database)
        job = self.start()
        time.sleep(delay)
        job.signal(number)
        outcome = job.wait()
        assert outcome.code in (0, 65, 75, 128 + number), outcome.errors
        self._wait_for_sessions()
        fresh = [row for row in runs(self.database) if row[0] not in before]
        if fresh and fresh[0][1] in ("succeeded", "refused"):
            self.model.takes(snapshot, fresh[0][0], outcome=fresh[0][1])
        else:
            assert business(self.database) == was
        self.last = []

    def _wait_for_sessions(self) -> None:
        """Wait until the server has noticed the death of its client: what it was sent may yet be carried out."""
        if self.database.kind == "sqlite":
            return
        catalogue, column = (
            ("pg_stat_activity", "datname") if self.database.kind == "postgresql" else
            ("information_schema.processlist", "db")
        )  # fmt: skip
        query = f"SELECT count(*) FROM {catalogue} WHERE {column} = {self.database.server.literal(self.database.name)}"
        if self.database.kind == "postgresql":
            query += " AND application_name = 'virtual-numbers-etl'"
        end = time.monotonic() + 10
        # On MariaDB, the reader's own session has no name that would tell it apart.
        least = 0 if self.database.kind == "postgresql" else 1
        while self.database.server.execute(query)[0][0] > least and time.monotonic() < end:
            time.sleep(0.01)

    @precondition(lambda self: self.database.kind != "sqlite")
    @rule(how=st.sampled_from(["stop", "kill"]))
    def restart_the_server(self, how: str) -> None:
        getattr(self.database.server, how)()
        assert self.start().wait().code == 69
        self.database.server.start()

    @rule(first=SNAPSHOTS, second=SNAPSHOTS)
    def run_twice_at_once(self, first: list[Record], second: list[Record]) -> None:
        self.serve(first)
        self.serve(second, 1)
        jobs = [self.start(0), self.start(1)]
        outcomes = [job.wait() for job in jobs]
        ended = [
            (outcome.runs[0]["run_id"], outcome, snapshot)
            for outcome, snapshot in zip(outcomes, (first, second), strict=True)
            if outcome.code != 75
        ]
        assert ended
        for _, outcome, snapshot in sorted(ended, key=lambda item: item[0]):
            self.ended(outcome, snapshot)
            self.last = snapshot

    @invariant()
    def live_tables_are_the_last_accepted_snapshot(self) -> None:
        assert live(self.database) == expected(list(self.model.live.values()))

    @invariant()
    def accepted_runs_are_those_of_the_model(self) -> None:
        succeeded = [row[0] for row in runs(self.database) if row[1] == "succeeded"]
        assert succeeded == sorted(self.model.accepted)

    def timelines_tell_every_accepted_snapshot(self) -> None:
        check_timelines(self.database)
        for run, rows in self.model.accepted.items():
            assert as_of(self.database, run) == rows

    @invariant()
    def quarantine_is_what_the_newest_snapshot_holds(self) -> None:
        kept = self.database.rows("SELECT record FROM quarantined_records WHERE valid_to_run IS NULL")
        assert {row[0] for row in kept} == self.model.quarantined


@pytest.fixture(params=KINDS)
def own_databases(request: pytest.FixtureRequest, *, require_databases: bool) -> Iterator[Databases]:
    """Databases on a server of the test's own, which it may restart."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_databases")
        return
    with server_expected(required=require_databases), private_server(SERVER_TYPES[request.param]) as server:
        yield ServerDatabases(server.folder, create_schema, server)


def test_no_course_of_events_breaks_the_contract(own_databases: Databases) -> None:
    class CourseHere(Course):
        databases = own_databases

    run_state_machine_as_test(
        CourseHere,
        settings=settings(
            max_examples=15,
            stateful_step_count=12,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
