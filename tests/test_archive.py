"""Bodies are kept before they are loaded, and loading them again gives the same database."""

import gzip
import hashlib
import json
import random
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from etl.config import Archive, Config, Source
from etl.db.locks import exclusive_lock, source_lock
from etl.events import Action
from etl.extract.archive import StoredBody, stored_bodies
from etl.pipeline import file_job, sync
from etl.records import RunResult
from etl.recovery import accepted_bodies, find_body, rebuild, replay_job
from tests import command, stored
from tests.databases import Database, Databases
from tests.loading import Loader, loading
from tests.snapshots import Record, bad, body, record


@pytest.fixture
def loader(migrated_database: Database, tmp_path: Path) -> Iterator[Loader]:
    with loading(migrated_database) as made:
        yield archiving(made, tmp_path)


@pytest.fixture
def on_sqlite(sqlite_databases: Databases, tmp_path: Path) -> Iterator[Loader]:
    """Give a loader for what has nothing to do with the kind of database."""
    with sqlite_databases.migrated() as database, loading(database) as made:
        yield archiving(made, tmp_path)


def archiving(loader: Loader, folder: Path, keep: int = 30) -> Loader:
    config = replaced(loader.config, archive=Archive(directory=str(folder / "archive"), keep=keep))
    loader.config = replaced(config, sources=(Source(name="main", base_url=loader.server.base_url),))
    return loader


def replaced(config: Config, **sections: Any) -> Config:
    return msgspec.structs.replace(config, **sections)


def kept(loader: Loader) -> list[StoredBody]:
    return stored_bodies(loader.config.archive.directory, "main")


def outcomes(loader: Loader) -> list[tuple[int, str | None]]:
    return [(one.run_id, one.outcome) for one in kept(loader)]


def replay(loader: Loader, run: int, *, dry_run: bool = False, **options: Any) -> RunResult:
    job = partial(replay_job, loader.config, find_body(loader.config, run), loader.events.append, **options)
    return sync(job, loader.config.source("main"), loader.events.append, dry_run=dry_run)


def rebuilt(loader: Loader, database: Database, **options: Any) -> list[RunResult]:
    config = replaced(loader.config, database=replaced(loader.config.database, url=database.url))  # type: ignore[arg-type] # any struct
    bodies = accepted_bodies(config, config.source("main"), **options)
    return list(rebuild(config, bodies, loader.events.append, **options))


def content(database: Database) -> dict[str, list[dict[str, Any]]]:
    """Return live tables, timelines and views, each run named by the one that received its body from the source."""
    received = {row["id"]: row["_replay_of"] or row["id"] for row in stored.runs(database)}

    def renamed(row: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
        return {name: received.get(cell, cell) if name.endswith("_run") else cell for name, cell in row}

    dumped = stored.dump(database)
    tables = dumped.keys() - {"sync_runs", "quarantined_records"}
    return {table: sorted(map(renamed, dumped[table]), key=repr) for table in sorted(tables)}


# Storing --------------------------------------------------------------------------------------------------------------


def test_a_body_is_kept_as_it_came_for_its_owner_alone_under_the_number_of_its_run(on_sqlite: Loader) -> None:
    received = body([record(1), record(2)])
    run = on_sqlite.load(received)

    (one,) = kept(on_sqlite)
    assert (one.run_id, one.outcome, one.size) == (run, "succeeded", len(received))
    assert one.path.name.startswith(f"{run:012d}-{datetime.now(UTC):%Y}")
    assert gzip.decompress(one.path.read_bytes()) == received
    assert one.sha256 == hashlib.sha256(received).hexdigest() == stored.last_run(on_sqlite.database)["body_sha256"]
    assert one.path.is_file()
    assert stat.S_IMODE(one.path.stat().st_mode) == 0o600
    folders = (one.path.parent, one.path.parent.parent)
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700, 0o700]
    assert [path.name for path in one.path.parent.iterdir()] == [one.path.name]


def test_refused_bodies_are_kept_too_and_say_so(on_sqlite: Loader) -> None:
    on_sqlite.guarded()
    on_sqlite.load([record(1)])
    on_sqlite.sync(b"[]")
    on_sqlite.sync(b'{"error": "maintenance"}')
    on_sqlite.sync(b"")

    assert [outcome for _, outcome in outcomes(on_sqlite)] == ["succeeded", "refused", "refused", "refused"]
    assert [gzip.decompress(one.path.read_bytes()) for one in kept(on_sqlite)[1:]] == [
        b"[]",
        b'{"error": "maintenance"}',
        b"",
    ]


def test_a_dry_run_keeps_nothing(on_sqlite: Loader) -> None:
    assert on_sqlite.sync([record(1)], dry_run=True).outcome == "succeeded"

    assert not Path(on_sqlite.config.archive.directory).exists()


def test_a_body_from_a_file_is_kept_and_a_replayed_one_not_again(on_sqlite: Loader, tmp_path: Path) -> None:
    file = tmp_path / "saved.json"
    file.write_bytes(body([record(1)]))
    main = on_sqlite.config.source("main")
    loaded = sync(partial(file_job, on_sqlite.config, main, print, str(file)), main, print)
    again = replay(on_sqlite, loaded.run_id or 0)

    assert again.outcome == "succeeded"
    assert outcomes(on_sqlite) == [(loaded.run_id, "succeeded")]


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_bodies_stay(on_sqlite: Loader, tmp_path: Path, keep: int) -> None:
    archiving(on_sqlite, tmp_path, keep)
    runs = [on_sqlite.load([record(1, comment=str(number))]) for number in range(5)]

    assert [one.run_id for one in kept(on_sqlite)] == runs[-keep:]


def test_refused_bodies_never_push_out_the_newest_accepted_one(on_sqlite: Loader, tmp_path: Path) -> None:
    archiving(on_sqlite, tmp_path, keep=2)
    on_sqlite.load([record(1)])
    accepted = on_sqlite.load([record(2)])
    refused = [on_sqlite.sync(b"null").run_id for _ in range(4)]

    assert outcomes(on_sqlite) == [(accepted, "succeeded"), *((run, "refused") for run in refused[-2:])]


def test_a_body_that_cannot_be_kept_is_not_loaded(loader: Loader, tmp_path: Path) -> None:
    loader.load([record(1)])
    (tmp_path / "archive").rename(tmp_path / "moved")
    (tmp_path / "archive").write_text("a file where the folder should be")
    result = loader.sync([record(1), record(2)])

    assert result.exit_code == 74
    run = stored.last_run(loader.database)
    assert run["error_code"] == "io_error"
    assert (run["http_status"], run["body_bytes"]) == (200, len(body([record(1), record(2)])))
    assert run["body_sha256"] == hashlib.sha256(body([record(1), record(2)])).hexdigest()
    assert set(stored.live(loader.database)) == {1}


def test_what_a_killed_run_left_half_written_is_removed(on_sqlite: Loader) -> None:
    on_sqlite.load([record(1)])
    half = kept(on_sqlite)[0].path.with_name(".000000000001-20260101T000000Z-00.json.gz.part")
    half.write_bytes(b"half")
    on_sqlite.load([record(2)])

    assert not half.exists()
    assert len(list(half.parent.iterdir())) == 2


def test_the_body_of_a_run_that_was_killed_while_loading_is_noted_as_failed_by_the_next(
    postgresql_databases: Databases, tmp_path: Path
) -> None:
    with postgresql_databases.migrated() as database, loading(database) as loader:
        archiving(loader, tmp_path)
        config = written(loader, tmp_path)
        loader.server.serve_body(body([record(1)]))
        with database.connect() as other:
            other.execute(text("LOCK TABLE virtual_numbers IN SHARE MODE"))
            process = command.start(
                "sync", cwd=tmp_path, variables={"ETL_CONFIG": config, "ETL_TOKEN": "8f1c2d3e-token"}
            )
            eventually(lambda: len(kept(loader)) == 1)
            process.kill()
            process.communicate(timeout=30)
        assert outcomes(loader) == [(1, None)]

        # A session can outlive its client for a moment, and its lock with it.
        eventually(lambda: loader.sync([record(2)]).outcome == "succeeded")

        assert [outcome for _, outcome in outcomes(loader)] == ["failed", "succeeded"]


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_an_untidy_archive_fails_no_run(on_sqlite: Loader, tmp_path: Path) -> None:
    archiving(on_sqlite, tmp_path, keep=1)
    on_sqlite.load([record(1)])
    (old,) = kept(on_sqlite)
    content_of_old = old.path.read_bytes()
    old.path.unlink()
    old.path.mkdir()  # which no unlink() removes
    result = on_sqlite.sync([record(2)])
    assert result.outcome == "succeeded"
    assert len(on_sqlite.told(Action.ARCHIVE_UNTIDY)) == 1

    old.path.rmdir()
    old.path.write_bytes(content_of_old)
    on_sqlite.load([record(3)])
    assert len(kept(on_sqlite)) == 1


# Replaying ------------------------------------------------------------------------------------------------------------


def test_a_replay_is_a_run_that_says_what_it_repeats(loader: Loader) -> None:
    first = loader.load([record(1)])
    loader.load([record(2)])
    result = replay(loader, first, older=True)

    row = stored.last_run(loader.database)
    assert result.outcome == "succeeded"
    assert (row["_origin"], row["_replay_of"], row["outcome"]) == ("archive", first, "succeeded")
    assert (row["numbers_added"], row["numbers_removed"], row["http_status"]) == (1, 1, None)
    assert set(stored.live(loader.database)) == {1}


def test_an_older_body_replaces_a_newer_one_only_when_told_to(loader: Loader) -> None:
    first, second = loader.load([record(1)]), loader.load([record(2)])
    result = replay(loader, first)
    tried = replay(loader, first, dry_run=True)

    assert (result.exit_code, result.run_id, tried.exit_code) == (2, None, 2)
    assert f"older than that of run {second}" in str(result.error)
    assert "--older" in str(result.error)
    assert len(stored.runs(loader.database)) == 2
    assert replay(loader, second).counts == replay(loader, second, dry_run=True).counts
    # Going back does not make what lies between the newest.
    assert replay(loader, first, older=True).outcome == "succeeded"
    assert replay(loader, first).exit_code == 2


def test_verifying_compares_with_the_body_that_is_live_be_it_an_older_one(on_sqlite: Loader, tmp_path: Path) -> None:
    first = on_sqlite.load([record(1)])
    on_sqlite.load([record(2)])
    replay(on_sqlite, first, older=True)
    verify = partial(command.run, "verify", cwd=tmp_path, variables={"ETL_CONFIG": written(on_sqlite, tmp_path)})
    clean = verify()
    on_sqlite.database.execute("DELETE FROM virtual_numbers")

    assert clean.code == 0, clean.stdout
    assert verify().code == 65


def test_a_refused_body_is_judged_again_and_passes_with_consent(loader: Loader) -> None:
    loader.guarded()
    loader.load([record(1), record(2), record(3)])
    refused = loader.sync([record(1)]).run_id or 0

    assert replay(loader, refused).exit_code == 65
    assert replay(loader, refused, accept_removals=2).outcome == "succeeded"
    assert set(stored.live(loader.database)) == {1}
    assert outcomes(loader)[-1] == (refused, "succeeded")


def damage_stream(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def exchange(file: Path) -> None:
    file.write_bytes(gzip.compress(body([record(7)])))


@pytest.mark.parametrize("spoil", [damage_stream, cut, exchange])
def test_a_damaged_body_is_not_loaded(on_sqlite: Loader, spoil: Callable[[Path], None]) -> None:
    run = on_sqlite.load([record(number) for number in range(1, 50)])
    before = content(on_sqlite.database)
    spoil(kept(on_sqlite)[0].path)
    result = replay(on_sqlite, run)

    assert result.exit_code == 74
    assert stored.last_run(on_sqlite.database)["error_code"] == "file_damaged"
    assert content(on_sqlite.database) == before


def test_a_replay_waits_for_nobody(loader: Loader) -> None:
    run = loader.load([record(1)])
    from etl.db.engine import open_engine  # noqa: PLC0415 - this test alone takes a lock by hand

    with open_engine(loader.database.url).connect() as other, exclusive_lock(other, source_lock("main")):
        result = replay(loader, run)

    assert result.exit_code == 75


# The command line -----------------------------------------------------------------------------------------------------


def written(loader: Loader, folder: Path, more: str = "") -> str:
    """Write the loader's configuration for a process."""
    file = folder / "etl.toml"
    file.write_text(
        f'[database]\nurl = "{loader.database.url}"\n'
        f'[archive]\ndirectory = "{loader.config.archive.directory}"\n'
        f'[[sources]]\nname = "main"\nbase_url = "{loader.server.base_url}"\n{more}'
    )
    return str(file)


def test_the_list_tells_all_about_each_body_with_a_database_and_without(on_sqlite: Loader, tmp_path: Path) -> None:
    on_sqlite.load([record(1)])
    on_sqlite.sync(b"null")
    config = written(on_sqlite, tmp_path)
    listed = command.run("archive", "list", "--json", cwd=tmp_path, variables={"ETL_CONFIG": config})
    table = command.run("archive", "list", "--source", "main", cwd=tmp_path, variables={"ETL_CONFIG": config})
    lost = {"ETL_CONFIG": config, "ETL_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    without = command.run("archive", "list", "--json", cwd=tmp_path, variables=lost)

    first, second = listed.document["bodies"]
    assert (first["run"], first["source"], first["outcome"], second["outcome"]) == (1, "main", "succeeded", "refused")
    assert first["bytes"] == len(body([record(1)]))
    assert first["compressed_bytes"] == Path(first["file"]).stat().st_size
    assert hashlib.sha256(gzip.decompress(Path(first["file"]).read_bytes())).hexdigest() == first["sha256"]
    assert [line.split()[0] for line in table.stdout.splitlines()] == ["Run", "1", "2"]
    assert (without.code, without.document) == (0, listed.document)
    assert "only the archive was asked" in without.error


def test_a_person_replays_without_a_token(on_sqlite: Loader, tmp_path: Path) -> None:
    on_sqlite.load([record(1), record(3)])
    on_sqlite.load([record(2), record(3)])
    settings = {"ETL_CONFIG": written(on_sqlite, tmp_path)}
    etl = partial(command.run, cwd=tmp_path, variables=settings)
    before = content(on_sqlite.database)

    tried = etl("archive", "replay", "1", "--older", "--dry-run")
    assert tried.code == 0
    assert tried.stdout.splitlines()[0].startswith("+ number")
    assert content(on_sqlite.database) == before

    older = etl("archive", "replay", "1")
    assert (older.code, len(stored.runs(on_sqlite.database))) == (2, 2)

    done = etl("archive", "replay", "1", "--older", "--json")
    assert (done.code, done.document["runs"][0]["numbers_added"]) == (0, 1)
    assert set(stored.live(on_sqlite.database)) == {1, 3}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["replay", "99"], 2, "no body of run 99"),
        (["replay"], 2, "--all"),
        (["replay", "1", "--all"], 2, "takes no run"),
        (["replay", "--all", "--dry-run"], 2, "takes no run"),
        (["replay", "--all", "--accept-removals", "3"], 2, "takes no run"),
        (["replay", "--all"], 2, "needs --source"),
        (["replay", "1", "--source", "mian"], 78, "did you mean 'main'"),
    ],
)
def test_what_cannot_be_replayed_is_said_in_one_line(
    on_sqlite: Loader, tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    on_sqlite.load([record(1)])
    config = written(on_sqlite, tmp_path, '[[sources]]\nname = "other"\n')
    ended = command.run("archive", *arguments, cwd=tmp_path, variables={"ETL_CONFIG": config})

    assert (ended.code, ended.stdout) == (code, "")
    assert says in ended.error


def test_without_an_archive_there_is_nothing_to_list_or_replay(tmp_path: Path) -> None:
    for arguments in (["list"], ["replay", "1"], ["replay", "--all"]):
        ended = command.run("archive", *arguments, cwd=tmp_path)
        assert (ended.code, "archive.directory" in ended.error) == (78, True)
    assert list(tmp_path.iterdir()) == []


# Rebuilding -----------------------------------------------------------------------------------------------------------


class Life:
    """A source whose numbers change at random, with all that can befall a run."""

    def __init__(self, loader: Loader, seed: int) -> None:
        self.loader = loader
        self.draw = random.Random(seed)
        self.numbers: dict[int, Record] = {}

    def churn(self) -> list[Record]:
        for identity in self.draw.sample(range(1, 12), 4):
            if identity in self.numbers and self.draw.random() < 0.4:
                del self.numbers[identity]
                continue
            redirects = {key: f"7495{self.draw.randrange(3):07d}" for key in self.draw.sample(range(50, 56), 2)}
            made = record(identity, redirects, comment=self.draw.choice(["а", "б", None]))
            self.numbers[identity] = made if self.draw.random() < 0.8 else bad(identity)
        records = list(self.numbers.values())
        self.draw.shuffle(records)
        return records

    def step(self, kind: str) -> None:
        result = getattr(self, kind)()
        assert result.outcome == ("succeeded" if kind in ("change", "repeat", "agree", "consent") else kind), result

    def change(self) -> RunResult:
        return self.loader.sync(self.churn(), accept_removals=1000)

    def repeat(self) -> RunResult:
        return self.loader.sync(list(self.numbers.values()), accept_removals=1000)

    def refused(self) -> RunResult:
        return self.loader.sync(b"[]")

    def agree(self) -> RunResult:
        self.numbers.clear()
        return self.loader.sync(b"[]", accept_removals=1000)

    def consent(self) -> RunResult:
        """Accept by replay what was refused at first."""
        return replay(self.loader, self.refused().run_id or 0, accept_removals=1000)

    def failed(self) -> RunResult:
        """Let the database refuse the transaction after the body was kept."""
        database, columns = self.loader.database, "source, id, number, type, state, valid_from_run, valid_from"
        database.execute(
            f"INSERT INTO virtual_numbers_history ({columns}, valid_to_run, valid_to) "
            f"SELECT {columns}, -1, valid_from FROM virtual_numbers"
        )
        result = self.loader.sync([], accept_removals=1000)
        database.execute("DELETE FROM virtual_numbers_history WHERE valid_to_run = -1")
        return result


@pytest.mark.parametrize("seed", [1, 2])
def test_a_database_made_anew_from_the_archive_is_the_one_that_was_lost(
    databases: Databases, tmp_path: Path, seed: int
) -> None:
    with databases.migrated() as lost, databases.empty() as anew, loading(lost) as loader:
        archiving(loader, tmp_path)
        loader.guarded(max_removed_fraction=0.0, max_quarantined_fraction=1.0)
        life = Life(loader, seed)
        life.numbers = {99: record(99)}  # so that there is always something to remove
        kinds = ["repeat", "refused", "failed", "change", "agree", "change", "consent", "change"]
        for kind in [*kinds, *life.draw.choices(["change", "change", "repeat"], k=6)]:
            life.step(kind)
        results = rebuilt(loader, anew)

        assert {result.outcome for result in results} == {"succeeded"}
        assert len(results) == sum(outcome == "succeeded" for _, outcome in outcomes(loader))
        assert content(anew) == content(lost)
        assert len(content(anew)["virtual_numbers_timeline"]) > len(content(anew)["virtual_numbers"]) > 0


def test_a_rebuild_goes_on_where_it_was_interrupted_and_a_restored_backup_where_it_ends(
    databases: Databases, tmp_path: Path
) -> None:
    with databases.migrated() as lost, databases.migrated() as anew, loading(lost) as loader:
        archiving(loader, tmp_path)
        loader.load([record(1)])
        loader.load([record(1), record(2)])
        assert len(rebuilt(loader, anew)) == 2
        assert rebuilt(loader, anew) == []
        loader.load([record(2)])
        assert [result.facts["records_received"] for result in rebuilt(loader, anew)] == [1]

        assert content(anew) == content(lost)
        assert len(rebuilt(loader, anew, older=True)) == 3


def test_a_rebuild_stops_at_a_body_that_is_damaged(on_sqlite: Loader, sqlite_databases: Databases) -> None:
    for number in (1, 2, 3):
        on_sqlite.load([record(number)])
    cut(kept(on_sqlite)[1].path)
    with sqlite_databases.empty() as anew:
        results = rebuilt(on_sqlite, anew)
        assert [result.exit_code for result in results] == [0, 74]
        kept(on_sqlite)[1].path.unlink()
        assert [result.exit_code for result in rebuilt(on_sqlite, anew)] == [0]
        assert set(stored.live(anew)) == {3}


def test_a_new_database_numbers_its_runs_on_from_its_archive(databases: Databases, tmp_path: Path) -> None:
    with databases.migrated() as lost, databases.empty() as anew, loading(lost) as loader:
        archiving(loader, tmp_path)
        old = [loader.load([record(1, comment=str(number))]) for number in range(3)]
        loader.config = replaced(loader.config, database=replaced(loader.config.database, url=anew.url))  # type: ignore[arg-type] # any struct
        new = [loader.load([record(1, comment=str(number))]) for number in range(3, 6)]
        other = loader.load([record(2)], source="other")

        assert old == sorted(old)
        assert new == [old[-1] + 1, old[-1] + 2, old[-1] + 3]
        assert other == new[-1] + 1
        assert [row["id"] for row in stored.runs(anew)] == new
        assert [one.run_id for one in kept(loader)] == old + new


def test_a_person_rebuilds_with_one_command(on_sqlite: Loader, tmp_path: Path) -> None:
    on_sqlite.load([record(1)])
    on_sqlite.load([record(2)])
    settings = {"ETL_CONFIG": written(on_sqlite, tmp_path), "ETL_DATABASE_URL": f"sqlite:///{tmp_path}/anew.db"}
    ended = command.run("archive", "replay", "--all", "--json", cwd=tmp_path, variables=settings)
    again = command.run("archive", "replay", "--all", cwd=tmp_path, variables=settings)

    assert ended.code == 0, ended.stderr
    assert [run["body_sha256"] for run in ended.document["runs"]] == [one.sha256 for one in kept(on_sqlite)]
    assert (again.code, "no accepted body that is newer" in again.stdout) == (0, True)
    listed = command.run("archive", "list", "--json", cwd=tmp_path, variables=settings)
    assert [entry["outcome"] for entry in json.loads(listed.stdout)["bodies"]] == ["succeeded", "succeeded"]
