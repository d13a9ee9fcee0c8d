"""A share of the kill campaign small enough for every build."""

from pathlib import Path

from tests.databases import Database
from tests.faults.kill_campaign import Campaign

KILLS = 20


def test_twenty_kills_at_random_leave_the_old_snapshot_or_the_new(migrated_database: Database, tmp_path: Path) -> None:
    tally = Campaign(migrated_database, tmp_path, seed=7, whole_processes=False).run(KILLS)
    assert tally.kills == KILLS
