"""Runs that ask no source: of bodies out of the archive, and of a source that is no longer configured."""

from collections.abc import Iterator
from functools import partial

from msgspec.structs import replace
from sqlalchemy import Connection

from etl.config import Config, Guard, Source
from etl.db.failures import database_failures
from etl.db.reading import reading
from etl.errors import ConfigError, UsageError
from etl.events import Observer
from etl.extract.archive import StoredBody, read_stored, stored_bodies
from etl.extract.body import Body, BodyWriter
from etl.load.runs import newest_accepted, refuse_unknown_source
from etl.pipeline import Job, sync
from etl.records import RunResult

_NOTHING = b"[]"
_NO_GUARD = Guard(max_removed_fraction=1.0, allow_empty=True, max_quarantined_fraction=1.0)


def archive_directory(config: Config) -> str:
    """Return the archive's folder; raises ConfigError when none is configured."""
    if not config.archive.directory:
        raise ConfigError("there is no archive: set archive.directory to a folder", code="no_archive")
    return config.archive.directory


def find_body(config: Config, run_id: int, source: str | None = None) -> StoredBody:
    """Return the archived body that a run received; raises UsageError when there is none."""
    directory = archive_directory(config)
    names = [config.source(source).name] if source else [source.name for source in config.sources]
    found = [body for name in names for body in stored_bodies(directory, name) if body.run_id == run_id]
    if not found:
        raise UsageError(f"no body of run {run_id} is in the archive; `etl archive list` shows those that are",
                         code="not_archived")  # fmt: skip
    if len(found) > 1:
        raise UsageError(
            f"the archive holds {len(found)} bodies of run {run_id}; say which with --source, or load a file of your "
            "choice with `etl sync --from-file`",
            code="ambiguous_run",
        )
    return found[0]


def replay_job(
    config: Config, stored: StoredBody, observer: Observer, accept_removals: int | None = None, *, older: bool = False
) -> Job:
    """Return the job of loading an archived body again; one older than what was accepted since only if `older`."""
    return Job(
        config=config,
        source=config.source(stored.source),
        observer=observer,
        obtain=lambda: read_stored(stored, config.http.max_body_bytes),
        origin="archive",
        replay_of=stored.run_id,
        accept_removals=accept_removals,
        check=lambda connection: None if older else _refuse_older(connection, stored),
    )


def _refuse_older(connection: Connection, stored: StoredBody) -> None:
    newest = newest_accepted(connection, stored.source)
    if stored.run_id < newest:
        raise UsageError(
            f"the body of run {stored.run_id} is older than that of run {newest}, which was accepted; "
            "add --older to load it all the same",
            code="older_body",
        )


def accepted_bodies(config: Config, source: Source, *, older: bool = False) -> list[StoredBody]:
    """Return the bodies that bring a database to where its archive ends, in order.

    Left out are those that were refused or not loaded when they were received, and, unless `older`, those from before
    the newest body that the database has accepted: so an interrupted rebuild, or a restored backup, goes on from there.
    """
    bodies = stored_bodies(archive_directory(config), source.name)
    with reading(config.database.url) as connection:
        newest = 0
        if connection is not None and not older:
            with database_failures(), connection.begin():
                newest = newest_accepted(connection, source.name)
    return [body for body in bodies if body.outcome in ("succeeded", None) and body.run_id > newest]


def rebuild(
    config: Config, bodies: list[StoredBody], observer: Observer, *, older: bool = False
) -> Iterator[RunResult]:
    """Load bodies one after the other; ends early after one that failed, for the history must have no gap.

    The guard judges only those of which the archive does not know that they were accepted: a person may have allowed
    what it would refuse.
    """
    unguarded = replace(config, guard=_NO_GUARD)
    for stored in bodies:
        settings = unguarded if stored.outcome else config
        job = partial(replay_job, settings, stored, observer, older=older)
        result = sync(job, config.source(stored.source), observer)
        yield result
        if result.outcome == "failed":
            return


def retirement_job(config: Config, name: str, observer: Observer) -> Job:
    """Return the job of moving all that is live of a source into history, as though it had sent no number at all.

    The source is one that the configuration no longer names.
    """
    return Job(
        config=replace(config, guard=_NO_GUARD),
        source=Source(name=name),
        observer=observer,
        obtain=_no_number,
        origin="prune",
        check=lambda connection: refuse_unknown_source(connection, name),
    )


def _no_number() -> Body:
    writer = BodyWriter(len(_NOTHING))
    writer.write(_NOTHING)
    return writer.finish()
