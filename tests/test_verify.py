"""`etl verify`: what hands did to the tables is found, and after a repair the next sync puts it right."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from etl.db.engine import open_engine
from etl.db.locks import exclusive_lock, source_lock
from tests.command import Ended, run
from tests.databases import Database
from tests.loading import Loader, loading
from tests.snapshots import body as body_of
from tests.snapshots import record
from tests.stored import live, live_after, select

RECORDS = [record(1, {71: "74951", 72: "74952"}), record(2), record(3, {73: "74953"}), record(4), record(5), record(6)]
LATE = "2031-01-01 00:00:00"


@pytest.fixture
def loaded(migrated_database: Database) -> Any:
    """Give a database with some history: number 6 was removed, number 4 changed, redirect 71 changed."""
    with loading(migrated_database) as loader:
        loader.load([record(1, {71: "74950", 72: "74952"}), *RECORDS[1:3], record(4, comment="earlier"), *RECORDS[4:]])
        loader.load(RECORDS[:5])
        yield loader


def verify(loader: Loader, folder: Path, *arguments: str, **variables: str) -> Ended:
    return run(
        "verify", "--json", *arguments, cwd=folder, variables={"ETL_DATABASE_URL": loader.database.url} | variables
    )


def kinds(ended: Ended) -> set[tuple[str, str, tuple[int, ...]]]:
    return {(item["kind"], item["table"], tuple(item["key"])) for item in ended.document["findings"]}


def hand(database: Database, *statements: str) -> None:
    """Edit as a person would; on SQLite that is without foreign keys, on the servers with them."""
    for statement in statements:
        database.execute(statement)


def test_what_the_job_wrote_is_clean(loaded: Loader, tmp_path: Path) -> None:
    ended = verify(loaded, tmp_path)
    assert (ended.code, ended.document["findings"]) == (0, [])
    assert run("verify", cwd=tmp_path, variables={"ETL_DATABASE_URL": loaded.database.url}).stdout == (
        "nothing was changed by hand\n"
    )


NUMBER_COPY = (
    "INSERT INTO virtual_numbers (source, id, number, type, state, valid_from_run, valid_from) "
    "SELECT source, 99, number, type, state, valid_from_run, valid_from FROM virtual_numbers WHERE id = 2"
)
REDIRECT_COPY = (
    "INSERT INTO redirect_numbers (source, virtual_number_id, id, number, valid_from_run, valid_from) "
    "SELECT source, 2, 79, number, valid_from_run, valid_from FROM redirect_numbers WHERE id = 73"
)


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        (["UPDATE virtual_numbers SET number = '0' WHERE id = 2"], {("row_edited", "virtual_numbers", (2,))}),
        (["UPDATE virtual_numbers SET comment = NULL WHERE id = 2"], {("row_edited", "virtual_numbers", (2,))}),
        (["UPDATE redirect_numbers SET number = '0' WHERE id = 73"], {("row_edited", "virtual_numbers", (3,))}),
        ([REDIRECT_COPY], {("row_edited", "virtual_numbers", (2,))}),
        (["DELETE FROM redirect_numbers WHERE id = 71"], {("row_edited", "virtual_numbers", (1,))}),
        (["UPDATE virtual_numbers SET _digest = NULL WHERE id = 2"], {("no_digest", "virtual_numbers", (2,))}),
        (
            [NUMBER_COPY],
            {("no_digest", "virtual_numbers", (99,)), ("row_count", "virtual_numbers", ())},
        ),
        (["DELETE FROM virtual_numbers WHERE id = 2"], {("row_count", "virtual_numbers", ())}),
    ],
    ids=[
        "number", "comment to null", "redirect's number", "redirect added", "redirect deleted", "digest deleted",
        "number added", "number deleted",
    ],
)  # fmt: skip
def test_an_edit_is_found_and_the_sync_after_a_repair_restores_it(
    loaded: Loader, tmp_path: Path, edits: Sequence[str], expected: set[Any]
) -> None:
    hand(loaded.database, *edits)
    ended = verify(loaded, tmp_path)
    assert (ended.code, kinds(ended)) == (65, expected)
    edited = live(loaded.database)

    assert verify(loaded, tmp_path, "--repair").code == 0
    assert live(loaded.database) == edited, "a repair itself changes no value"
    last = loaded.load(RECORDS[:5])

    assert live(loaded.database) == live_after(loaded.database, last) == expected_live(RECORDS[:5])
    assert live_after(loaded.database, last - 1) == {
        # What was there by hand stays told: it was live until this run.
        identity: edited[identity]
        for identity in edited
    }
    assert verify(loaded, tmp_path).document["findings"] == []


def expected_live(records: Sequence[dict[str, Any]]) -> dict[int, Any]:
    """Return records in the form of `stored.live`."""
    return {
        item["id"]: {name: value for name, value in item.items() if name != "from_redirect_numbers"}
        | {
            "redirects": {
                each["id"]: {"number": each["number"], "extra": None} for each in item["from_redirect_numbers"]
            }
        }
        | {"extra": None}
        for item in records
    }


def test_without_a_repair_an_unchanged_snapshot_does_not_look_at_the_edited_row(loaded: Loader) -> None:
    hand(loaded.database, "UPDATE virtual_numbers SET number = '0' WHERE id = 2")
    loaded.load(RECORDS[:5])
    assert live(loaded.database)[2]["number"] == "0", "if this fails, docs/reliability.md promises too little"


def test_a_copied_row_with_its_digests_does_not_push_out_the_number_it_was_copied_from(
    loaded: Loader, tmp_path: Path
) -> None:
    columns = "number, type, state, valid_from_run, valid_from, _fingerprint, _digest"
    hand(
        loaded.database,
        f"INSERT INTO virtual_numbers (source, id, {columns}) "
        f"SELECT source, 99, {columns} FROM virtual_numbers WHERE id = 2",
    )
    shared = {("fingerprint_shared", "virtual_numbers", (2,)), ("fingerprint_shared", "virtual_numbers", (99,))}
    assert kinds(verify(loaded, tmp_path)) >= shared | {("row_edited", "virtual_numbers", (99,))}
    assert verify(loaded, tmp_path, "--repair").code == 0
    loaded.load(RECORDS[:5])
    assert live(loaded.database) == expected_live(RECORDS[:5])
    assert verify(loaded, tmp_path).code == 0


def test_a_row_brought_back_out_of_history_stops_no_later_run(loaded: Loader, tmp_path: Path) -> None:
    columns = ", ".join(
        column for column in select(loaded.database, "SELECT * FROM virtual_numbers")[0] if column[0] != "_"
    )
    hand(
        loaded.database,
        f"INSERT INTO virtual_numbers ({columns}) SELECT {columns} FROM virtual_numbers_history WHERE id = 6",
    )
    assert ("overlap", "virtual_numbers", (6,)) in kinds(verify(loaded, tmp_path))
    refused = loaded.sync(RECORDS[:5])
    assert refused.error is not None
    assert refused.error.code == "edited_by_hand"
    assert "etl verify --repair" in str(refused.error)
    assert verify(loaded, tmp_path, "--repair").code == 0
    loaded.load(RECORDS[:5])
    assert live(loaded.database) == expected_live(RECORDS[:5])
    assert verify(loaded, tmp_path).code == 0


def test_live_rows_with_impossible_runs_and_times_begin_with_a_known_run_after_a_repair(
    loaded: Loader, tmp_path: Path
) -> None:
    hand(
        loaded.database,
        "UPDATE virtual_numbers SET valid_from_run = 999 WHERE id = 2",
        f"UPDATE virtual_numbers SET valid_from = '{LATE}' WHERE id = 3",
        f"UPDATE redirect_numbers SET valid_from = '{LATE}' WHERE id = 73",
        "UPDATE redirect_numbers SET valid_from_run = 998 WHERE id = 72",
    )
    assert kinds(verify(loaded, tmp_path)) == {
        ("run_unknown", "virtual_numbers", (2,)),
        ("time_wrong", "virtual_numbers", (3,)),
        ("time_wrong", "redirect_numbers", (3, 73)),
        ("run_unknown", "redirect_numbers", (1, 72)),
    }
    assert verify(loaded, tmp_path, "--repair").code == 0
    assert verify(loaded, tmp_path).document["findings"] == []
    assert live(loaded.database) == expected_live(RECORDS[:5])


def test_history_that_was_edited_is_told_of_and_left_alone(loaded: Loader, tmp_path: Path) -> None:
    loaded.load([record(1), *RECORDS[1:3], record(4, comment="again"), RECORDS[4]], source="other")
    columns = "source, id, number, type, state"
    hand(
        loaded.database,
        "UPDATE virtual_numbers_history SET valid_to_run = 1, valid_from_run = 2, "
        "valid_from = (SELECT started_at FROM sync_runs WHERE id = 2), "
        "valid_to = (SELECT started_at FROM sync_runs WHERE id = 1) WHERE id = 6",
        f"INSERT INTO virtual_numbers_history ({columns}, valid_from_run, valid_from, valid_to_run, valid_to) "
        f"SELECT {columns}, 3, '{LATE}', 4, '{LATE}' FROM virtual_numbers WHERE source = 'main' AND id = 5",
        f"UPDATE redirect_numbers_history SET valid_to = '{LATE}'",
    )
    before = select(loaded.database, "SELECT * FROM virtual_numbers_history ORDER BY source, id, valid_from_run")
    expected = {
        ("backwards", "virtual_numbers_history", (6, 2)),
        ("run_unknown", "virtual_numbers_history", (5, 3)),  # run 3 is the other source's, run 4 nobody's
        ("time_wrong", "redirect_numbers_history", (1, 71, 1)),
        ("overlap", "virtual_numbers", (5,)),
    }
    assert kinds(verify(loaded, tmp_path)) == expected
    repaired = verify(loaded, tmp_path, "--repair", "--source", "main")
    assert repaired.code == 65, "history is left for a person"
    assert (
        select(loaded.database, "SELECT * FROM virtual_numbers_history ORDER BY source, id, valid_from_run") == before
    )
    assert verify(loaded, tmp_path, "--source", "other").code == 0


def test_two_versions_of_one_time_and_quarantine_of_no_run_are_found(loaded: Loader, tmp_path: Path) -> None:
    loaded.load([*RECORDS[1:5], record(1, number=7)])
    columns = "source, id, number, type, state"
    hand(
        loaded.database,
        "UPDATE virtual_numbers_history SET valid_to_run = 3, "
        "valid_to = (SELECT started_at FROM sync_runs WHERE id = 3) WHERE id = 6",
        f"INSERT INTO virtual_numbers_history ({columns}, valid_from_run, valid_from, valid_to_run, valid_to) "
        f"SELECT {columns}, 2, (SELECT started_at FROM sync_runs WHERE id = 2), 3, "
        "(SELECT started_at FROM sync_runs WHERE id = 3) FROM virtual_numbers_history WHERE id = 6",
        "UPDATE quarantined_records SET valid_to_run = 1",
    )
    found = kinds(verify(loaded, tmp_path))
    assert ("overlap", "virtual_numbers_history", (6, 1)) in found
    assert [table for kind, table, _ in found if kind == "run_unknown"] == ["quarantined_records"]
    assert len(found) == 2


def test_a_redirect_without_its_number_is_found_and_deleted(sqlite_databases: Any, tmp_path: Path) -> None:
    # The servers keep foreign keys whoever writes; SQLite only for those who ask.
    with sqlite_databases.migrated() as database, loading(database) as loader:
        loader.load(RECORDS)
        database.execute("DELETE FROM virtual_numbers WHERE id = 3")
        assert kinds(verify(loader, tmp_path)) == {
            ("orphan", "redirect_numbers", (3, 73)),
            ("row_count", "virtual_numbers", ()),
        }
        assert verify(loader, tmp_path, "--repair").code == 0
        loader.load(RECORDS)
        assert live(database) == expected_live(RECORDS)
        assert verify(loader, tmp_path).code == 0


def test_the_archive_shows_edits_that_hide_behind_right_digests(loaded: Loader, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[archive]\ndirectory = "{tmp_path}/archive"\n')
    body = tmp_path / "body.json"
    body.write_bytes(body_of(RECORDS[:5]))
    variables = {"ETL_DATABASE_URL": loaded.database.url}
    ended = run("sync", "--from-file", str(body), cwd=tmp_path, variables=variables)
    assert ended.code == 0, ended.stderr
    assert verify(loaded, tmp_path).document["findings"] == []
    hand(
        loaded.database,
        "UPDATE virtual_numbers SET _digest = "
        "(SELECT d FROM (SELECT _digest AS d FROM virtual_numbers WHERE id = 4) AS x) WHERE id = 3",
        "DELETE FROM virtual_numbers WHERE id = 5",
        NUMBER_COPY,
    )
    hand(
        loaded.database,
        # 2 takes over the fingerprint of 4: neither value nor digest is wrong.
        "UPDATE virtual_numbers SET _fingerprint = "
        "(SELECT f FROM (SELECT _fingerprint AS f FROM virtual_numbers WHERE id = 4) AS x) WHERE id = 2",
        "UPDATE virtual_numbers SET _fingerprint = NULL WHERE id = 4",
    )
    assert kinds(verify(loaded, tmp_path)) == {
        ("fingerprint_elsewhere", "virtual_numbers", (2,)),
        ("digest_wrong", "virtual_numbers", (3,)),
        ("row_missing", "virtual_numbers", (5,)),
        ("no_digest", "virtual_numbers", (99,)),
    }
    assert verify(loaded, tmp_path, "--repair").code == 0
    assert run("sync", "--from-file", str(body), cwd=tmp_path, variables=variables).code == 0
    assert live(loaded.database) == expected_live(RECORDS[:5])
    assert verify(loaded, tmp_path).code == 0


def test_repair_keeps_out_of_a_run_in_progress(loaded: Loader, tmp_path: Path) -> None:
    with open_engine(loaded.database.url).connect() as holder, exclusive_lock(holder, source_lock("main")):
        assert verify(loaded, tmp_path).code == 0, "looking needs no lock"
        assert verify(loaded, tmp_path, "--repair").code == 75


def test_all_that_a_reading_command_reads_is_of_one_moment(loaded: Loader) -> None:
    count = "SELECT count(*) FROM virtual_numbers"
    with open_engine(loaded.database.url, read_only=True).connect() as reader:
        before = reader.exec_driver_sql(count).scalar()
        loaded.load(RECORDS[:4])
        assert reader.exec_driver_sql(count).scalar() == before
        reader.rollback()
        assert reader.exec_driver_sql(count).scalar() == 4


def test_errors_and_findings_show_neither_numbers_nor_comments(loaded: Loader, tmp_path: Path) -> None:
    hand(loaded.database, "UPDATE virtual_numbers SET number = '79990001122', comment = 'hidden' WHERE id = 2")
    for arguments in ((), ("--repair",), ("--json",)):
        ended = run("verify", *arguments, cwd=tmp_path, variables={"ETL_DATABASE_URL": loaded.database.url})
        assert "79990001122" not in ended.stdout + ended.stderr
        assert "hidden" not in ended.stdout + ended.stderr
    assert (
        run("verify", "--source", "typo", cwd=tmp_path, variables={"ETL_DATABASE_URL": loaded.database.url}).code == 78
    )


def test_an_empty_database_is_78_for_there_is_nothing_to_compare(databases: Any, tmp_path: Path) -> None:
    with databases.empty() as database:
        ended = run("verify", cwd=tmp_path, variables={"ETL_DATABASE_URL": database.url})
        assert (ended.code, ended.stdout) == (78, "")
        assert "etl sync" in ended.error
