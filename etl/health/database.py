"""Checks of the database: is it there, may this user use it, is it as a load needs it, and who is at work in it."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.engine import Engine

from etl.config import Config, Source
from etl.db.dialects import sqlite_file
from etl.db.engine import open_engine
from etl.db.failures import database_failures
from etl.db.lock_holders import find_holder
from etl.db.locks import source_lock
from etl.db.revision import current_revision, needed_revision, refuse_unknown
from etl.db.rights import try_create, try_rows
from etl.db.settings import remarks, server_name
from etl.errors import ConfigError, EtlError, NotPermittedError
from etl.health.finding import Finding, State, attempt, failed, ok, skipped, warning

CHECKS = ("driver", "database", "rights", "schema", "settings", "lock")


def database_checks(config: Config, sources: Sequence[Source]) -> Iterator[Finding]:
    """Check the database, as far as it can be reached. Nothing stays written."""
    try:
        engine = open_engine(config.database.url)
    except EtlError as error:
        yield failed("driver", error)
        yield from _skip(CHECKS[1:], "there is no driver to connect with")
        return
    yield ok("driver", f"{engine.dialect.name} through {engine.driver}")
    file = sqlite_file(engine.url)
    if file and not Path(file).exists():
        # Connecting would make it.
        yield from attempt("database", lambda: _file_to_come(Path(file), config.database.migrate))
        yield from _skip(CHECKS[2:], "there is no database yet")
        return
    yield from _connected_checks(engine, config, sources)


def _skip(checks: Sequence[str], why: str) -> Iterator[Finding]:
    for check in checks:
        yield skipped(check, why)


def _file_to_come(file: Path, migrate: str) -> Finding:
    if not os.access(file.absolute().parent, os.W_OK | os.X_OK):
        message = f"{file} cannot be made: create its folder, and let this user write there"
        raise NotPermittedError(message, code="database_unreadable")
    if migrate == "check":
        raise ConfigError(f"there is no database {file}: run `etl db upgrade`", code="schema_old")
    return ok("database", f"{file} is not there yet; the first `etl sync` makes it")


def _connected_checks(engine: Engine, config: Config, sources: Sequence[Source]) -> Iterator[Finding]:
    try:
        with database_failures(), engine.connect() as connection:
            yield ok("database", f"{server_name(connection)} answers")
            yield from attempt("rights", lambda: _rights(connection))
            yield from attempt("schema", lambda: _schema(connection, config.database.migrate))
            yield from attempt("settings", lambda: _settings(connection))
            for source in sources:
                yield from attempt("lock", lambda: _lock(connection, source), source.name)  # noqa: B023 - called at once
    except EtlError as error:
        yield failed("database", error)
        yield from _skip(CHECKS[2:], "the database cannot be reached")


def _revision(connection: Connection) -> str | None:
    with database_failures(), connection.begin():
        return current_revision(connection)


def _rights(connection: Connection) -> Finding:
    tables = try_rows(connection)
    if _revision(connection) == needed_revision():
        # Nothing has to be made, so the right to make it may well have been taken away.
        return ok("rights", f"this user may read and write all {tables} tables")
    if missing := try_create(connection):
        return warning(
            "rights",
            f"no grant of {', '.join(sorted(missing))} is to be seen, which an upgrade of the schema needs",
            "grant them to this user, or run `etl db upgrade` as another",
        )
    return ok("rights", f"this user may create tables, and read and write the {tables} that are there")


def _schema(connection: Connection, migrate: str) -> Finding:
    revision, needed = _revision(connection), needed_revision()
    if revision == needed:
        return ok("schema", f"at revision {revision}")
    refuse_unknown(revision)
    have = f"the database is at revision {revision}" if revision else "the database has no tables yet"
    if migrate == "check":
        raise ConfigError(f"{have}, this version needs {needed}: run `etl db upgrade`", code="schema_old")
    return ok("schema", f"{have}; the next `etl sync` brings it to {needed}")


def _settings(connection: Connection) -> Iterator[Finding]:
    with database_failures():
        found = list(remarks(connection))
    for remark in found:
        if remark.error:
            yield failed("settings", remark.error)
        else:
            yield warning("settings", remark.message, remark.advice)
    if not found:
        yield ok("settings", "as a load needs them")


def _lock(connection: Connection, source: Source) -> Finding:
    try:
        with database_failures(), connection.begin():
            holder = find_holder(connection, source_lock(source.name))
    except LookupError:
        return Finding(
            check="lock", state=State.SKIPPED, message="this system does not tell who holds a lock", source=source.name
        )
    if holder:
        return ok("lock", f"a run is in progress: {holder.description}", source.name)
    return ok("lock", "no run is in progress", source.name)
