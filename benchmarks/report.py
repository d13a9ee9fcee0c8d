"""Writes the published page and its charts from the benchmark's JSON.

    python -m benchmarks.report benchmarks/results.json docs/performance.md

The charts are put beside the page, under its name. Nothing is measured here, and nothing is written by hand there.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import charts
from benchmarks.catalogue import ALL, CANDIDATES, Candidate
from benchmarks.results import MEGABYTE, NAMES, PHASES, Results, Spread

LOG_NAMES = {"postgresql": "WAL", "mariadb": "redo log"}

INTRODUCTION = """\
# Performance

Measured as whole processes, from start to exit, on one machine in one run: interpreter start, imports and shutdown
count. This page and its charts are written by `python -m benchmarks.report` from
[`benchmarks/results.json`](../benchmarks/results.json), which holds every single run.

Each candidate starts with an empty database and brings its tables to a snapshot three times: **first load**, the
**same again**, and with **1 % changed** (fields, redirects, removals, additions). A snapshot of 100,000 numbers has
200,000 redirects and Cyrillic text. A *floor* is no product but a yardstick: a hand-written script without any feature
that does the same by the fastest means found for that database.
"""

METHOD = """\
## How it was measured

- A prepared response body is served on loopback by a process of its own, with `sendfile`.
- Wall time is from before the process starts until it ended; for the Singer pipe, until both ended. CPU and peak
  memory are what the kernel accounted to the processes (`wait4`); the peaks of a pipe's two processes are added up.
- Server CPU is that of the database server's processes, from `/proc`. Rows are what PostgreSQL counted as inserted,
  updated and deleted in all tables of data, staging tables included, and in MariaDB's handlers for all tables, a
  program's own run log included. SQLite has no such counters.
- Candidates take turns, in another order each round. Between phases PostgreSQL is vacuumed, analysed and checkpointed
  and the file system synced, for all alike: that is what passes between two real runs, and it keeps one candidate's
  leftovers out of another's figures.
- After every phase all tables are compared with the snapshot, value by value.
- This job's and the floors' tables are created beforehand, as a migration does; peers create theirs in their first
  load.
- The limit next to a floor is a multiple of the floor plus the time that importing this job's dependencies takes,
  measured in the same run; in brackets the stricter one that leaves out what the floor imports itself.
- Each peer runs in an environment of its own, configured to be as fast as it can be for this task; how is said at the
  top of its script in `benchmarks/candidates/`.
"""

REPEAT = """\
## How to repeat it

On Linux, with Debian's `mariadb-server` installed for MariaDB; PostgreSQL comes with the test requirements.

```console
pip install -e '.[test]'
python -m benchmarks.run --quick
{command}
python -m benchmarks.report benchmarks/results.json docs/performance.md
```

`--quick` shows in minutes that everything works. The full run took {minutes} here; `--sizes`, `--databases`,
`--candidates` and `--repeat` narrow it down.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Return a Markdown table; columns after the first few are figures, aligned to the right."""
    ruler = ["---" if column < left else "---:" for column in range(len(head))]
    return [f"| {' | '.join(row)} |" for row in (head, ruler, *rows)] + [""]


def with_range(value: Spread | None) -> str:
    """Write a median and, where there is one, its range."""
    if value is None:
        return "–"
    digits = 1 if value.median >= 10 else 2 if value.median >= 1 else 3
    if value.count == 1:
        return f"{value.median:.{digits}f}"
    return f"{value.median:.{digits}f} ({value.low:.{digits}f}–{value.high:.{digits}f})"


def taking_part(results: Results, size: int, database: str) -> list[Candidate]:
    """Return the candidates that were measured there."""
    return [c for c in CANDIDATES if any(results.runs(size, database, c.name, phase) for phase in PHASES)]


def kind(candidate: Candidate) -> str:
    """Return what a candidate is, which gives its colour."""
    return "peer" if candidate.peer else "job" if candidate.name == "etl" else "floor"


def timing_chart(results: Results, size: int, database: str) -> str:
    """Draw the times of all candidates."""
    series = [
        charts.Series(c.title, kind(c), [results.spread(size, database, c.name, phase) for phase in PHASES])
        for c in taking_part(results, size, database)
    ]
    note = "Wall time of the whole process, logarithmic scale. Dot: median; line: fastest to slowest run."
    return charts.dots(f"{NAMES[database]}, {size:,} numbers", note, list(PHASES.values()), series)


def memory_chart(results: Results, size: int, database: str) -> str:
    """Draw the peak memory of all candidates."""
    series = []
    for candidate in taking_part(results, size, database):
        peak = (results.worst(size, database, candidate.name, "peak_bytes") or 0) / MEGABYTE
        series.append(charts.Series(candidate.title, kind(candidate), [Spread(peak, peak, peak, 1)]))
    note = "Largest of the three phases' medians. The body itself is counted where a program holds it."
    return charts.bars(f"Peak memory of the client, {NAMES[database]}, {size:,} numbers", note, "MB", series)


def growth_chart(results: Results, database: str) -> str:
    """Draw how the time for an unchanged snapshot grows."""
    sizes = [size for size in results.sizes() if taking_part(results, size, database)]
    names = {c.name for size in sizes for c in taking_part(results, size, database)}
    series = [
        charts.Series(c.title, kind(c), [results.spread(size, database, c.name, "same") for size in sizes])
        for c in CANDIDATES
        if c.name in names and c.name != "floor-keys"
    ]
    note = "Median wall time against numbers in the snapshot, both scales logarithmic."
    return charts.growth(f"Same snapshot again, {NAMES[database]}", note, sizes, series)


def timing_table(results: Results, size: int, database: str) -> list[str]:
    """Tabulate times, and what they cost client and server."""
    rows = []
    for candidate in taking_part(results, size, database):
        times = [with_range(results.spread(size, database, candidate.name, phase)) for phase in PHASES]
        costs = [results.spread(size, database, candidate.name, "same", f) for f in ("cpu_client", "cpu_server")]
        cpu = " + ".join(f"{cost.median:.2f}" if cost else "–" for cost in costs)
        peak = results.worst(size, database, candidate.name, "peak_bytes")
        rows.append([candidate.title, *times, cpu, f"{(peak or 0) / MEGABYTE:.0f}"])
    head = ["", *(f"{phase}, s" for phase in PHASES.values()), "CPU client + server, same again, s", "peak, MB"]
    return table(head, rows)


def amount(value: Spread | None, scale: float, unit: str) -> str:
    """Write a median count or size."""
    if value is None:
        return "–"
    return f"{value.median / scale:,.0f}{unit}" if scale == 1 else f"{value.median / scale:,.2f}{unit}"


def writing_table(results: Results, size: int, database: str) -> list[str]:
    """Tabulate what was written, and whether the tables then held the snapshot."""
    rows = []
    for candidate in taking_part(results, size, database):
        row = [candidate.title]
        for phase in ("same", "changed"):
            row.append(amount(results.spread(size, database, candidate.name, phase, "rows_written"), 1, ""))
            row.append(amount(results.spread(size, database, candidate.name, phase, "wal_bytes"), MEGABYTE, ""))
        rows.append([*row, faults(results, size, database, candidate.name)])
    log = LOG_NAMES[database]
    head = ["", "rows, same again", f"{log}, MB", "rows, 1 % changed", f"{log}, MB", "tables after 1 % changed"]
    return table(head, rows)


def faults(results: Results, size: int, database: str, candidate: str) -> str:
    """Say how the tables differed from the snapshot after the last phase."""
    checks = [run["check"] for run in results.runs(size, database, candidate, "changed")]
    if not checks:
        return "–"
    if all(check["exact"] for check in checks):
        return "exact"
    last = checks[-1]
    if "error" in last:
        return "could not be compared"
    found = [
        f"{last[rows][fault]:,} {rows} {fault}"
        for rows in ("numbers", "redirects")
        for fault in ("missing", "stale", "wrong", "duplicate")
        if last[rows][fault]
    ]
    return ", ".join(found)


def verdict_table(results: Results) -> list[str]:
    """Tabulate the targets."""
    words = {True: "met", False: "**missed**", None: "–"}
    rows = [[verdict.target, verdict.measured, words[verdict.met]] for verdict in results.verdicts()]
    return ["## Targets", "", *table(["target", "measured", ""], rows, left=3)]


def candidate_table(results: Results) -> list[str]:
    """Tabulate who took part, with versions."""
    packages = {"dlt": "dlt", "singer": "meltanolabs-target-postgres", "pandas": "pandas", "sqlalchemy": "SQLAlchemy"}
    rows = []
    for candidate in CANDIDATES:
        installed = {
            name.lower(): version for name, version in results.raw["versions"].get(candidate.environment, {}).items()
        }
        package = packages.get(candidate.environment, "virtual-numbers-etl" if candidate.name == "etl" else "")
        limits = [
            f"on {NAMES[name]} up to {most:,} numbers only: {why}" for name, (most, why) in candidate.limits.items()
        ]
        rows.append([candidate.title, installed.get(package.lower(), "–"), "; ".join([candidate.note, *limits])])
    return ["## Who took part", "", *table(["candidate", "version", "what it does"], rows, left=3)]


def circumstances(results: Results) -> list[str]:
    """Tell the machine, the databases and their settings."""
    raw = results.raw
    machine = raw["machine"]
    lines = [
        "## Circumstances",
        "",
        f"- {machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB; "
        f"{machine['system']}, kernel {machine['kernel']}; Python {machine['python']}",
        f"- commit `{raw['commit']}`, {raw['started_at'][:10]}",
    ]
    loads = [run["load_before"] for run in raw["runs"] if "load_before" in run]
    if loads:
        lines.append(
            f"- load of the machine before each run: {statistics.median(loads):.1f} (median), {max(loads):.1f} (most); "
            "the benchmark by itself makes about 1"
        )
    for name, facts in raw["databases"].items():
        settings = ", ".join(f"`{key}={value}`" for key, value in facts["settings"].items())
        lines.append(f"- {NAMES[name]} {facts['version']}" + (f": {settings}" if settings else ""))
    for size, facts in raw["bodies"].items():
        body = facts["first_bytes"] / MEGABYTE
        lines.append(
            f"- {int(size):,} numbers: {facts['first_redirects']:,} redirects, {body:.1f} MB; "
            f"changed afterwards: {facts['changes_fields']:,} with other fields, {facts['changes_redirects']:,} with "
            f"other redirects, {facts['changes_removed']:,} removed, {facts['changes_added']:,} added"
        )
    failed = sorted({(r["database"], r["candidate"], r["phase"]) for r in raw["runs"] if r["exit_code"] != 0})
    lines += [f"- failed: {candidate} on {NAMES[database]}, {phase}" for database, candidate, phase in failed]
    return [*lines, ""]


class Page:
    """The page in the making: its lines, and the charts that stand beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lines: list[str] = []

    def chart(self, name: str, description: str, drawing: str) -> None:
        """Write a chart beside the page and show it."""
        file = self._path.with_name(f"{self._path.stem}-{name}.svg")
        file.write_text(drawing)
        self.lines += [f"![{description}]({file.name})", ""]

    def write(self) -> None:
        """Write the page."""
        self._path.write_text("\n".join(self.lines).rstrip() + "\n")


def build(results: Results, page: Page) -> None:
    """Fill the page."""
    size = results.headline_size()
    page.lines += [*INTRODUCTION.split("\n"), *verdict_table(results)]
    for database in (name for name in ALL if taking_part(results, size, name)):
        page.lines += [f"## {NAMES[database]}, {size:,} numbers", ""]
        description = f"Times of all candidates on {NAMES[database]} with {size:,} numbers"
        page.chart(database, description, timing_chart(results, size, database))
        page.lines += timing_table(results, size, database)
        if database in LOG_NAMES:
            page.lines += writing_table(results, size, database)
    small = results.sizes()[0]
    if small != size and taking_part(results, small, "sqlite"):
        page.lines += [f"## SQLite, {small:,} numbers", ""]
        page.lines += ["With few numbers a run is mostly imports.", ""]
        page.chart("small", f"Times with {small:,} numbers", timing_chart(results, small, "sqlite"))
        page.lines += timing_table(results, small, "sqlite")
    if taking_part(results, size, "postgresql"):
        page.lines += ["## Memory", ""]
        page.chart("memory", "Peak memory of all candidates", memory_chart(results, size, "postgresql"))
    if len(results.sizes()) > 1 and taking_part(results, size, "postgresql"):
        page.lines += ["## Growth", ""]
        page.chart("growth", "Time against size", growth_chart(results, "postgresql"))
    page.lines += [*candidate_table(results), *circumstances(results), *METHOD.split("\n")]
    minutes = f"{results.raw['seconds'] / 60:.0f} minutes"
    page.lines += REPEAT.format(command=" ".join(results.raw["command"]), minutes=minutes).split("\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("page", type=Path)
    arguments = parser.parse_args()
    page = Page(arguments.page)
    build(Results(arguments.results), page)
    page.write()


if __name__ == "__main__":
    main()
