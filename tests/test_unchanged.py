"""A second run of the same data writes no row but its own, by the databases' own account."""

import random
import time

import pytest

from tests import stored
from tests.databases import Database
from tests.loading import Loader
from tests.snapshots import bad, record

WATCHED = ("virtual_numbers", "redirect_numbers", "virtual_numbers_history", "redirect_numbers_history",
           "quarantined_records", "sync_runs")  # fmt: skip
SNAPSHOT = [
    *(record(number, {number + 100: "74950000007", number + 200: "74950000008"}) for number in range(1, 40)),
    record(50) | {"new_field": {"b": 1, "a": [1, 2.50]}},
    bad(60),
    5,
    record(70, state="freeze"),
]


class Counters:
    """Rows written to each table since the start, as the database itself counts them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        if database.kind != "postgresql":
            self._install_triggers()

    def _install_triggers(self) -> None:
        self._database.execute("CREATE TABLE written (name VARCHAR(64))")
        for table in WATCHED:
            for verb in ("INSERT", "UPDATE", "DELETE"):
                action = f"INSERT INTO written VALUES ('{table}')"
                body = f"BEGIN {action}; END" if self._database.kind == "sqlite" else action
                self._database.execute(f"CREATE TRIGGER {table}_{verb} AFTER {verb} ON {table} FOR EACH ROW {body}")

    def read(self) -> dict[str, int]:
        if self._database.kind != "postgresql":
            rows = self._database.rows("SELECT name, count(*) FROM written GROUP BY name")
            return {table: dict(rows).get(table, 0) for table in WATCHED}
        # A session hands in its counts when it ends, which the client does not wait for.
        seen: dict[str, int] = {}
        for _ in range(40):
            now = dict(
                self._database.rows("SELECT relname, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables")
            )
            now = {table: int(now[table]) for table in WATCHED}
            if now == seen:
                break
            seen = now
            time.sleep(0.25)
        return seen


def in_another_order(element: object, chance: random.Random) -> object:
    if not isinstance(element, dict):
        return element
    made = {key: element[key] for key in chance.sample(list(element), len(element))}
    made["from_redirect_numbers"] = chance.sample(made["from_redirect_numbers"], len(made["from_redirect_numbers"]))
    return made


@pytest.mark.parametrize("order", ["the same bytes", "records, keys and redirects in another order"])
def test_the_same_snapshot_again_writes_only_its_own_run(loader: Loader, order: str) -> None:
    loader.load(SNAPSHOT)
    counters = Counters(loader.database)
    before = counters.read()
    chance = random.Random(7)
    again = SNAPSHOT
    if order != "the same bytes":
        again = [in_another_order(element, chance) for element in chance.sample(SNAPSHOT, len(SNAPSHOT))]
        assert again != SNAPSHOT
    loader.load(again)
    after = counters.read()

    written = {table: after[table] - before[table] for table in WATCHED}
    assert written == dict.fromkeys(WATCHED, 0) | {"sync_runs": 2}  # opened, then closed
    assert stored.last_run(loader.database)["numbers_unchanged"] == 40


def test_a_change_of_redirects_alone_makes_no_version_of_the_number(loader: Loader) -> None:
    loader.load([record(1, {10: "a"}), record(2)])
    loader.load([record(1, {10: "b", 11: "c"}), record(2)])

    assert loader.database.scalar("SELECT count(*) FROM virtual_numbers_history") == 0
    assert loader.database.scalar("SELECT count(*) FROM redirect_numbers_history") == 1
    counters = Counters(loader.database)
    before = counters.read()
    loader.load([record(1, {10: "b", 11: "c"}), record(2)])
    assert {table for table, count in counters.read().items() if count != before[table]} == {"sync_runs"}
