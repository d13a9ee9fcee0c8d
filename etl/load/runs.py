"""The log of runs: every attempt leaves a row, and the row says how it ended."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from etl import __version__
from etl.db.tables import sync_runs
from etl.errors import EtlError, UnavailableError


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that has begun."""

    id: int
    started_at: datetime
    interrupted: tuple[int, ...]
    """Earlier runs of the source that were found `running`: their processes are gone, for the lock was free."""


def open_run(connection: Connection, source: str, origin: str, replay_of: int | None = None) -> OpenRun:
    """Mark what earlier runs left open as interrupted, and add a row for this one. The source's lock must be held."""
    columns = sync_runs.c
    orphans = tuple(
        connection.scalars(select(columns.id).where(columns.source == source, columns.outcome == "running"))
    )
    now = datetime.now(UTC)
    if orphans:
        message = "the process ended without a word: it was killed, or its machine or database went down"
        connection.execute(
            update(sync_runs)
            .where(columns.id.in_(orphans))
            .values(outcome="failed", error_code="interrupted", error_message=message, finished_at=now)
        )
    row = {
        "source": source,
        "started_at": now,
        "outcome": "running",
        "etl_version": __version__,
        "_origin": origin,
        "_replay_of": replay_of,
    }
    result = connection.execute(insert(sync_runs), row)
    return OpenRun(_key(result.inserted_primary_key), now, orphans)


def _key(key: Any) -> int:
    return int(key[0])


def close_run(connection: Connection, run_id: int, outcome: str, facts: dict[str, Any]) -> None:
    """Write how the run ended, in the caller's transaction.

    Raises UnavailableError when the run is no longer `running`: somebody took it for dead, because its lock was lost
    with its connection, and has gone on from there. The caller's transaction must then not be committed.
    """
    statement = (
        update(sync_runs)
        .where(sync_runs.c.id == run_id, sync_runs.c.outcome == "running")
        .values(outcome=outcome, finished_at=datetime.now(UTC), **facts)
    )
    if connection.execute(statement).rowcount != 1:
        raise UnavailableError("another run of this source took over meanwhile; nothing was changed by this one",
                               code="overtaken")  # fmt: skip


def outcome_of(connection: Connection, run_id: int) -> str | None:
    """Return how a run ended, "running" if it has not, None if there is no such run."""
    return connection.scalar(select(sync_runs.c.outcome).where(sync_runs.c.id == run_id))


def failure_facts(error: EtlError) -> dict[str, Any]:
    """Columns of `sync_runs` that describe an error."""
    return {"error_code": error.code, "error_message": str(error)}
