"""Reads the benchmark's JSON: medians with their spread, and the targets set against them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEGABYTE = 1_000_000
NAMES = {"postgresql": "PostgreSQL", "sqlite": "SQLite", "mariadb": "MariaDB"}
PHASES = {"first": "first load", "same": "same again", "changed": "1 % changed"}


@dataclass(frozen=True)
class Spread:
    """The median of several runs, and how far they lay apart."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Verdict:
    """A target, what was measured, and whether that is good enough; None where it was not measured."""

    target: str
    measured: str
    met: bool | None


def spread(values: list[float]) -> Spread | None:
    """Return the median and range of values, if there are any."""
    return Spread(statistics.median(values), min(values), max(values), len(values)) if values else None


class Results:
    """The runs of one benchmark, by size, database, candidate and phase."""

    def __init__(self, path: Path) -> None:
        self.raw: dict[str, Any] = json.loads(path.read_text())
        self.good = [run for run in self.raw["runs"] if run["exit_code"] == 0]

    def runs(self, size: int, database: str, candidate: str, phase: str) -> list[dict[str, Any]]:
        """Return the runs that succeeded."""
        wanted = (size, database, candidate, phase)
        return [r for r in self.good if (r["size"], r["database"], r["candidate"], r["phase"]) == wanted]

    def spread(self, size: int, database: str, candidate: str, phase: str, field: str = "wall") -> Spread | None:
        """Return one figure of a candidate's phase."""
        runs = self.runs(size, database, candidate, phase)
        return spread([run[field] for run in runs if run.get(field) is not None])

    def worst(self, size: int, database: str, candidate: str, field: str) -> float | None:
        """Return the largest of the phases' medians."""
        found = [s.median for phase in PHASES if (s := self.spread(size, database, candidate, phase, field))]
        return max(found, default=None)

    def imports(self, size: int, database: str, what: str) -> float | None:
        """Return the median time of an interpreter that only imports."""
        found = spread(
            [
                entry["wall"]
                for entry in self.raw["imports"]
                if (entry["size"], entry["database"], entry["what"]) == (size, database, what)
                and entry["exit_code"] == 0
            ]
        )
        return found.median if found else None

    def sizes(self) -> list[int]:
        """Return the sizes that were measured."""
        return sorted({run["size"] for run in self.raw["runs"]})

    def headline_size(self) -> int:
        """Return the size most of the targets speak of, or the largest there is."""
        return 100_000 if 100_000 in self.sizes() else self.sizes()[-1]

    def verdicts(self) -> Iterator[Verdict]:
        """Judge every target."""
        size = self.headline_size()
        for phase, factor in (("same", 20), ("changed", 17), ("first", 7)):
            yield self._faster(size, "postgresql", phase, "dlt", factor)
            yield self._beside(size, "postgresql", phase, "dlt-csv")
        yield self._near_floor(size, "postgresql", "same", "floor", 1.3)
        yield self._near_floor(size, "postgresql", "changed", "floor", 1.3)
        yield self._near_floor(size, "postgresql", "first", "floor-keys", 1.25)
        yield from self._quiet(size)
        yield self._near_floor(size, "sqlite", "same", "floor", 1.3)
        yield self._faster(size, "mariadb", "first", "sqlalchemy", 5)
        yield self._beside(size, "mariadb", "first", "sqlalchemy-executemany")
        yield from self._small(1_000)
        yield from self._memory(size, 1_000_000)
        yield from self._growth(100_000, 1_000_000)

    def _faster(self, size: int, database: str, phase: str, peer: str, factor: float) -> Verdict:
        beside = self._beside(size, database, phase, peer)
        target = f"{NAMES[database]}, {size:,}, {PHASES[phase]}: at least {factor}× faster than {peer}"
        job, other = self.spread(size, database, "etl", phase), self.spread(size, database, peer, phase)
        met = other.median >= factor * job.median if job and other else None
        return Verdict(target, beside.measured, met)

    def _beside(self, size: int, database: str, phase: str, peer: str) -> Verdict:
        """Compare with another way of the same peer, for which there is no target."""
        target = f"{NAMES[database]}, {size:,}, {PHASES[phase]}, beside {peer}"
        job, other = self.spread(size, database, "etl", phase), self.spread(size, database, peer, phase)
        if not job or not other:
            return Verdict(target, "not measured", None)
        return Verdict(target, f"{other.median:.2f} s / {job.median:.2f} s = {other.median / job.median:.1f}×", None)

    def _near_floor(self, size: int, database: str, phase: str, floor: str, factor: float) -> Verdict:
        """Allow the job what importing its dependencies takes, on top of a multiple of the floor.

        The floor's own time has some of that import in it: the stricter limit without that is told as well.
        """
        target = f"{NAMES[database]}, {size:,}, {PHASES[phase]}: at most {factor}× {floor} plus imports"
        job, other = self.spread(size, database, "etl", phase), self.spread(size, database, floor, phase)
        own, shared = self.imports(size, database, "job"), self.imports(size, database, "floor")
        if not job or not other or own is None or shared is None:
            return Verdict(target, "not measured", None)
        limit = factor * other.median + own
        measured = f"{job.median:.3f} s; limit {factor} × {other.median:.3f} + {own:.3f} = {limit:.3f} s"
        measured += f" ({limit - shared:.3f} s with only what the floor does not import)"
        return Verdict(target, measured, job.median <= limit)

    def _quiet(self, size: int) -> Iterator[Verdict]:
        runs = self.runs(size, "postgresql", "etl", "same")
        rows = max((run["rows_written"] for run in runs), default=None)
        wal = max((run["wal_bytes"] for run in runs), default=None)
        where = f"PostgreSQL, {size:,}, same again"
        if rows is None or wal is None:
            yield Verdict(f"{where}: no row rewritten, under 20 kB of WAL", "not measured", None)
            return
        yield Verdict(f"{where}: no row rewritten", f"{rows:,} rows at most", rows == 0)
        yield Verdict(f"{where}: under 20 kB of WAL", f"{wal / 1000:.1f} kB at most", wal < 20_000)

    def _small(self, size: int) -> Iterator[Verdict]:
        where = f"SQLite, {size:,}, same again"
        job, peer = self.spread(size, "sqlite", "etl", "same"), self.spread(size, "sqlite", "dlt", "same")
        own = self.imports(size, "sqlite", "job")
        if not job or not peer or own is None:
            yield Verdict(f"{where}: at most 1.25× its imports, under half of dlt's time", "not measured", None)
            return
        bare = f"{job.median:.3f} s / {own:.3f} s = {job.median / own:.2f}×"
        yield Verdict(f"{where}: at most 1.25× `python -c` importing its dependencies", bare, job.median <= 1.25 * own)
        share = f"{job.median:.3f} s / {peer.median:.3f} s = {job.median / peer.median:.2f}"
        yield Verdict(f"{where}: under half of dlt's time", share, job.median < peer.median / 2)

    def _memory(self, size: int, large: int) -> Iterator[Verdict]:
        peak = self.worst(size, "postgresql", "etl", "peak_bytes")
        yield Verdict(
            f"PostgreSQL, {size:,}: peak memory at most 150 MB in any phase",
            f"{peak / MEGABYTE:.0f} MB" if peak else "not measured",
            peak <= 150 * MEGABYTE if peak else None,
        )
        peak = self.worst(large, "postgresql", "etl", "peak_bytes")
        body = self.raw["bodies"].get(str(large), {}).get("first_bytes")
        yield Verdict(
            f"PostgreSQL, {large:,}: peak memory at most 2.5× the body",
            f"{peak / MEGABYTE:.0f} MB / {body / MEGABYTE:.0f} MB = {peak / body:.2f}×" if peak else "not measured",
            peak <= 2.5 * body if peak else None,
        )

    def _growth(self, size: int, large: int) -> Iterator[Verdict]:
        for field, what in (("wall", "time"), ("peak_bytes", "memory")):
            growth = [
                (there.median / large) / (here.median / size)
                for phase in PHASES
                if (there := self.spread(large, "postgresql", "etl", phase, field))
                and (here := self.spread(size, "postgresql", "etl", phase, field))
            ]
            yield Verdict(
                f"PostgreSQL: {what} per number at {large:,} within 1.3× of that at {size:,}, in every phase",
                f"{max(growth):.2f}× at most" if growth else "not measured",
                max(growth) <= 1.3 if growth else None,
            )
