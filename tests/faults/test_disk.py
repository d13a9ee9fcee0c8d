"""Disks that are full, read-only or damaged."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.databases import Database, Databases
from tests.faults.jobs import Outcome
from tests.faults.raw_server import RawServer, Script, answers, response
from tests.faults.world import World, body, business, check_accepted, generation, record, runs

GOOD = body(generation(1))
BIG = body([record(identity, comment="x" * 500) for identity in range(1, 6_000)])


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of this size; skips where the machine does not let us."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine lets us mount nothing; RLIMIT_FSIZE stands in for it in another test")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def sync_big(world: World, script: Script | None = None, **options: Any) -> Outcome:
    with RawServer(script or answers(response(BIG))) as server:
        return world.sync(server.base_url, http={"max_attempts": 3}, **options)


def test_a_full_temporary_folder_is_told_at_once(world: World, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "1m") as small:
        outcome = sync_big(world, environment={"TMPDIR": str(small)})
        world.assert_unharmed(outcome, 74, "disk_full")
        assert outcome.runs[0]["attempts"] == 1
        assert not list(small.iterdir())
    world.assert_recovers()


def test_a_limit_on_the_size_of_files_is_a_full_disk(world: World) -> None:
    outcome = sync_big(world, file_bytes=1_000_000)
    world.assert_unharmed(outcome, 74, "disk_full")
    assert outcome.runs[0]["attempts"] == 1
    world.assert_recovers()


def test_no_temporary_folder_at_all(world: World, tmp_path: Path) -> None:
    # Python looks further where TMPDIR cannot be used, so this is none of the job's troubles.
    with RawServer(answers(response(GOOD))) as server:
        outcome = world.sync(server.base_url, environment={"TMPDIR": str(tmp_path / "none")})
    world.assert_accepted(outcome, generation(1))


def test_sqlite_on_a_full_disk_keeps_the_old_snapshot(sqlite_databases: Databases, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "2m") as small, sqlite_databases.migrated() as template:
        file = small / "numbers.db"
        file.write_bytes(Path(template.name).read_bytes())
        database = Database("sqlite", f"sqlite:///{file}", template._make)
        world = World(database, tmp_path)
        outcome = sync_big(world)
        assert outcome.code == 74, outcome.errors
        assert business(database) == world.before
        world.assert_recovers()


def test_sqlite_beyond_a_limit_on_the_size_of_files(sqlite_databases: Databases, tmp_path: Path) -> None:
    with sqlite_databases.migrated() as database:
        world = World(database, tmp_path)
        before = [record(identity, comment="x" * 500) for identity in range(1, 3_000)]
        after = [record(identity, comment="y" * 500) for identity in range(1, 3_000)]
        world.assert_accepted(world.load_file(body(before), "--accept-removals", "100"), before)
        world.before = business(database)
        # Room for the body, but not for old and new rows together.
        outcome = world.load_file(body(after), file_bytes=len(body(after)) + 4096)
        world.assert_unharmed(outcome, 74)
        world.assert_accepted(world.load_file(body(after)), after)
        check_accepted(database, world.accepted)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "not a database": lambda _: b"this is no database at all" * 1000,
    "pages of zeros": lambda content: content[:4096] + b"\0" * (len(content) - 4096),
    "noise in the middle": lambda content: content[:8192] + os.urandom(len(content) - 8192),
    "cut in half": lambda content: content[: len(content) // 2],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_sqlite_file_is_told_and_not_made_worse(
    sqlite_databases: Databases, tmp_path: Path, damage: str
) -> None:
    with sqlite_databases.migrated() as database:
        world = World(database, tmp_path)
        file = Path(database.name)
        with database.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        whole = file.read_bytes()
        for side in ("-wal", "-shm"):
            Path(f"{file}{side}").unlink(missing_ok=True)
        file.write_bytes(DAMAGE[damage](whole))
        with RawServer(answers(response(GOOD))) as server:
            outcome = world.sync(server.base_url)
        assert outcome.code == 74, (outcome.code, outcome.errors)
        file.write_bytes(whole)
        for side in ("-wal", "-shm"):
            Path(f"{file}{side}").unlink(missing_ok=True)
        world.assert_recovers()


@pytest.fixture
def open_world(sqlite_databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose folders other users reach, as root's are not."""
    base = tmp_path_factory.getbasetemp()
    for folder in (base, *base.parents):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)
    with sqlite_databases.migrated() as template:
        folder = tmp_path_factory.mktemp("open")
        folder.chmod(0o777)
        file = folder / "numbers.db"
        file.write_bytes(Path(template.name).read_bytes())
        yield World(Database("sqlite", f"sqlite:///{file}", template._make), folder)


@pytest.mark.parametrize("what", ["file", "folder", "both"])
def test_a_read_only_sqlite_database_is_not_allowed(open_world: World, what: str) -> None:
    world = open_world
    file = Path(world.database.name)
    with world.database.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    locks = [path for path in file.parent.iterdir() if path.name.startswith("numbers.db-")]
    user = "nobody" if os.geteuid() == 0 else None
    with RawServer(answers(response(GOOD))) as server:
        config_job = world.start(server.base_url)  # writes the configuration while it can
        config_job.signal(9)
        config_job.wait()
        for path in (*locks, *(entry for entry in file.parent.iterdir() if entry.name[:6] in ("output", "errors"))):
            path.chmod(0o666)
        for path in file.parent.iterdir():
            path.chmod(0o666)
        if what in ("file", "both"):
            file.chmod(0o444)
        if what in ("folder", "both"):
            for side in ("-wal", "-shm"):
                Path(f"{file}{side}").unlink(missing_ok=True)
        before = business(world.database)
        outcome = _run_as(world, server.base_url, user, lock_folder=what in ("folder", "both"))
    file.parent.chmod(0o777)
    file.chmod(0o600)
    assert outcome.code == 77, (outcome.code, outcome.errors)
    assert business(world.database) == before


def _run_as(world: World, base_url: str, user: str | None, *, lock_folder: bool) -> Outcome:
    from tests.faults import jobs  # noqa: PLC0415 - its parts are wanted one by one

    config = jobs.write_config(world.folder, world.database.url, {"main": base_url})
    config.chmod(0o644)
    job_folder = world.folder / "job"
    job_folder.mkdir(exist_ok=True)
    job_folder.chmod(0o777)
    if lock_folder:
        world.folder.chmod(0o555)
    return jobs.ForkedJob(job_folder, "sync", "--json", "--config", str(config), user=user).wait()


def test_a_missing_folder_for_sqlite(
    world_of: Callable[[Database], World], sqlite_database: Database, tmp_path: Path
) -> None:
    world = world_of(sqlite_database)
    with RawServer(answers(response(GOOD))) as server:
        outcome = world.sync(server.base_url, database_url=f"sqlite:///{tmp_path}/none/numbers.db")
    world.assert_unharmed(outcome, 77)
    assert len(runs(world.database)) == 1
