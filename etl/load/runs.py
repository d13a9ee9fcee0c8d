"""The log of runs: every attempt leaves a row, and the row says how it ended."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, func, or_, select, update

from etl import __version__
from etl.db.dialects import insert_numbered
from etl.db.tables import sync_runs
from etl.errors import EtlError, UnavailableError, UsageError


class OpenRun(msgspec.Struct, frozen=True):
    """A run that has begun."""

    id: int
    started_at: datetime
    interrupted: tuple[int, ...]
    """Earlier runs of the source that were found `running`: their processes are gone, for the lock was free."""
    previous_outcome: str | None
    """How the source's last run ended that came to an end of its own; None when there was none.

    An interrupted run says nothing about the source, and nobody was told of it.
    """


def open_run(
    connection: Connection, source: str, origin: str, replay_of: int | None = None, *, above: int = 0
) -> OpenRun:
    """Mark what earlier runs left open as interrupted, and add a row for this one. The source's lock must be held.

    The run's number will be greater than `above`.
    """
    columns = sync_runs.c
    # One statement for two questions: which runs did nobody close, and how did the last one end?
    settled = (
        select(columns.id)
        .where(
            columns.source == source,
            columns.outcome != "running",
            or_(columns.error_code.is_(None), columns.error_code != "interrupted"),
        )
        .order_by(columns.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = select(columns.id, columns.outcome).where(
        columns.source == source, or_(columns.outcome == "running", columns.id == settled)
    )
    found = connection.execute(query).all()
    orphans = tuple(run_id for run_id, outcome in found if outcome == "running")
    previous = next((outcome for _, outcome in found if outcome != "running"), None)
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
    return OpenRun(insert_numbered(connection, sync_runs, row, above), now, orphans, previous)


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


def outcomes_of(connection: Connection, source: str, bodies: Mapping[int, str]) -> dict[int, str]:
    """Return how those of these runs ended that did end.

    `bodies` maps each run to the SHA-256 of what it received: a run of the same number that received something else
    belongs to another database. Of a run that was killed, the body is not known.
    """
    columns = sync_runs.c
    query = select(columns.id, columns.outcome, columns.body_sha256).where(
        columns.source == source, columns.id.in_(list(bodies)), columns.outcome != "running"
    )
    return {
        run_id: outcome
        for run_id, outcome, sha256 in connection.execute(query)
        if sha256 is None or sha256 == bodies[run_id]
    }


def newest_accepted(connection: Connection, source: str) -> int:
    """Return the run that received the newest body that ever became live, 0 where there is none.

    For a replay that is not the run which loaded it, but the one which had it from the source.
    """
    columns = sync_runs.c
    received_by = func.max(func.coalesce(columns["_replay_of"], columns.id))
    query = select(received_by).where(columns.source == source, columns.outcome == "succeeded")
    return connection.scalar(query) or 0


def live_body(connection: Connection, source: str) -> int:
    """Return the run that received the body which is live, 0 where there is none.

    It is older than the newest accepted one after a replay of an older body, and nothing received it where the source
    was retired.
    """
    columns = sync_runs.c
    query = select(func.coalesce(columns["_replay_of"], columns.id))
    own = columns.source == source, columns.outcome == "succeeded"
    return connection.scalar(query.where(*own).order_by(columns.id.desc()).limit(1)) or 0


def known_sources(connection: Connection) -> list[str]:
    """Return the names of all sources that ever had a run."""
    columns = sync_runs.c
    return list(connection.scalars(select(columns.source).distinct().order_by(columns.source)))


def refuse_unknown_source(connection: Connection, name: str) -> None:
    """Raise UsageError when the database knows no source of this name."""
    known = known_sources(connection)
    if name not in known:
        raise UsageError(
            f"the database has no source {name!r}; it has: {', '.join(known) or 'none'}", code="unknown_source"
        )


def failure_facts(error: EtlError) -> dict[str, Any]:
    """Columns of `sync_runs` that describe an error."""
    return {"error_code": error.code, "error_message": str(error)}
