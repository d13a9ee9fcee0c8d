"""Upgrades that are killed in the middle, run twice at once, or start from an older revision with data in it."""

import random
import signal
import time
from pathlib import Path

import pytest

from etl.db.revision import known_revisions
from tests.databases import Database, Databases
from tests.faults.jobs import ForkedJob, Killer, Outcome, write_config
from tests.faults.proxy import Proxy, Rule
from tests.faults.world import World, body, business, check_accepted, generation, live

STATEMENTS = (1, 3, 6, 9, 12)
"""Which of the statements that create something is the last that the killed upgrade sends."""


def command(folder: Path, database_url: str, *arguments: str) -> ForkedJob:
    config = write_config(folder, database_url, {"main": "http://127.0.0.1:9"})
    return ForkedJob(folder, *arguments, "--config", str(config))


def load(folder: Path, database: Database, number: int) -> Outcome:
    config = write_config(folder, database.url, {"main": "http://127.0.0.1:9"})
    path = folder / f"body-{number}.json"
    path.write_bytes(body(generation(number)))
    arguments = ("sync", "--json", "--config", str(config), "--from-file", str(path), "--source", "main")
    return ForkedJob(folder, *arguments).wait()


def works(folder: Path, database: Database) -> None:
    outcomes = [load(folder, database, number) for number in range(2)]
    accepted = {outcome.runs[0]["run_id"]: generation(number) for number, outcome in enumerate(outcomes)}
    assert [outcome.code for outcome in outcomes] == [0, 0]
    check_accepted(database, accepted)


@pytest.mark.parametrize("moment", ["request", "reply"])
@pytest.mark.parametrize("count", STATEMENTS)
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_an_upgrade_killed_at_a_statement_is_finished_by_the_next(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, count: int, moment: str
) -> None:
    databases: Databases = request.getfixturevalue(f"{kind}_databases")
    killer = Killer(signal.SIGKILL)
    rule = Rule([b"CREATE "] * count, killer.fire, "reply" if moment == "reply" else "request")
    with databases.empty() as database:
        with Proxy(database.server.port, rule) as proxy:
            outcome = killer.aim(command(tmp_path, proxy.url(database.url), "db", "upgrade")).wait(30)
        assert outcome.code == 137
        again = command(tmp_path, database.url, "db", "upgrade").wait(40)
        assert again.code == 0, again.errors
        assert command(tmp_path, database.url, "db", "check").wait().code == 0
        works(tmp_path, database)


def test_upgrades_killed_at_random_are_finished_by_a_run(database: Database, tmp_path: Path) -> None:
    """The run itself upgrades; a few kills in a row make it no worse."""
    chance = random.Random(3)
    for _ in range(4):
        job = command(tmp_path, database.url, "db", "upgrade")
        time.sleep(chance.uniform(0.01, 0.15))
        job.signal(signal.SIGKILL)
        assert job.wait().code in (0, 137)
    end = time.monotonic() + 20
    while command(tmp_path, database.url, "db", "upgrade").wait(40).code == 75 and time.monotonic() < end:
        time.sleep(0.1)
    works(tmp_path, database)


def test_a_signal_in_the_middle_of_an_upgrade_ends_it(database: Database, tmp_path: Path) -> None:
    chance = random.Random(4)
    for _ in range(4):
        job = command(tmp_path, database.url, "db", "upgrade")
        time.sleep(chance.uniform(0.01, 0.15))
        job.signal(signal.SIGTERM)
        outcome = job.wait(10)
        assert outcome.code in (0, 143), outcome.errors
    assert command(tmp_path, database.url, "db", "upgrade").wait(40).code == 0
    works(tmp_path, database)


def test_upgrades_at_once_all_succeed(database: Database, tmp_path: Path) -> None:
    jobs = [command(tmp_path, database.url, "db", "upgrade") for _ in range(4)]
    assert [job.wait().code for job in jobs] == [0] * 4
    works(tmp_path, database)


@pytest.mark.parametrize("revision", known_revisions())
def test_every_revision_is_upgraded_with_data_in_it(database: Database, tmp_path: Path, revision: str) -> None:
    """The data of today, as far as an older schema can hold it, comes through."""
    world = World(database, tmp_path)
    target = command(tmp_path, database.url, "db", "downgrade", revision, "--yes").wait()
    assert target.code in (0, 2), target.errors  # 2: it is the newest, and nothing lies above it
    assert database.scalar("SELECT version_num FROM alembic_version") == revision
    before = live(database)
    assert command(tmp_path, database.url, "db", "upgrade").wait().code == 0
    assert live(database) == before
    world.before = business(database)
    world.assert_recovers()
