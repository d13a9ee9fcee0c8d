"""Several runs at once, and clocks that jump between runs."""

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from etl.sandbox import SandboxServer
from tests.databases import Database
from tests.faults.jobs import ForkedJob, run_new_process, write_config
from tests.faults.raw_server import Peer, RawServer, response
from tests.faults.world import World, body, business, check_accepted, expected, generation, live, runs


@pytest.mark.parametrize("count", [2, 10])
def test_of_many_runs_of_one_source_at_once_one_loads_and_none_harms(world: World, count: int) -> None:
    others_ended = threading.Event()  # the first to ask is not answered before

    def hold(peer: Peer) -> None:
        peer.read_request()
        others_ended.wait(30)
        peer.send(response(body(world.new)))

    with RawServer(hold) as server:
        jobs = [world.start(server.base_url) for _ in range(count)]
        end = time.monotonic() + 30
        while sum(job.alive for job in jobs) > 1 and time.monotonic() < end:
            time.sleep(0.02)
        others_ended.set()
        outcomes = [job.wait() for job in jobs]
        assert server.connections == 1
    assert sorted(outcome.code for outcome in outcomes) == [0] + [75] * (count - 1)
    assert len(runs(world.database)) == 2, "an attempt that ends with 75 leaves no row"
    [won] = [outcome for outcome in outcomes if outcome.code == 0]
    world.assert_accepted(won, world.new)
    world.assert_recovers()


def test_ten_first_runs_at_once_make_one_schema_and_lose_nothing(database: Database, tmp_path: Path) -> None:
    with SandboxServer() as server:
        server.serve_body(body(generation(0)))
        config = write_config(tmp_path, database.url, {"main": server.base_url})
        jobs = [ForkedJob(tmp_path, "sync", "--json", "--config", str(config)) for _ in range(10)]
        outcomes = [job.wait() for job in jobs]
    assert {outcome.code for outcome in outcomes} <= {0, 75}, [outcome.errors for outcome in outcomes]
    accepted = {outcome.runs[0]["run_id"]: generation(0) for outcome in outcomes if outcome.code == 0}
    assert accepted
    check_accepted(database, accepted)


def test_runs_of_different_sources_go_side_by_side(migrated_database: Database, tmp_path: Path) -> None:
    both = threading.Barrier(2)  # neither is answered before the other has asked

    def together(peer: Peer) -> None:
        peer.read_request()
        both.wait(20)
        peer.send(response(body(generation(0))))

    with RawServer(together) as server:
        config = write_config(tmp_path, migrated_database.url, {"one": server.base_url, "two": server.base_url})
        names = ("one", "two")
        jobs = [ForkedJob(tmp_path, "sync", "--json", "--config", str(config), "--source", name) for name in names]
        assert [job.wait().code for job in jobs] == [0, 0]
    for name in names:
        assert live(migrated_database, name) == expected(generation(0))


def faketime_library() -> Path | None:
    found = [
        *Path("/usr/lib").glob("*/faketime/libfaketime.so.1"),
        *Path("/usr/local/lib/faketime").glob("libfaketime.so.1"),
    ]
    return found[0] if found and shutil.which(sys.executable) else None


def preloaded(folder: Path, seconds: float) -> dict[str, str]:
    """Move the whole clock of a child: by libfaketime, in C, where the machine has it."""
    del folder
    return {"LD_PRELOAD": str(faketime_library()), "FAKETIME": f"{seconds:+.0f}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def customized(folder: Path, seconds: float) -> dict[str, str]:
    """Move the clock that Python code asks, for a child that finds this module before it begins."""
    (folder / "sitecustomize.py").write_text(
        "import datetime, time\n"
        f"shift = {seconds}\n"
        "class moved(datetime.datetime):\n"
        "    @classmethod\n"
        "    def now(cls, tz=None):\n"
        "        return datetime.datetime.fromtimestamp(real() + shift, tz)\n"
        "real = time.time\n"
        "time.time = lambda: real() + shift\n"
        "datetime.datetime = moved\n"
    )
    return {"PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parents[2]}"}


MOVERS: dict[str, Callable[[Path, float], dict[str, str]]] = {"in Python": customized}
if faketime_library():
    MOVERS["in C"] = preloaded

DAY = 86_400
COURSE = (0, 30 * DAY, -400 * DAY, 1, -3 * DAY, 0)


@pytest.mark.parametrize("mover", MOVERS)
def test_history_is_ordered_by_runs_though_the_clock_jumps_for_days(world: World, tmp_path: Path, mover: str) -> None:
    start = datetime.now().astimezone()
    with SandboxServer() as server:
        config = write_config(tmp_path, world.database.url, {"main": server.base_url})
        for number, seconds in enumerate(COURSE):
            snapshot = generation(number)
            server.serve_body(body(snapshot))
            outcome = run_new_process(
                tmp_path, "sync", "--json", "--config", str(config), environment=MOVERS[mover](tmp_path, seconds)
            )
            world.assert_accepted(outcome, snapshot)
    check_accepted(world.database, world.accepted)
    moments = [str(row[0]) for row in world.database.rows("SELECT started_at FROM sync_runs ORDER BY id")]
    assert moments != sorted(moments), "the clock was never moved"
    assert str((start + timedelta(days=30)).year) >= moments[2][:4]
    # A version ends at the very time the next begins, whatever the clock says of either.
    query = (
        "SELECT count(*) FROM virtual_numbers_history AS old JOIN virtual_numbers_timeline AS young "
        "ON young.source = old.source AND young.id = old.id AND young.valid_from_run = old.valid_to_run "
        "WHERE young.valid_from <> old.valid_to"
    )
    assert world.database.scalar(query) == 0
    before = business(world.database)
    world.load_file(body(generation(len(COURSE) - 1)))
    assert business(world.database) == before
