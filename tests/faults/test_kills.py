"""A share of the kill campaign small enough for every build."""

import subprocess
import sys
from pathlib import Path

from tests.databases import Database
from tests.faults.jobs import clean_environment
from tests.faults.kill_campaign import Campaign

KILLS = 20


def test_twenty_kills_at_random_leave_the_old_snapshot_or_the_new(migrated_database: Database, tmp_path: Path) -> None:
    tally = Campaign(migrated_database, tmp_path, seed=7, whole_processes=False).run(KILLS)
    assert tally.kills == KILLS


def test_a_signal_that_arrives_where_python_lets_no_exception_out_is_not_lost(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, sys, time, weakref\n"
        "from etl.cli import _raise_on_signals\n"
        "from etl.errors import Interrupted\n"
        "class Thing: pass\n"
        "def callback(_): os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.01)\n"
        "_raise_on_signals()\n"
        "thing = Thing()\n"
        "reference = weakref.ref(thing, callback)\n"
        "try:\n"
        "    del thing\n"
        "    time.sleep(10)\n"
        "except Interrupted as interruption:\n"
        "    sys.exit(interruption.exit_code)\n"
    )
    result = subprocess.run(
        [sys.executable, str(script)], env=clean_environment(), capture_output=True, text=True, check=False, timeout=20
    )
    assert (result.returncode, result.stderr) == (143, "")


def test_a_signal_in_the_middle_of_an_import_waits_for_its_end(tmp_path: Path) -> None:
    """An exception there made msgspec crash, and the process end with 139."""
    (tmp_path / "slow.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nwhole = sum(range(1000))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time\n"
        "from etl.cli import _raise_on_signals\n"
        "from etl.errors import Interrupted\n"
        "_raise_on_signals()\n"
        "import slow\n"
        "try:\n"
        "    time.sleep(10)\n"
        "except Interrupted as interruption:\n"
        "    print(slow.whole)\n"
        "    sys.exit(interruption.exit_code)\n"
    )
    result = subprocess.run(
        [sys.executable, str(script)], env=clean_environment(), capture_output=True, text=True, check=False, timeout=20
    )
    assert (result.returncode, result.stdout, result.stderr) == (143, "499500\n", "")
