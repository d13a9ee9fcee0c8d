"""Keep a scheduler up for a long time, throw faults at it, and account for every time that a run was due.

    python -m benchmarks.soak --minutes 30

The scheduler is `etl schedule`'s own, in a process of its own, on a trigger that fires every few seconds instead of a
crontab. It syncs from a sandbox whose numbers keep changing into a private PostgreSQL. The sandbox answers with faults
now and then, and the database is stopped or killed and started again. In the end the live tables must hold what the
source holds. Needs the test extra and a checkout: the server comes from the tests.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from apscheduler.triggers.interval import IntervalTrigger
from sqlalchemy import create_engine, text

from etl.config import Config, Database, Http, Source
from etl.errors import Interrupted
from etl.report.observers import observing
from etl.sandbox import Account, Answer, SandboxServer
from etl.scheduler import keep_syncing
from tests.databases_postgresql import PostgreSQL
from tests.databases_servers import Server, private_server

TOKEN = "soak"
PROMPT = timedelta(seconds=1.5)
"""A run counts as on time when it starts so soon after it was due, or after the run that was in its way."""


def main() -> int:
    options = read_arguments()
    if options.scheduler:
        database_url, base_url = options.scheduler
        schedule(database_url, base_url, options.every)
    with tempfile.TemporaryDirectory() as folder, private_server(PostgreSQL) as server:
        server.create_database("test_soak")
        account = Account.generate(options.numbers)
        with SandboxServer(account, token=TOKEN, churn=0.01) as sandbox:
            log = Path(folder) / "log"
            soak = Soak(sandbox, server, log)
            soak.run(options.minutes * 60, options.every)
            return soak.report(options.every)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="how long (default: 30)")
    parser.add_argument("--every", type=float, default=3, help="seconds between due times (default: 3)")
    parser.add_argument("--numbers", type=int, default=1000, help="numbers in the account (default: 1000)")
    parser.add_argument("--scheduler", nargs=2, metavar=("DATABASE_URL", "BASE_URL"), help=argparse.SUPPRESS)
    return parser.parse_args()


def schedule(database_url: str, base_url: str, every: float) -> None:
    """Be the scheduler, until SIGTERM."""

    def interrupt(number: int, _: object) -> None:
        raise Interrupted(number)

    signal.signal(signal.SIGTERM, interrupt)
    config = Config(
        database=Database(url=database_url),
        sources=(Source(base_url=base_url, token=TOKEN),),
        http=Http(connect_timeout=2, read_timeout=3, deadline=20, max_attempts=2),
    )
    first = datetime.now(UTC) + timedelta(seconds=every)
    sys.stderr.write(json.dumps({"action": "first_due", "time": first.isoformat()}) + "\n")
    trigger = IntervalTrigger(seconds=every, start_date=first, timezone=UTC)
    try:
        keep_syncing(config, config.sources, observing, trigger=trigger)
    except Interrupted as interruption:
        sys.exit(interruption.exit_code)


FAULTS: dict[str, list[Answer]] = {
    "one 503": [Answer(status=503)],
    "two 503": [Answer(status=503)] * 2,
    "429 with Retry-After": [Answer(status=429, headers={"Retry-After": "1"})],
    "two resets": [Answer(reset=True)] * 2,
    "reset": [Answer(reset=True)],
    "cut body": [Answer(body=b"[" + b" " * 9_999, cut_after=5_000)],
    "two cut bodies": [Answer(body=b"[" + b" " * 9_999, cut_after=5_000)] * 2,
    "no end of chunks": [Answer(body=b"[]", chunked=True, end_chunks=False)] * 2,
    "not JSON": [Answer(body=b"<html>502 Bad Gateway</html>")],
    "object": [Answer.json(200, {"error": "maintenance"})],
    "empty list": [Answer(body=b"[]")],
    "401": [Answer(status=401)],
    "404": [Answer(status=404)],
    "silence": [Answer(delay=4)] * 2,
    "slow": [Answer(status=503, delay=2)],
}


@dataclass
class Soak:
    """One soak: what was done to the scheduler, and what became of it."""

    sandbox: SandboxServer
    server: Server
    log: Path
    faults: Counter[str] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, int]] = field(default_factory=list)
    exit_code: int | None = None

    def run(self, seconds: float, every: float) -> None:
        """Let it run for so long, the last tenth of a minute in peace."""
        command = [sys.executable, "-m", "benchmarks.soak", "--every", str(every), "--scheduler"]
        with self.log.open("wb") as stderr:
            arguments = [self.server.url("test_soak"), self.sandbox.base_url]
            process = subprocess.Popen([*command, *arguments], stderr=stderr)
            try:
                self._torment(process, seconds)
                self._settle(process, every)
                process.send_signal(signal.SIGTERM)
                self.exit_code = process.wait(timeout=10)
            finally:
                process.kill()
                process.wait()

    def _torment(self, process: "subprocess.Popen[bytes]", seconds: float) -> None:
        began = time.monotonic()
        next_fault, next_restart, next_look = 10.0, 30.0, 5.0
        while (now := time.monotonic() - began) < seconds and process.poll() is None:
            if now >= next_look:
                self.memory.append((now, resident_kilobytes(process.pid)))
                next_look += 5
            if now >= next_fault:
                name = random.choice(list(FAULTS))
                self.sandbox.script(*FAULTS[name])
                self.faults[name] += 1
                next_fault = now + random.uniform(5, 15)
            if now >= next_restart:
                self._restart_database()
                next_restart = now + random.uniform(45, 75)
            time.sleep(0.05)

    def _restart_database(self) -> None:
        how = random.choice(["stop", "kill"])
        # Half of the time in the middle of a run, which the slow answer makes long enough.
        if random.random() < 0.5:
            self.sandbox.script(Answer(status=503, delay=2))
            how_long = random.uniform(3, 4)
        else:
            how_long = random.uniform(0, 3)
        time.sleep(how_long)
        (self.server.stop if how == "stop" else self.server.kill)()
        time.sleep(random.uniform(0.2, 6))
        self.server.start()
        self.restarts[how] += 1

    def _settle(self, process: "subprocess.Popen[bytes]", every: float) -> None:
        """Wait for two runs after the last fault, so that the tables can be compared with the source."""
        self.sandbox.churn = 0
        requests = len(self.sandbox.requests)
        end = time.monotonic() + 60 + 4 * every
        while time.monotonic() < end and len(self.sandbox.requests) < requests + 4 and process.poll() is None:
            time.sleep(0.1)
        time.sleep(min(every, 2))
        self.memory.append((self.memory[-1][0] + every, resident_kilobytes(process.pid)))

    def report(self, every: float) -> int:
        """Print what happened; returns 1 if anything is not as it should be."""
        events = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        other = [line for line in self.log.read_text().splitlines() if not line.startswith("{")]
        due = DueTimes.of(events, every)
        ends = [event for event in events if event["action"] in {"run_succeeded", "run_refused", "run_failed"}]
        codes = Counter(
            f"{event['action'].removeprefix('run_')}: {event.get('error_code', '')} ({event.get('exit_code', 0)})"
            for event in ends
        )
        warm = [kilobytes for at, kilobytes in self.memory if at >= 60] or [self.memory[0][1]]
        tables = self._tables()
        print(
            f"due times          {due.total}: {due.prompt} on time, {due.merged} made good by the run after a long one"
        )
        print(f"unaccounted        {len(due.missed)} {due.missed[:5]}")
        print(f"runs               {len(ends)}")
        for code, count in codes.most_common():
            print(f"  {count:6} {code}")
        print(f"faults injected    {self.faults.total()}: {dict(self.faults.most_common())}")
        print(f"database restarts  {self.restarts.total()}: {dict(self.restarts)}")
        quarters = [f"{warm[len(warm) * part // 4 - (part > 0)] / 1024:.1f}" for part in range(5)]
        print(f"resident memory    {' · '.join(quarters)} MB after a minute, and after each quarter of the rest")
        print(f"sync_runs          {tables['outcomes']}, left running: {tables['running']}")
        print(f"live numbers       {tables['live']}, equal to the source: {tables['equal']}")
        print(f"exit code          {self.exit_code} after SIGTERM")
        if other:
            print(f"other output       {len(other)} lines, such as {other[:3]}")
        good = not due.missed and tables["equal"] and not tables["running"] and self.exit_code == 143 and not other
        print("GOOD" if good else "NOT GOOD")
        return 0 if good else 1

    def _tables(self) -> dict[str, Any]:
        engine = create_engine(self.server.url("test_soak"))
        with engine.connect() as connection:
            live = set(connection.scalars(text("SELECT id FROM virtual_numbers")))
            rows = connection.execute(text("SELECT outcome, count(*) AS runs FROM sync_runs GROUP BY outcome"))
            outcomes = {row.outcome: row.runs for row in rows}
        engine.dispose()
        source = {record["id"] for record in self.sandbox.account.outgoing()}
        return {
            "live": len(live), "equal": live == source, "outcomes": outcomes, "running": outcomes.get("running", 0)
        }  # fmt: skip


@dataclass
class DueTimes:
    """Every time that a run was due, and whether one came."""

    total: int = 0
    prompt: int = 0
    merged: int = 0
    missed: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, events: list[dict[str, Any]], every: float) -> "DueTimes":
        """Match what was due with what the log says was started."""
        first = next(datetime.fromisoformat(event["time"]) for event in events if event["action"] == "first_due")
        starts = [datetime.fromisoformat(e["time"]) for e in events if e["action"] == "sync_started"]
        ends = [datetime.fromisoformat(e["time"]) for e in events if e["action"] == "sync_finished"]
        stopped = next(datetime.fromisoformat(e["time"]) for e in events if e["action"] == "schedule_stopped")
        found = cls()
        due = first
        while due < stopped - PROMPT:
            found.total += 1
            # Log times are cut to milliseconds.
            following = next((start for start in starts if start >= due - timedelta(milliseconds=2)), stopped)
            in_the_way = max(
                (end for start, end in zip(starts, ends, strict=False) if start <= due < end), default=None
            )
            if following - due <= PROMPT:
                found.prompt += 1
            elif in_the_way and following - in_the_way <= PROMPT:
                found.merged += 1
            else:
                found.missed.append(due.isoformat())
            due += timedelta(seconds=every)
        return found


def resident_kilobytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
