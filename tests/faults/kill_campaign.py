"""Kill the job at random instants, again and again: nothing may be lost, mixed, or left for anybody to clean up.

`python -m tests.faults.kill_campaign --database postgresql --kills 500` runs by itself and prints one line of totals;
`test_kills.py` runs a small share of it.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from etl.sandbox import SandboxServer
from tests.conftest import create_schema
from tests.databases import SERVER_TYPES, Database, ServerDatabases, SQLiteDatabases
from tests.databases_servers import private_server
from tests.faults.jobs import ForkedJob, Outcome, run_new_process, write_config
from tests.faults.world import Snapshot, body, check_accepted, check_timelines, expected, generation, live

_SIZE = 200
_STRIKES_PER_KILL = 5
_PATIENCE_SECONDS = 20.0
"""How long a server may take to notice that a client is dead and give up its lock."""


@dataclass
class Tally:
    """What became of the kills."""

    kills: int = 0
    """Processes that the signal ended; one that came too late is none."""
    late: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    """How the killed runs ended: "no run", "old kept", "new loaded"."""
    busy: int = 0
    """Next runs that found the lock still held, and ended with 75."""

    def line(self, kind: str, seconds: float) -> str:
        fates = ", ".join(f"{count} {fate}" for fate, count in sorted(self.fates.items()))
        return (
            f"{kind}: {self.kills} kills ({fates}), {self.late} came too late, "
            f"{self.busy} waits for a dead client's lock, {seconds:.0f} s"
        )


class Campaign:
    """A database, a source whose numbers change, and a job that is killed while it brings the one to the other."""

    def __init__(self, database: Database, folder: Path, seed: int, *, whole_processes: bool) -> None:
        """`whole_processes`: kill processes that are new, and so also while they start; else forked ones."""
        self._database = database
        self._folder = folder
        self._random = random.Random(seed)
        self._whole = whole_processes
        self._server = SandboxServer()
        self._config = str(write_config(folder, database.url, {"main": self._server.base_url}))
        self._generation = 0
        self.tally = Tally()
        self.accepted: dict[int, Snapshot] = {}

    def run(self, kills: int) -> Tally:
        with self._server:
            self._serve_next()
            self._load()
            self._load()  # the first of a process that forks is slow
            spans = [self._load_next() for _ in range(3)]
            whole, loading = (min(times) for times in zip(*spans, strict=True))
            for number in range(_STRIKES_PER_KILL * kills):
                if self.tally.kills == kills:
                    break
                self._serve_next()
                # Spread over the whole run; half of them fall after the request, where there is more to break.
                asked = number % 4 >= 2
                delay = self._random.uniform(0, loading if asked else whole)
                self._strike(signal.SIGKILL if number % 2 else signal.SIGTERM, delay, asked=asked)
                if number % 50 == 49:
                    check_timelines(self._database)
            check_accepted(self._database, self.accepted)
        return self.tally

    def _serve_next(self) -> None:
        self._generation += 1
        self._snapshot = generation(self._generation, _SIZE)
        self._server.serve_body(body(self._snapshot))

    def _load_next(self) -> tuple[float, float]:
        self._serve_next()
        return self._load()

    def _load(self) -> tuple[float, float]:
        """Run undisturbed and check that the snapshot is live; returns the seconds, and those after the request."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while (outcome := self._sync()).code == 75 and time.monotonic() < end:
            self.tally.busy += 1
            time.sleep(0.05)
        ended = time.monotonic()
        assert outcome.code == 0, (outcome.code, outcome.errors)
        self.accepted[outcome.runs[0]["run_id"]] = self._snapshot
        assert live(self._database) == expected(self._snapshot)
        assert self._database.scalar("SELECT count(*) FROM sync_runs WHERE outcome = 'running'") == 0
        return outcome.seconds, ended - self._server.requests[-1].at

    def _sync(self) -> Outcome:
        arguments = ("sync", "--json", "--config", self._config)
        if self._whole:
            return run_new_process(self._folder, *arguments)
        return ForkedJob(self._folder, *arguments).wait()

    def _strike(self, number: int, delay: float, *, asked: bool) -> None:
        before = live(self._database)
        last = self._last_run()
        outcome = self._killed(number, delay, len(self._server.requests) if asked else None)
        assert outcome.code in (0, 128 + number), (outcome.code, outcome.output, outcome.errors)
        fate = self._fate(outcome, before, last)
        if outcome.code:
            self.tally.kills += 1
            self.tally.fates[fate] += 1
        else:
            self.tally.late += 1
        self._load()

    def _fate(self, outcome: Outcome, before: object, last: int) -> str:
        # A server may go on with a commit that it was sent before its client died.
        time.sleep(0.02 if self._database.kind != "sqlite" else 0)
        rows = self._database.rows("SELECT id, outcome, error_code FROM sync_runs WHERE id > :last", last=last)
        now = live(self._database)  # raises AssertionError for an orphan
        if rows and rows[0][1] == "succeeded":
            assert now == expected(self._snapshot)
            self.accepted[rows[0][0]] = self._snapshot
            return "new loaded"
        assert now == before
        assert outcome.code != 0
        if not rows:
            return "no run"
        assert rows[0][1:] in {("running", None), ("failed", "interrupted")}, rows
        return f"old kept, {rows[0][1]}"

    def _last_run(self) -> int:
        return int(self._database.scalar("SELECT max(id) FROM sync_runs"))

    def _killed(self, number: int, delay: float, asked: int | None) -> Outcome:
        def strike(pid: int, alive: ForkedJob | None = None) -> None:
            end = time.monotonic() + _PATIENCE_SECONDS
            while asked is not None and len(self._server.requests) == asked and time.monotonic() < end:
                time.sleep(0.001)
            time.sleep(delay)
            if alive is None:
                os.kill(pid, number)  # not yet waited for, and so still there
            else:
                alive.signal(number)

        arguments = ("sync", "--json", "--config", self._config)
        if self._whole:
            return run_new_process(self._folder, *arguments, meanwhile=strike)
        job = ForkedJob(self._folder, *arguments)
        strike(job.pid, job)
        return job.wait()


@contextmanager
def database_of(kind: str, folder: Path) -> Iterator[Database]:
    if kind == "sqlite":
        with SQLiteDatabases(folder, create_schema, folder).migrated() as database:
            yield database
        return
    with private_server(SERVER_TYPES[kind]) as server:
        databases = ServerDatabases(server.folder, create_schema, server)
        database = databases.create()
        create_schema(database.url)
        yield database


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", *SERVER_TYPES], required=True)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--forked", action="store_true", help="kill runs that have the start of Python behind them")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, database_of(options.database, Path(name)) as database:
        tally = Campaign(database, Path(name), options.seed, whole_processes=not options.forked).run(options.kills)
    sys.stdout.write(tally.line(options.database, time.monotonic() - began) + "\n")


if __name__ == "__main__":
    main()
