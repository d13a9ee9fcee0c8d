"""Measures this job against its peers and its floors, as whole processes in turn.

    pip install -e '.[test]'
    python -m benchmarks.run --repeat 5 --peer-repeat 3 --growth 1000000 --output benchmarks/results.json
    python -m benchmarks.report benchmarks/results.json docs/performance.md

Run it from the root of a checkout, on Linux, with Debian's `mariadb-server` for MariaDB; `--quick` shows in a few
minutes that everything works. For every size it generates two response bodies and serves them on loopback; for every
database each candidate gets an empty one and goes through three phases: first load, the same again, one per cent
changed. After every phase the tables are compared with the snapshot. Candidates take turns, in another order each
round, so that whatever else the machine does hits all alike. Everything that is started is stopped again, everything
written goes into a temporary folder, save the environments (`benchmarks/.environments/`) and the result.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import data, databases, environments, servers
from benchmarks.catalogue import ALL, CANDIDATES, FLOOR_IMPORTS, JOB_IMPORTS, Candidate, Run

HERE = Path(__file__).resolve().parent
PHASES = ("first", "same", "changed")
CHECK_SECONDS = 900

Result = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What stays the same while candidates take turns on one database with one size."""

    size: int
    bodies: data.Bodies
    base_urls: dict[str, str]
    database: databases.Database
    environments: dict[str, environments.Environment]
    directory: Path
    timeout: float

    def body(self, phase: str) -> Path:
        """Return the file that is served in a phase."""
        return self.bodies.changed if phase == "changed" else self.bodies.first


def variables(directory: Path) -> dict[str, str]:
    """Return the environment of a measured process: nothing of the caller's that could change what it does."""
    return {"PATH": os.environ["PATH"], "HOME": str(directory), "LANG": "C.UTF-8"}


def measured(pipeline: Sequence[Sequence[str]], directory: Path, environment: dict[str, str], timeout: float) -> Result:
    """Run commands by way of the small process that measures them."""
    job = {
        "pipeline": pipeline,
        "directory": str(directory),
        "environment": environment,
        "timeout": timeout,
        "stdout": str(directory / "stdout"),
        "stderr": str(directory / "stderr"),
    }
    command = [sys.executable, "-I", "-S", str(HERE / "measure.py")]
    done = subprocess.run(
        command, input=json.dumps(job), capture_output=True, text=True, timeout=timeout + 60, check=True
    )
    result: Result = json.loads(done.stdout)
    if result["exit_code"] != 0:
        result["error"] = (directory / "stderr").read_text(errors="replace").strip()[-1000:]
    return result


def checked(bench: Bench, candidate: Candidate, phase: str) -> Result:
    """Compare the tables with the snapshot, in another process."""
    question = {
        "url": bench.database.url,
        "body": str(bench.body(phase)),
        "numbers": candidate.numbers,
        "redirects": candidate.redirects,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.check"],
        cwd=HERE.parent,
        input=json.dumps(question),
        capture_output=True,
        text=True,
        timeout=CHECK_SECONDS,
        check=False,
    )
    if done.returncode:
        return {"exact": False, "error": done.stderr.strip()[-1000:]}
    answer: Result = json.loads(done.stdout)
    return answer


def phase_run(bench: Bench, candidate: Candidate, run: Run, phase: str) -> Result:
    """Measure one phase of one candidate."""
    bench.database.settle()
    load = os.getloadavg()[0]
    before = bench.database.counters()
    environment = {**variables(run.directory), **candidate.variables(run)}
    result = measured(candidate.command(run), run.directory, environment, bench.timeout)
    after = bench.database.counters()
    return {
        "size": bench.size,
        "database": bench.database.name,
        "candidate": candidate.name,
        "phase": phase,
        "load_before": load,
        **result,
        **after.since(before),
        "check": checked(bench, candidate, phase) if result["exit_code"] == 0 else None,
    }


def candidate_runs(bench: Bench, candidate: Candidate) -> Iterator[Result]:
    """Take one candidate through the three phases, from an empty database; a failure ends its turn."""
    with tempfile.TemporaryDirectory(prefix=f"{candidate.name}-", dir=bench.directory) as name:
        directory = Path(name)
        bench.database.recreate(directory)
        for phase in PHASES:
            run = Run(bench.environments[candidate.environment], bench.base_urls[phase], bench.database.url, directory)
            if phase == "first" and candidate.prepare:
                environment = {**variables(directory), **candidate.variables(run)}
                subprocess.run(
                    candidate.prepare(run),
                    cwd=directory,
                    env=environment,
                    check=True,
                    capture_output=True,
                    timeout=bench.timeout,
                )
            result = phase_run(bench, candidate, run, phase)
            yield result
            if result["exit_code"] != 0:
                return


def attempt(bench: Bench, candidate: Candidate) -> Iterator[Result]:
    """Yield a candidate's results; one that cannot even prepare has its failure as its only result."""
    try:
        yield from candidate_runs(bench, candidate)
    except subprocess.SubprocessError as error:
        output = getattr(error, "stderr", None) or b""
        yield {
            "size": bench.size,
            "database": bench.database.name,
            "candidate": candidate.name,
            "phase": "prepare",
            "exit_code": getattr(error, "returncode", None),
            "error": output.decode(errors="replace").strip()[-1000:] or str(error),
        }


def import_runs(bench: Bench) -> Iterator[Result]:
    """Measure interpreter start and imports by themselves, in the same round as what they are compared with."""
    statements = {
        "bare": ("floor", "pass"),
        "floor": ("floor", f"import {FLOOR_IMPORTS[bench.database.name]}"),
        "job": (environments.JOB, f"import {JOB_IMPORTS[bench.database.name]}"),
    }
    for what, (environment, statement) in statements.items():
        if environment in bench.environments:
            command = [bench.environments[environment].python, "-c", statement]
            result = measured([command], bench.directory, variables(bench.directory), bench.timeout)
            yield {"size": bench.size, "database": bench.database.name, "what": what, "code": statement, **result}


def turns(candidates: Sequence[Candidate], repetition: int, arguments: argparse.Namespace) -> Sequence[Candidate]:
    """Return who takes part in a round, beginning with another one each time."""
    taking = [c for c in candidates if repetition < (arguments.peer_repeat if c.peer else arguments.repeat)]
    start = repetition % len(taking) if taking else 0
    return taking[start:] + taking[:start]


def tell(result: Result) -> None:
    """Say on the terminal what a run came to."""
    head = f"{result['size']:>9,} {result['database']:<10} {result['candidate']:<22} {result['phase']:<8}"
    if result["exit_code"] != 0:
        print(head, "FAILED:", result.get("error", "")[-200:].replace("\n", " "), flush=True)
        return
    rows = "" if result["rows_written"] is None else f"{result['rows_written']:>9,} rows"
    wal = "" if result["wal_bytes"] is None else f"{result['wal_bytes'] / 1e6:8.2f} MB log"
    exact = "exact" if result["check"]["exact"] else "NOT the snapshot"
    memory = result["peak_bytes"] / 1e6
    print(head, f"{result['wall']:8.3f} s {memory:6.0f} MB {rows:>14} {wal:>14} {exact}", flush=True)


def database_runs(
    bench: Bench, candidates: Sequence[Candidate], arguments: argparse.Namespace, results: Result
) -> None:
    """Measure everyone on one database."""
    fitting = [
        candidate
        for candidate in candidates
        if bench.database.name in candidate.databases
        and bench.size <= candidate.limits.get(bench.database.name, (bench.size, ""))[0]
    ]
    for repetition in range(max(arguments.repeat, arguments.peer_repeat)):
        results["imports"] += [{"repetition": repetition, **result} for result in import_runs(bench)]
        for candidate in turns(fitting, repetition, arguments):
            for result in attempt(bench, candidate):
                tell(result)
                results["runs"].append({"repetition": repetition, **result})


def size_runs(
    size: int,
    candidates: Sequence[Candidate],
    made: dict[str, environments.Environment],
    arguments: argparse.Namespace,
    results: Result,
) -> None:
    """Measure everyone on every database with one size."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="etl-benchmark-")))
        bodies = data.write_bodies(size, directory)
        results["bodies"][str(size)] = bodies.facts
        first = stack.enter_context(servers.body_server(sys.executable, bodies.first))
        changed = stack.enter_context(servers.body_server(sys.executable, bodies.changed))
        base_urls = {"first": first, "same": first, "changed": changed}
        for name in arguments.databases:
            try:
                with databases.opened(name) as database:
                    results["databases"][name] = database.description()
                    bench = Bench(size, bodies, base_urls, database, made, directory, arguments.timeout)
                    database_runs(bench, candidates, arguments, results)
            except servers.ServerUnavailable as error:
                results["unavailable"][name] = str(error)
                print(f"{name} is left out: {str(error)[-300:]}", flush=True)
            save(results, arguments.output)


def available(candidates: Iterable[Candidate], results: Result) -> dict[str, environments.Environment]:
    """Make the environments of those who take part; who cannot be installed is left out, with the reason."""
    made: dict[str, environments.Environment] = {}
    # The floors' environment also tells what importing costs.
    for name in sorted({"floor", environments.JOB, *(candidate.environment for candidate in candidates)}):
        print(f"environment {name}", flush=True)
        try:
            made[name] = environments.ensure(name)
            results["versions"][name] = made[name].versions()
        except (environments.EnvironmentFailed, subprocess.SubprocessError) as error:
            results["unavailable"][name] = str(error)
            print(f"{name} is left out: {str(error)[-300:]}", flush=True)
    return made


def machine() -> Result:
    """Describe what everything ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "python": platform.python_version(),
    }


def commit() -> str:
    """Return the checkout's commit, with a plus sign when files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout.strip()

    return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "..") else "")


def save(results: Result, output: Path) -> None:
    """Write what there is so far, so that a long run that is cut short is not lost."""
    results["finished_at"] = now()
    results["seconds"] = round(time.monotonic() - results["_began"], 1)
    kept = {name: value for name, value in results.items() if not name.startswith("_")}
    output.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [candidate.name for candidate in CANDIDATES]
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="numbers in a snapshot")
    parser.add_argument("--databases", nargs="+", choices=ALL, default=list(ALL))
    parser.add_argument("--candidates", nargs="+", choices=names, default=names)
    parser.add_argument("--repeat", type=int, default=5, help="rounds for this job and the floors")
    parser.add_argument("--peer-repeat", type=int, help="rounds for the peers, by default as many")
    parser.add_argument("--growth", type=int, help="a larger size, for this job on PostgreSQL alone")
    parser.add_argument("--timeout", type=float, default=600, help="seconds after which a run is stopped")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results.json"))
    parser.add_argument("--quick", action="store_true", help="1,000 numbers, one round: does it all work?")
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.sizes, arguments.repeat, arguments.peer_repeat = [1_000], 1, 1
    if arguments.peer_repeat is None:
        arguments.peer_repeat = arguments.repeat
    return arguments


def measure_all(arguments: argparse.Namespace, results: Result) -> None:
    """Make the environments, then measure size by size."""
    candidates = [candidate for candidate in CANDIDATES if candidate.name in arguments.candidates]
    made = available(candidates, results)
    candidates = [candidate for candidate in candidates if candidate.environment in made]
    for size in arguments.sizes:
        size_runs(size, candidates, made, arguments, results)
    if arguments.growth:
        alone = argparse.Namespace(**{**vars(arguments), "databases": ["postgresql"]})
        size_runs(arguments.growth, [c for c in candidates if c.name == "etl"], made, alone, results)


def end(_signal: int, _frame: object) -> None:
    """End as after an error, so that every server is stopped and every folder removed."""
    sys.exit(143)


def main() -> int:
    arguments = parse()
    signal.signal(signal.SIGTERM, end)
    results: Result = {
        "format": 1,
        "started_at": now(),
        "_began": time.monotonic(),
        "commit": commit(),
        "command": ["python", "-m", "benchmarks.run", *sys.argv[1:]],
        "machine": machine(),
        "versions": {},
        "databases": {},
        "unavailable": {},
        "bodies": {},
        "imports": [],
        "runs": [],
    }
    try:
        with environments.reserved():
            measure_all(arguments, results)
    except environments.EnvironmentsInUse as error:
        print(error)
        return 75
    failed = sorted({run["candidate"] for run in results["runs"] if run["exit_code"] != 0})
    print(f"written: {arguments.output}", *([f"failed: {', '.join(failed)}"] if failed else []), sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
