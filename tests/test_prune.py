"""Old rows go, and nothing goes that anything which stays still needs."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from etl.config import Retention, load_config
from etl.db.engine import open_engine
from etl.db.locks import exclusive_lock, source_lock
from etl.errors import ConfigError
from etl.load.prune import carry_out, forget, make_plan
from tests import command, stored
from tests.command import Ended
from tests.databases import Database
from tests.loading import Loader, loading
from tests.snapshots import bad, record

DAY = 86_400.0
HISTORY = ("virtual_numbers_history", "redirect_numbers_history")


@pytest.fixture
def loader(migrated_database: Database) -> Iterator[Loader]:
    with loading(migrated_database) as made:
        yield made


def age(database: Database, days: dict[int, float], source: str = "main") -> None:
    """Let runs have happened so many days ago, in all that tells of them."""
    now = datetime.now(UTC)
    for run, ago in days.items():
        # The form that each database's own client would use.
        moment: Any = now - timedelta(days=ago)
        if database.kind != "postgresql":
            moment = moment.replace(tzinfo=None)
        if database.kind == "sqlite":
            moment = f"{moment:%Y-%m-%d %H:%M:%S.%f}"
        with database.connect() as connection:
            parameters = {"moment": moment, "run": run, "source": source}
            update = "UPDATE sync_runs SET started_at = :moment, finished_at = :moment WHERE id = :run"
            connection.execute(text(update), parameters)
            for table in ("virtual_numbers", "redirect_numbers", *HISTORY):
                update = f"UPDATE {table} SET valid_from = :moment WHERE valid_from_run = :run"
                connection.execute(text(update), parameters)
            for table in HISTORY:
                update = f"UPDATE {table} SET valid_to = :moment WHERE valid_to_run = :run"
                connection.execute(text(update), parameters)
            connection.commit()


def prune(database: Database, **days: float) -> dict[str, int]:
    ages = Retention(**{name: value * DAY for name, value in days.items()})
    with open_engine(database.url).connect() as connection:
        with connection.begin():
            plan = make_plan(connection, "main", ages, datetime.now(UTC))
        carry_out(connection, plan)
    return plan.counts


def run_ids(database: Database) -> list[int]:
    return [row["id"] for row in stored.runs(database)]


def count(database: Database, table: str, source: str = "main") -> int:
    return int(database.scalar(f"SELECT count(*) FROM {table} WHERE source = :source", source=source))


def dangling(database: Database) -> set[int]:
    """Return runs that some row names though they are gone."""
    named: set[int] = set()
    for table in ("virtual_numbers", "redirect_numbers", *HISTORY, "quarantined_records"):
        named |= {run for (run,) in database.rows(f"SELECT valid_from_run FROM {table}")}
        if table in (*HISTORY, "quarantined_records"):
            query = f"SELECT valid_to_run FROM {table} WHERE valid_to_run IS NOT NULL"
            named |= {run for (run,) in database.rows(query)}
    return named - set(run_ids(database))


def test_everything_is_kept_unless_ages_are_given(loader: Loader) -> None:
    for number in range(4):
        loader.load([record(1, {9: str(number + 1)}, comment=str(number)), bad(number + 10)])
    age(loader.database, dict.fromkeys(range(1, 5), 10_000))
    before = stored.dump(loader.database)

    assert set(prune(loader.database).values()) == {0}
    assert stored.dump(loader.database) == before


def test_history_goes_with_its_age_and_later_states_can_still_be_told(loader: Loader) -> None:
    runs = [
        loader.load([record(1, {9: f"7495000000{number}"}, comment=str(number)), record(20 + number)])
        for number in range(6)
    ]
    age(loader.database, dict(zip(runs, (100, 80, 60, 40, 20, 0), strict=True)))
    states = {run: stored.live_after(loader.database, run) for run in runs}
    counts = prune(loader.database, history=50)

    # The runs of 80 and 60 days ago each closed number 1, its redirect, and one number that went.
    assert (counts["virtual_numbers_history"], counts["redirect_numbers_history"]) == (4, 2)
    assert {run: stored.live_after(loader.database, run) for run in runs[2:]} == {run: states[run] for run in runs[2:]}
    assert stored.live_after(loader.database, runs[1]) != states[runs[1]]
    young = min(
        row["valid_to_run"] for table in HISTORY for row in stored.select(loader.database, f"SELECT * FROM {table}")
    )
    assert young == runs[3]
    assert prune(loader.database, history=50)["virtual_numbers_history"] == 0


def test_history_is_cut_between_runs_even_where_the_clock_was_set_back(loader: Loader) -> None:
    runs = [loader.load([record(1, comment=str(number)), record(2, {9: str(number)})]) for number in range(1, 6)]
    # The fourth run came after the third, whatever its time says.
    age(loader.database, dict(zip(runs, (100, 90, 20, 70, 10), strict=True)))
    states = {run: stored.live_after(loader.database, run) for run in runs}
    prune(loader.database, history=50)

    assert {run: stored.live_after(loader.database, run) for run in runs[1:]} == {run: states[run] for run in runs[1:]}


def test_all_history_of_a_source_that_long_stood_still_may_go(loader: Loader) -> None:
    runs = [loader.load([record(1, comment=str(number))]) for number in range(3)]
    age(loader.database, dict.fromkeys(runs, 100))
    live = stored.live(loader.database)
    prune(loader.database, history=50)

    assert count(loader.database, "virtual_numbers_history") == 0
    assert stored.live(loader.database) == stored.live_after(loader.database, runs[-1]) == live


def test_runs_go_unless_something_that_stays_names_them(loader: Loader) -> None:
    first = loader.load([record(1), record(2), record(3, {9: "7"})])  # 1 and its redirect are live from it
    changed = loader.load([record(1), record(2, comment="б"), record(3, {9: "7"})])
    idle = [loader.load([record(1), record(2, comment="б"), record(3, {9: "7"})]) for _ in range(3)]
    quarantining = loader.load([record(1), record(2, comment="б"), record(3, {9: "7"}), bad(4)])
    success = loader.load([record(1), record(2, comment="б"), record(3, {9: "7"}), bad(4)])
    refused = [loader.sync(b"null").run_id for _ in range(3)]
    age(loader.database, dict.fromkeys(run_ids(loader.database), 100))
    counts = prune(loader.database, runs=50)

    assert counts["sync_runs"] == len(idle) + 2
    assert run_ids(loader.database) == [first, changed, quarantining, success, refused[-1]]
    assert dangling(loader.database) == set()


def test_no_run_younger_than_the_age_and_none_in_progress_goes(loader: Loader) -> None:
    runs = [loader.load([]) for _ in range(5)]
    age(loader.database, dict(zip(runs, (60, 60, 40, 60, 0), strict=True)))
    loader.database.execute(f"UPDATE sync_runs SET outcome = 'running' WHERE id = {runs[3]}")
    prune(loader.database, runs=50)

    assert run_ids(loader.database) == runs[2:]


def test_closed_quarantine_goes_by_the_time_it_was_closed(loader: Loader) -> None:
    runs = [loader.load(snapshot) for snapshot in ([bad(1), bad(2), bad(3)], [bad(2), bad(3)], [bad(3)], [bad(3)])]
    age(loader.database, dict(zip(runs, (100, 80, 20, 0), strict=True)))
    counts = prune(loader.database, quarantine=50)

    assert counts["quarantined_records"] == 1
    assert [row["number_id"] for row in stored.quarantined(loader.database, still=False)] == [2, 3]


def test_what_goes_together_takes_its_runs_along(loader: Loader) -> None:
    runs = [loader.load([record(1, comment=str(number)), bad(number + 10)]) for number in range(6)]
    age(loader.database, dict(zip(runs, (100, 90, 80, 70, 20, 0), strict=True)))
    counts = prune(loader.database, runs=50, quarantine=50, history=50)

    # What the last but one run closed was opened by the one before, which stays for it.
    assert run_ids(loader.database) == runs[3:]
    assert counts["sync_runs"] == 3
    assert dangling(loader.database) == set()


def test_more_rows_than_fit_one_transaction_go_all(loader: Loader) -> None:
    many = range(1, 1_301)
    loader.load([record(number, {number: "7"}) for number in many])
    emptied = loader.load([])
    loader.load([])
    age(loader.database, {1: 100, emptied: 100})
    counts = prune(loader.database, history=50, runs=50)

    assert (counts["virtual_numbers_history"], counts["redirect_numbers_history"]) == (1_300, 1_300)
    assert [count(loader.database, table) for table in HISTORY] == [0, 0]
    assert run_ids(loader.database) == [3]


def test_other_sources_are_not_touched(loader: Loader) -> None:
    for source in ("main", "other"):
        for comment in ("а", "б"):
            loader.load([record(1, {9: "7"}, comment=comment), bad(5)], source=source)
        loader.load([record(1, comment="в")], source=source)
    age(loader.database, dict.fromkeys(range(1, 7), 100))
    before = {table: count(loader.database, table, "other") for table in stored.DUMPED if table != "number_redirects"}
    prune(loader.database, history=1, runs=1, quarantine=1)
    with open_engine(loader.database.url).connect() as connection:
        forget(connection, "main")

    assert {table: count(loader.database, table, "other") for table in before} == before
    assert {count(loader.database, table) for table in before} == {0}


# The command line -----------------------------------------------------------------------------------------------------


@pytest.fixture
def grown(loader: Loader) -> Loader:
    """Give a loader of two sources with history, of which `gone` will not be configured."""
    for source in ("gone", "main"):
        loader.load([record(1, {9: "7"}), record(2), bad(5)], source=source)
        loader.load([record(1, {9: "8"}, comment="б"), record(2)], source=source)
        loader.load([record(1, {9: "8"}, comment="б"), record(2)], source=source)
    age(loader.database, dict.fromkeys(range(1, 7), 100))
    return loader


def etl(loader: Loader, folder: Path, *arguments: str, more: str = "") -> Ended:
    (folder / "config.toml").write_text(f'[database]\nurl = "{loader.database.url}"\n{more}')
    return command.run(*arguments, cwd=folder)


AGES = '[retention]\nruns = "50d"\nquarantine = "50d"\nhistory = "50d"\n'


def test_pruning_is_tried_without_harm_and_then_done(grown: Loader, tmp_path: Path) -> None:
    before = stored.dump(grown.database)
    tried = etl(grown, tmp_path, "prune", "--dry-run", "--json", more=AGES)
    assert tried.code == 0
    assert stored.dump(grown.database) == before

    done = etl(grown, tmp_path, "prune", "--json", more=AGES)
    expected = {
        "virtual_numbers_history": 1, "redirect_numbers_history": 1, "quarantined_records": 1, "sync_runs": 0,
    }  # fmt: skip
    assert done.code == 0
    assert done.document == {"dry_run": False, "pruned": tried.document["pruned"]}
    assert done.document["pruned"] == [{"source": source, "rows": expected} for source in ("gone", "main")]
    assert count(grown.database, "virtual_numbers_history") == 0


def test_pruning_prints_a_table_and_says_when_all_is_kept(grown: Loader, tmp_path: Path) -> None:
    table = etl(grown, tmp_path, "prune", "--dry-run", more=AGES).stdout.splitlines()
    assert table[0] == "would delete, by table:"
    assert [line.split() for line in table[2:]] == [["gone", "1", "1", "1", "0"], ["main", "1", "1", "1", "0"]]
    for more in ("", '[retention]\nruns = ""\n'):
        assert "kept for ever" in etl(grown, tmp_path, "prune", more=more).stdout


def test_a_source_that_is_gone_is_retired_by_a_run_of_its_own(grown: Loader, tmp_path: Path) -> None:
    states = stored.live_after(grown.database, 3, "gone")
    before = stored.dump(grown.database)
    tried = etl(grown, tmp_path, "prune", "--source", "gone", "--dry-run")
    assert (tried.code, stored.dump(grown.database)) == (0, before)
    ended = etl(grown, tmp_path, "prune", "--source", "gone", "--json")

    row = stored.last_run(grown.database, "gone")
    assert ended.code == 0, ended.stderr
    assert (row["_origin"], row["outcome"], row["numbers_removed"], row["redirects_removed"]) == (
        "prune",
        "succeeded",
        2,
        1,
    )
    assert (row["body_bytes"], row["body_sha256"]) == (None, None)
    assert ended.document["runs"][0]["run_id"] == row["id"]
    assert stored.live(grown.database, "gone") == {}
    assert stored.live_after(grown.database, 3, "gone") == states != {}
    assert stored.live(grown.database) != {}


def test_a_configured_source_is_neither_retired_nor_forgotten(grown: Loader, tmp_path: Path) -> None:
    before = stored.dump(grown.database)
    for arguments in ([], ["--forget", "--yes"]):
        ended = etl(grown, tmp_path, "prune", "--source", "main", *arguments)
        assert (ended.code, "is configured" in ended.error) == (2, True)
    assert stored.dump(grown.database) == before


def test_a_source_is_forgotten_only_with_consent(grown: Loader, tmp_path: Path) -> None:
    before = stored.dump(grown.database)
    asked = etl(grown, tmp_path, "prune", "--source", "gone", "--forget")
    tried = etl(grown, tmp_path, "prune", "--source", "gone", "--forget", "--dry-run", "--json")
    assert (asked.code, tried.code) == (2, 0)
    assert "2 of virtual_numbers" in asked.error
    assert "--yes" in asked.error
    assert tried.document["forgotten"]["rows"]["sync_runs"] == 3
    assert stored.dump(grown.database) == before

    (tmp_path / "archive" / "gone").mkdir(parents=True)
    done = etl(
        grown, tmp_path, "prune", "--source", "gone", "--forget", "--yes", more='[archive]\ndirectory = "archive"\n'
    )
    assert done.code == 0
    assert f"still in {Path('archive') / 'gone'}" in done.stdout
    assert {count(grown.database, table, "gone") for table in stored.DUMPED if table != "number_redirects"} == {0}
    assert count(grown.database, "virtual_numbers") == 2


def test_a_source_that_is_being_synced_is_left_alone(grown: Loader, tmp_path: Path) -> None:
    with open_engine(grown.database.url).connect() as other, exclusive_lock(other, source_lock("gone")):
        retired = etl(grown, tmp_path, "prune", "--source", "gone")
        forgotten = etl(grown, tmp_path, "prune", "--source", "gone", "--forget", "--yes")

    assert (retired.code, forgotten.code) == (75, 75)
    assert len(stored.live(grown.database, "gone")) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--forget"], 2, "--source"),
        (["--yes"], 2, "--source"),
        (["--source", "gnoe"], 2, "it has: gone, main"),
        (["--source", "gone", "--yes"], 2, "--forget"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(
    grown: Loader, tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    before = stored.dump(grown.database)
    ended = etl(grown, tmp_path, "prune", *arguments)

    assert (ended.code, ended.stdout) == (code, "")
    assert says in ended.error
    assert stored.dump(grown.database) == before


def test_without_tables_there_is_nothing_to_prune_and_none_is_made(tmp_path: Path) -> None:
    for arguments in ([], ["--source", "gone"], ["--source", "gone", "--forget", "--yes"]):
        ended = command.run("prune", *arguments, cwd=tmp_path)
        assert (ended.code, "no tables" in ended.error) == (78, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("value", "seconds"), [('"7d"', 7 * DAY), ("60", 60), ('""', None)])
def test_ages_are_durations_and_empty_ones_last_for_ever(tmp_path: Path, value: str, seconds: float | None) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[retention]\nhistory = {value}\n")

    assert load_config(str(file), {}).retention == Retention(history=seconds)


@pytest.mark.parametrize("value", ["0", "-1", '"soon"', "true", '"200000d"'])
def test_bad_ages_are_refused(tmp_path: Path, value: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[retention]\nruns = {value}\n")

    with pytest.raises(ConfigError, match=r"retention\.runs"):
        load_config(str(file), {})
