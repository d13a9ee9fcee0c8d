"""How fresh each source's data is, and what its last runs did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, select, union

from etl.db.lock_holders import is_held
from etl.db.locks import source_lock
from etl.db.tables import quarantined_records, redirect_numbers, sync_runs, virtual_numbers

SHOWN_RUNS = 10

_COUNTS = (
    "records_received", "records_quarantined", "records_outside_filter",
    "numbers_added", "numbers_changed", "numbers_removed", "numbers_unchanged",
    "redirects_added", "redirects_changed", "redirects_removed",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Success:
    """A run that succeeded: the data is as it was at the source when the run started."""

    run_id: int
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the log."""

    id: int
    started_at: datetime
    seconds: float | None
    """None while it runs."""
    outcome: str
    origin: str
    """Where the body came from: api, file or archive."""
    error_code: str | None
    error_message: str | None
    counts: Mapping[str, int | None]
    """Under the names of `sync_runs`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """What there is to know about one source at one moment."""

    source: str
    orphaned: bool = False
    """In the database, but no longer in the configuration."""
    last_success: Success | None = None
    age_seconds: float | None = None
    stale: bool
    numbers: int = 0
    redirects: int = 0
    quarantined: int = 0
    """Bad records that the newest snapshot holds."""
    running: bool = False
    runs: Sequence[Run] = ()
    """The last ones, newest first."""


def last_successes(connection: Connection) -> dict[str, Success]:
    """Return each source's last run that succeeded, in the order of runs, whatever the clock said."""
    runs = sync_runs.c
    newest = select(func.max(runs.id)).where(runs.outcome == "succeeded").group_by(runs.source)
    rows = connection.execute(select(runs.source, runs.id, runs.started_at).where(runs.id.in_(newest)))
    return {row.source: Success(row.id, row.started_at) for row in rows}


def never_run(names: Sequence[str]) -> list[SourceStatus]:
    """Return the status of sources whose database has no tables yet: no success, so stale."""
    return [SourceStatus(source=name, stale=True) for name in names]


def read_status(
    connection: Connection, names: Sequence[str], max_age: float | None, *, with_orphans: bool
) -> list[SourceStatus]:
    """Return the status of these sources, in their order, and of those that are no longer configured.

    A source is stale when it never succeeded or, where `max_age` (seconds) is given, when its last success began longer
    ago than that. One that is no longer configured is never stale: nothing is expected of it.
    """
    now = datetime.now(UTC)
    successes = last_successes(connection)
    statuses = [_read_source(connection, name, successes.get(name), now, max_age) for name in names]
    if with_orphans:
        orphans = sorted(_known_sources(connection) - set(names))
        statuses += [_read_source(connection, name, successes.get(name), now, None, orphaned=True) for name in orphans]
    return statuses


def _known_sources(connection: Connection) -> set[str]:
    return set(connection.scalars(union(select(sync_runs.c.source), select(virtual_numbers.c.source))))


def _read_source(
    connection: Connection,
    name: str,
    success: Success | None,
    now: datetime,
    max_age: float | None,
    *,
    orphaned: bool = False,
) -> SourceStatus:
    # A clock that was put back must not make a success look younger than it can be.
    age = max(0.0, (now - success.started_at).total_seconds()) if success else None
    is_open = quarantined_records.c.valid_to_run.is_(None)
    runs = _read_runs(connection, name)
    return SourceStatus(
        source=name,
        orphaned=orphaned,
        last_success=success,
        age_seconds=age,
        stale=not orphaned and (age is None or (max_age is not None and age > max_age)),
        numbers=_count(connection, select(func.count()).where(virtual_numbers.c.source == name)),
        redirects=_count(connection, select(func.count()).where(redirect_numbers.c.source == name)),
        quarantined=_count(connection, select(func.count()).where(quarantined_records.c.source == name, is_open)),
        running=_is_running(connection, name, runs),
        runs=runs,
    )


def _count(connection: Connection, query: Any) -> int:
    return int(connection.execute(query).scalar_one())


def _read_runs(connection: Connection, name: str) -> list[Run]:
    rows = connection.execute(
        select(sync_runs).where(sync_runs.c.source == name).order_by(sync_runs.c.id.desc()).limit(SHOWN_RUNS)
    ).mappings()
    return [
        Run(
            id=row["id"],
            started_at=row["started_at"],
            seconds=(row["finished_at"] - row["started_at"]).total_seconds() if row["finished_at"] else None,
            outcome=row["outcome"],
            origin=row["_origin"],
            error_code=row["error_code"],
            error_message=row["error_message"],
            counts={column: row[column] for column in _COUNTS},
        )
        for row in rows
    ]


def _is_running(connection: Connection, name: str, runs: Sequence[Run]) -> bool:
    """Whether a run is in progress: one that was killed also says `running`, but its lock is free."""
    claimed = bool(runs) and runs[0].outcome == "running"
    held = is_held(connection, source_lock(name)) if claimed else False
    return claimed if held is None else held
