"""SIGKILL and SIGTERM at each stage of a run: what is seen on the wire says which stage it is."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.databases import Database, Databases
from tests.faults.jobs import ForkedJob, Killer, Outcome
from tests.faults.proxy import LOADING, OPENING, Proxy, Rule
from tests.faults.raw_server import Peer, RawServer, Script, answers, response
from tests.faults.world import World, body, business, expected, generation, live, runs

GOOD = body(generation(1))
PATIENCE = 20.0
SIGNALS = pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])


def request_seen(peer: Peer, fire: Callable[[], None]) -> None:
    peer.read_request()
    fire()
    peer.stall()


def headers_sent(peer: Peer, fire: Callable[[], None]) -> None:
    peer.read_request()
    peer.send(response(b"", length=len(GOOD)))
    time.sleep(0.05)
    fire()
    peer.stall()


def half_a_body_sent(peer: Peer, fire: Callable[[], None]) -> None:
    peer.read_request()
    peer.send(response(GOOD[: len(GOOD) // 2], length=len(GOOD)))
    time.sleep(0.05)
    fire()
    peer.stall()


def waiting_to_try_again(peer: Peer, fire: Callable[[], None]) -> None:
    peer.read_request()
    peer.send(response(b"", "Retry-After: 9", status="503 Busy"))
    time.sleep(0.1)
    fire()


HTTP_STAGES = {
    "request seen": request_seen,
    "headers sent": headers_sent,
    "half a body sent": half_a_body_sent,
    "waiting to try again": waiting_to_try_again,
}


@SIGNALS
@pytest.mark.parametrize("stage", HTTP_STAGES)
def test_killed_while_the_source_is_asked(world: World, stage: str, number: int) -> None:
    killer = Killer(number)

    def script(peer: Peer) -> None:
        HTTP_STAGES[stage](peer, killer.fire)

    with RawServer(script) as server:
        outcome = killer.aim(world.start(server.base_url, http={"max_attempts": 3})).wait(10)
    _check_end(world, outcome, number)
    assert business(world.database) == world.before
    world.assert_recovers(patience=PATIENCE)
    assert runs(world.database)[1][1:] == ("failed", "interrupted")


def _check_end(world: World, outcome: Outcome, number: int) -> None:
    assert outcome.code == 128 + number, (outcome.code, outcome.errors)
    if number == signal.SIGTERM:
        # Whoever has time to say a word marks the run by himself.
        assert runs(world.database)[-1][1:] == ("failed", "interrupted")


FIRST = (b"INSERT INTO sync_runs",)
STATEMENTS: dict[str, tuple[bytes, ...]] = {
    "run inserted": FIRST,
    "run committed": OPENING,
    "live rows read": (*FIRST, b"FROM virtual_numbers"),
    "history written": (*FIRST, b"INSERT INTO virtual_numbers_history"),
    "rows deleted": (*FIRST, b"DELETE FROM virtual_numbers"),
    "rows changed": (*FIRST, b"INTO virtual_numbers "),
    "redirects added": (*FIRST, b" redirect_numbers (source"),
    "quarantine read": (*FIRST, b"FROM quarantined_records"),
    "run closed": (*FIRST, b"UPDATE sync_runs"),
    "load committed": LOADING,
}
MOMENTS = ("request", "reply")


@pytest.fixture(params=["postgresql", "mariadb"])
def server_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    databases: Databases = request.getfixturevalue(f"{request.param}_databases")
    with databases.migrated() as database:
        yield World(database, tmp_path)


@SIGNALS
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("stage", STATEMENTS)
def test_killed_at_a_statement(server_world: World, stage: str, moment: str, number: int) -> None:
    killer = Killer(number)
    rule = Rule(STATEMENTS[stage], killer.fire, "reply" if moment == "reply" else "request")
    world = server_world
    with RawServer(answers(response(GOOD))) as source, Proxy(world.database.server.port, rule) as proxy:
        job = killer.aim(world.start(source.base_url, database_url=proxy.url(world.database.url, read_timeout="2")))
        outcome = job.wait(20)
        assert proxy.fired.is_set(), "the job never came to this stage"
    assert outcome.code in (0, 69, 128 + number), (outcome.code, outcome.errors)
    _check_old_or_new(world, outcome)
    world.assert_recovers(patience=PATIENCE)


def _check_old_or_new(world: World, outcome: Outcome) -> None:
    end = time.monotonic() + 5
    while True:
        last = runs(world.database)[-1]
        rows = live(world.database)
        if last[1] == "succeeded" and rows == expected(world.new):
            world.accepted[last[0]] = world.new
            return
        if business(world.database) == world.before or time.monotonic() > end:
            break
        time.sleep(0.05)
    assert business(world.database) == world.before, outcome.errors


@contextmanager
def watched_file(path: Path, grown_by: int, fire: Callable[[], None]) -> Iterator[None]:
    """Fire when a file has grown by so many bytes."""
    done = threading.Event()
    begin = path.stat().st_size if path.exists() else 0

    def watch() -> None:
        while not done.is_set():
            if path.exists() and path.stat().st_size >= begin + grown_by:
                fire()
                return
            done.wait(0.0002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@SIGNALS
@pytest.mark.parametrize("pages", [1, 20, 200, 600])
def test_killed_while_sqlite_writes_its_log(
    sqlite_databases: Databases, world_of: Callable[[Database], World], pages: int, number: int
) -> None:
    with sqlite_databases.migrated() as database:
        world = world_of(database)
        world.new = generation(3, 3000)
        big: Script = answers(response(body(world.new)))
        killer = Killer(number)
        with RawServer(big) as source, watched_file(Path(database.name + "-wal"), pages * 4096, killer.fire):
            outcome = killer.aim(world.start(source.base_url)).wait(20)
        assert outcome.code in (0, 128 + number), (outcome.code, outcome.errors)
        _check_old_or_new(world, outcome)
        world.assert_recovers()


@SIGNALS
def test_killed_while_others_hold_the_lock_it_wants(world: World, number: int) -> None:
    lock = "BEGIN IMMEDIATE" if world.database.kind == "sqlite" else "SELECT * FROM virtual_numbers FOR UPDATE"
    with RawServer(answers(response(GOOD))) as source, world.database.connect() as other:
        other.exec_driver_sql(lock)
        job: ForkedJob = world.start(source.base_url)
        time.sleep(0.4)
        job.signal(number)
        if number == signal.SIGKILL:
            assert job.wait(5).code == 137
            other.rollback()
        else:
            time.sleep(0.3)
            other.rollback()
            assert job.wait(10).code == 143
    assert business(world.database) == world.before
    world.assert_recovers(patience=PATIENCE)


def test_a_second_signal_during_the_roll_back_is_not_waited_for(world: World) -> None:
    killer = Killer(signal.SIGTERM)

    def script(peer: Peer) -> None:
        request_seen(peer, killer.fire)

    with RawServer(script) as server:
        job = killer.aim(world.start(server.base_url))
        assert killer.fired.wait(10)
        for _ in range(3):
            job.signal(signal.SIGTERM)
            job.signal(signal.SIGINT)
        outcome = job.wait(10)
    assert outcome.code in (130, 143)
    assert business(world.database) == world.before
    world.assert_recovers(patience=PATIENCE)
