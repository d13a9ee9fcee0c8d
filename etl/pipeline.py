"""One run, from the lock to the commit: extract, transform, compare, judge, load.

A run is a straight line with one failure boundary. It prints nothing; observers hear what happens.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import asdict
from sqlalchemy import Connection
from sqlalchemy.engine import Engine

from etl.config import Config, Http, Source, exposed_token_file, read_token
from etl.db.dialects import sqlite_file
from etl.db.engine import open_engine, read_url
from etl.db.failures import database_failures, may_succeed_again
from etl.db.locks import exclusive_lock, source_lock
from etl.db.migrate import ensure_schema
from etl.db.reading import reading
from etl.diff import compare
from etl.errors import ConfigError, DataRefusedError, EtlError, Interrupted
from etl.events import Action, Detail, Event, Level, Observer
from etl.extract.body import Body
from etl.guard import judge
from etl.load.apply import Boundary, apply
from etl.load.live import read_digests, read_known, read_records
from etl.load.quarantine import update_quarantine
from etl.load.runs import OpenRun, close_run, failure_facts, open_run, outcome_of
from etl.records import Changes, Counts, RunResult, Snapshot
from etl.report.run_events import tell_end, tell_newly_quarantined, tell_oddities
from etl.transform.snapshot import judge_records
from etl.transform.split import Elements, split
from etl.unforeseen import unforeseen

_Found = TypeVar("_Found")

_SIGINT_EXIT_CODE = 130
_LOAD_ATTEMPTS = 3
"""Of one transaction, when other transactions get in its way."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What one run is asked to do."""

    config: Config
    source: Source
    observer: Observer
    obtain: Callable[[], Body]
    """Gets the snapshot's body; called once, with no transaction open."""
    origin: str = "api"
    replay_of: int | None = None
    accept_removals: int | None = None
    check: Callable[[Connection], None] = lambda _: None
    """Raises UsageError when the job makes no sense with what is in the database; called before a run is opened."""


def api_job(config: Config, source: Source, observer: Observer, accept_removals: int | None = None) -> Job:
    """Return the usual job: ask the source. Raises ConfigError when there is no usable token."""
    token = read_token(source)
    if exposed := exposed_token_file(source):
        message = f"token_file {exposed} can be read by other users: chmod 600 it"
        observer(Event(Action.TOKEN_FILE_EXPOSED, Level.WARNING, source.name, message=message))
    return Job(
        config=config,
        source=source,
        observer=observer,
        obtain=lambda: _fetch(source, token, config.http, observer),
        accept_removals=accept_removals,
    )


def _fetch(source: Source, token: str, http: Http, observer: Observer) -> Body:
    from etl.extract.client import fetch  # noqa: PLC0415 - a run from a file needs no HTTP

    return fetch(source, token, http, observer)


def file_job(config: Config, source: Source, observer: Observer, path: str, accept_removals: int | None = None) -> Job:
    """Return the job of loading a saved response body."""
    from etl.extract.file import read_file  # noqa: PLC0415 - a run from the source needs no file

    return Job(
        config=config,
        source=source,
        observer=observer,
        obtain=lambda: read_file(path, config.http.max_body_bytes),
        origin="file",
        accept_removals=accept_removals,
    )


class _Progress(msgspec.Struct):
    """What a run has found out so far, to be written down however it ends."""

    started: float
    run: OpenRun | None = None
    facts: dict[str, int | str | None] = msgspec.field(default_factory=dict)
    counts: Counts | None = None

    def result(self, job: Job, outcome: str, error: EtlError | None = None) -> RunResult:
        return RunResult(
            source=job.source.name,
            outcome=outcome,
            run_id=self.run.id if self.run else None,
            error=error,
            counts=self.counts,
            facts=self.facts,
            seconds=time.monotonic() - self.started,
        )


def sync(make_job: Callable[[], Job], source: Source, observer: Observer, *, dry_run: bool = False) -> RunResult:
    """Run one job; an error of any kind becomes a result that tells of it, except an interruption, which is raised."""
    progress = _Progress(time.monotonic())
    try:
        with _bugs_reported():
            job = make_job()
            result = compare_only(job, progress) if dry_run else _sync(job, progress)
    except EtlError as error:
        # Before a run was opened, or, in a dry run, at any point.
        result = RunResult(
            source=source.name,
            outcome="refused" if isinstance(error, DataRefusedError) else "failed",
            error=error,
            facts=progress.facts | _facts_of(error),
            seconds=time.monotonic() - progress.started,
        )
    tell_end(result, observer)
    return result


def _sync(job: Job, progress: _Progress) -> RunResult:
    url = job.config.database.url
    _refuse_to_create(url, job.config.database.migrate)
    engine = open_engine(url)
    with database_failures(), engine.connect() as connection:
        if upgraded := ensure_schema(url, connection, migrate=job.config.database.migrate):
            job.observer(Event(Action.SCHEMA_UPGRADED, message=f"schema is now at {upgraded}"))
        with exclusive_lock(connection, source_lock(job.source.name)):
            result = _run(job, engine, connection, progress)
            _tidy_archive(job, connection, progress, result)
            return result


def _refuse_to_create(url: str, migrate: str) -> None:
    file = sqlite_file(read_url(url))
    if migrate == "check" and file and not Path(file).exists():
        raise ConfigError(f"there is no database {file}: run `etl db upgrade`", code="schema_old")


def _run(job: Job, engine: Engine, connection: Connection, progress: _Progress) -> RunResult:
    with database_failures(), connection.begin():
        job.check(connection)
        above = _newest_archived_run(job)
        progress.run = open_run(connection, job.source.name, job.origin, job.replay_of, above=above)
    _tell_start(job, progress.run)
    try:
        with _bugs_reported():
            outcome, refusal = _load(job, connection, progress)
    except EtlError as error:
        return _settle(job, engine, connection, progress, error)
    except (KeyboardInterrupt, Interrupted) as signal:
        interruption = EtlError("ended by a signal; what was open was rolled back", code="interrupted")
        result = _settle(job, engine, connection, progress, interruption)
        tell_end(result, job.observer, getattr(signal, "exit_code", _SIGINT_EXIT_CODE))
        raise
    return progress.result(job, outcome, refusal)


def _load(job: Job, connection: Connection, progress: _Progress) -> tuple[str, EtlError | None]:
    with _received(job, progress) as body:
        _tell(job, progress, Action.BODY_RECEIVED, details={"bytes": body.size})
        _archive(job, progress, body)
        elements = split(body.view)
    with database_failures(), connection.begin():
        known = read_known(connection, job.source.name)
    snapshot, changes = _compare(job, elements, known, connection, progress)
    refusal = judge(job.source.name, changes, snapshot, job.config.guard, job.accept_removals)
    run_id = _opened(progress).id
    if refusal:
        error = refusal.error()
        with database_failures(), connection.begin():
            fresh = update_quarantine(connection, job.source.name, run_id, snapshot.rejections)
            close_run(connection, run_id, "refused", progress.facts | failure_facts(error))
        tell_newly_quarantined(partial(_tell, job, progress), fresh)
        return "refused", error
    _commit(job, connection, progress, snapshot, changes)
    return "succeeded", None


@contextmanager
def _received(job: Job, progress: _Progress) -> Iterator[Body]:
    """Obtain the body, and note what was received however the block ends: at its end, for it is hashed meanwhile."""
    with closing(job.obtain()) as body:
        try:
            yield body
        finally:
            # Nobody sent the list that retires a source.
            if job.origin != "prune":
                progress.facts.update(_facts_of_body(body))


def _compare(
    job: Job, elements: Elements, known: Mapping[bytes, int], connection: Connection | None, progress: _Progress
) -> tuple[Snapshot, Changes]:
    snapshot = judge_records(elements, known)
    progress.facts.update(
        records_received=snapshot.received,
        records_quarantined=len(snapshot.rejections),
        records_outside_filter=snapshot.outside_filter,
    )
    tell_oddities(partial(_tell, job, progress), snapshot)

    def of_live(read: Callable[..., _Found], ids: Collection[int]) -> _Found:
        if connection is None:
            raise AssertionError("where there is no database, nothing is live")
        # A dry run holds no lock, and reads everything in one transaction.
        with database_failures(), nullcontext() if connection.in_transaction() else connection.begin():
            return read(connection, job.source.name, ids)

    changes = compare(known, snapshot, partial(of_live, read_digests), partial(of_live, read_records))
    progress.counts = changes.counts()
    _tell(job, progress, Action.CHANGES_FOUND, details=asdict(progress.counts))
    return snapshot, changes


def _commit(job: Job, connection: Connection, progress: _Progress, snapshot: Snapshot, changes: Changes) -> None:
    run = _opened(progress)
    boundary = Boundary(job.source.name, run.id, run.started_at)
    counts = asdict(progress.counts) if progress.counts else {}
    for attempt in range(1, _LOAD_ATTEMPTS + 1):
        try:
            with database_failures(), connection.begin():
                apply(connection, boundary, changes)
                fresh = update_quarantine(connection, job.source.name, run.id, snapshot.rejections)
                close_run(connection, run.id, "succeeded", progress.facts | counts)
        except EtlError as error:
            if attempt == _LOAD_ATTEMPTS or not may_succeed_again(error):
                raise
            _tell(job, progress, Action.LOAD_RETRIED, Level.WARNING, str(error))
        else:
            tell_newly_quarantined(partial(_tell, job, progress), fresh)
            return


def _newest_archived_run(job: Job) -> int:
    """Return the number that this run's must exceed: a database made anew goes on where its archive ends."""
    if not job.config.archive.directory:
        return 0
    from etl.extract.archive import newest_archived_run  # noqa: PLC0415 - most runs keep no archive

    return newest_archived_run(job.config.archive.directory)


def _archive(job: Job, progress: _Progress, body: Body) -> None:
    """Store the body before any of it is loaded: whatever became live can be loaded again."""
    directory = job.config.archive.directory
    if not directory or job.origin not in ("api", "file"):
        return
    from etl.extract.archive import store  # noqa: PLC0415 - as above

    run = _opened(progress)
    stored = store(directory, job.source.name, run.id, run.started_at, body)
    details = {"bytes": body.size, "compressed_bytes": stored.compressed_size}
    _tell(job, progress, Action.BODY_ARCHIVED, details=details)


def _tidy_archive(job: Job, connection: Connection, progress: _Progress, result: RunResult) -> None:
    if not job.config.archive.directory:
        return
    from etl.archiving import tidy  # noqa: PLC0415 - as above

    replayed = job.replay_of if result.outcome == "succeeded" else None
    try:
        tidy(job.config.archive, connection, job.source.name, _opened(progress).id, replayed)
    except EtlError as error:
        _tell(job, progress, Action.ARCHIVE_UNTIDY, Level.WARNING, f"{error}; the next run tries again")


def _settle(job: Job, engine: Engine, connection: Connection, progress: _Progress, error: EtlError) -> RunResult:
    """Write down how a failed run ended, or find out that it did not fail: a lost reply to a commit proves nothing."""
    progress.facts.update(_facts_of(error))
    outcome = "refused" if isinstance(error, DataRefusedError) else "failed"
    run_id = _opened(progress).id
    with suppress(EtlError), database_failures():
        # Not on the run's own connection: that may be what failed.
        _abandon(connection, error)
        with engine.connect() as fresh, fresh.begin():
            with suppress(EtlError):
                close_run(fresh, run_id, outcome, progress.facts | failure_facts(error))
            if outcome_of(fresh, run_id) == "succeeded":
                return progress.result(job, "succeeded")
    return progress.result(job, outcome, error)


def _abandon(connection: Connection, error: EtlError) -> None:
    """Roll back, or end the session where a signal or a failure has left it in a state that nobody knows."""
    try:
        connection.rollback()
    except Exception:  # noqa: BLE001 - whatever it is, the session cannot be used
        connection.invalidate()
    if error.code == "interrupted" and not connection.invalidated:
        connection.invalidate()


@contextmanager
def _bugs_reported() -> Iterator[None]:
    """Be the failure boundary: what nobody expected becomes an error that names its place, and no more than that."""
    try:
        yield
    except EtlError:
        raise
    except Exception as error:
        raise unforeseen(error) from error


def compare_only(job: Job, progress: _Progress) -> RunResult:
    """Do all of a run but write: a dry run."""
    with _bugs_reported(), reading(job.config.database.url) as connection:
        if connection is not None:
            with database_failures(), connection.begin():
                job.check(connection)
        with _received(job, progress) as body:
            elements = split(body.view)
        with database_failures(), connection.begin() if connection else nullcontext():
            known = read_known(connection, job.source.name) if connection else {}
            snapshot, changes = _compare(job, elements, known, connection, progress)
    refusal = judge(job.source.name, changes, snapshot, job.config.guard, job.accept_removals)
    return RunResult(
        source=job.source.name,
        outcome="refused" if refusal else "succeeded",
        error=refusal.error() if refusal else None,
        counts=progress.counts,
        facts=progress.facts,
        seconds=time.monotonic() - progress.started,
        changes=changes,
        rejections=snapshot.rejections,
    )


def _opened(progress: _Progress) -> OpenRun:
    if progress.run is None:
        raise AssertionError("no run is open")
    return progress.run


def _facts_of(error: EtlError) -> dict[str, int | str | None]:
    facts = {"http_status": error.http_status, "attempts": error.attempts}
    return {name: value for name, value in facts.items() if value is not None}


def _facts_of_body(body: Body) -> dict[str, int | str | None]:
    return {
        "http_status": body.http_status,
        "attempts": body.attempts,
        "body_bytes": body.size,
        "body_sha256": body.sha256,
    }


# Telling the observers ------------------------------------------------------------------------------------------------


def _tell(
    job: Job,
    progress: _Progress,
    action: Action,
    level: Level = Level.INFO,
    message: str = "",
    details: Mapping[str, Any] | None = None,
) -> None:
    run_id = progress.run.id if progress.run else None
    job.observer(Event(action, level, job.source.name, run_id, message, dict(details or {})))


def _tell_start(job: Job, run: OpenRun) -> None:
    details: dict[str, Detail] = {"origin": job.origin, "previous_outcome": run.previous_outcome}
    job.observer(Event(Action.RUN_STARTED, Level.INFO, job.source.name, run.id, details=details))
    for interrupted in run.interrupted:
        message = f"run {interrupted} had ended without a word; it is now marked failed, interrupted"
        job.observer(Event(Action.RUN_INTERRUPTED_EARLIER, Level.WARNING, job.source.name, run.id, message))


def sync_all(
    jobs: Sequence[tuple[Source, Callable[[], Job]]], observer: Observer, *, dry_run: bool = False
) -> list[RunResult]:
    """Run the jobs one after the other, whatever becomes of those before."""
    observer(Event(Action.SYNC_STARTED, details={"sources": len(jobs), "dry_run": dry_run}))
    results = [sync(make_job, source, observer, dry_run=dry_run) for source, make_job in jobs]
    details: dict[str, Detail] = {"exit_code": exit_code(results)}
    for outcome in ("succeeded", "refused", "failed"):
        details[outcome] = sum(result.outcome == outcome for result in results)
    observer(Event(Action.SYNC_FINISHED, details=details))
    return results


def exit_code(results: Sequence[RunResult]) -> int:
    """Exit code of a command: that of the first run that failed, in the order of the file."""
    return next((result.exit_code for result in results if result.exit_code), 0)
