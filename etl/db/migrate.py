"""Run Alembic's migrations, from a checkout and from an installed wheel alike."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

from sqlalchemy import Connection, inspect, text

from etl.db.engine import open_engine
from etl.db.failures import database_failures
from etl.db.locks import MIGRATION_LOCK, exclusive_lock
from etl.db.revision import current_revision, known_revisions, migrations_folder, needed_revision, refuse_unknown
from etl.errors import BusyError, ConfigError, UsageError

_WAIT_SECONDS = 60.0


def ensure_schema(engine_url: str, connection: Connection, *, migrate: str) -> str | None:
    """Bring the schema to the needed revision, or see that it is there.

    Returns the new revision if it upgraded, else None. Raises ConfigError when `migrate` is "check" and the schema is
    not at the needed revision, and always when it is at one that this version does not know.
    """
    with database_failures(), connection.begin():
        current = current_revision(connection)
    if current == needed_revision():
        return None
    refuse_unknown(current)
    if migrate == "check":
        have = f"at revision {current}" if current else "without a schema"
        raise ConfigError(
            f"the database is {have}, this version needs {needed_revision()}: run `etl db upgrade`", code="schema_old"
        )
    return upgrade(engine_url)


def upgrade(url: str) -> str | None:
    """Bring the schema to the needed revision; returns it, or None when it was there already."""
    with _migrating(url) as connection:
        before = _current(connection)
        refuse_unknown(before)
        if before == needed_revision():
            return None
        _run_alembic(connection, "upgrade", "head")
        return needed_revision()


def downgrade(url: str, revision: str, *, accept_loss: bool) -> str | None:
    """Bring the schema back to a revision, "base" or a number of steps such as "-1"; returns where it is now.

    Raises UsageError when that would delete rows and `accept_loss` is not given, or there is no such revision.
    """
    with _migrating(url) as connection:
        current = _current(connection)
        refuse_unknown(current)
        undone = _undone_by(current, revision)
        if not accept_loss:
            _refuse_loss(connection, undone)
        if undone:
            _run_alembic(connection, "downgrade", revision)
        return _current(connection)


def _undone_by(current: str | None, target: str) -> list[str]:
    known = known_revisions()
    done = known[: known.index(current) + 1] if current else []
    if target == "base":
        keep = 0
    elif target.startswith("-") and target[1:].isdigit() and 0 < int(target[1:]) <= len(done):
        keep = len(done) - int(target[1:])
    elif target in done:
        keep = done.index(target) + 1
    else:
        raise UsageError(f"no revision {target} lies below {current or 'an empty schema'}; there are: base, "
                         f"{', '.join(known)}", code="no_revision")  # fmt: skip
    return done[keep:]


def _refuse_loss(connection: Connection, undone: list[str]) -> None:
    with connection.begin():
        existing = set(inspect(connection).get_table_names())
        doomed = {table for revision in undone for table in _load(revision).drops_rows_of} & existing
        lost = {table: _count(connection, table) for table in sorted(doomed)}
    if any(lost.values()):
        rows = ", ".join(f"{count} of {table}" for table, count in lost.items() if count)
        raise UsageError(f"this would delete rows ({rows}); add --yes if they may go", code="rows_would_be_lost")


def _count(connection: Connection, table: str) -> int:
    return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())  # noqa: S608 - our own names


def _load(revision: str) -> ModuleType:
    spec = spec_from_file_location(revision, migrations_folder() / "versions" / f"{revision}.py")
    if spec is None or spec.loader is None:
        raise ConfigError(f"the file of revision {revision} is missing; install virtual-numbers-etl again")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _migrating(url: str) -> Iterator[Connection]:
    engine = open_engine(url, migrating=True)
    with database_failures(), engine.connect() as connection, _waiting_for_lock(connection):
        yield connection


@contextmanager
def _waiting_for_lock(connection: Connection) -> Iterator[None]:
    # Whoever comes second finds the work done: several first runs at once are no error.
    end = time.monotonic() + _WAIT_SECONDS
    while True:
        lock = exclusive_lock(connection, MIGRATION_LOCK)
        try:
            lock.__enter__()
        except BusyError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            break
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _current(connection: Connection) -> str | None:
    with connection.begin():
        return current_revision(connection)


def _run_alembic(connection: Connection, direction: str, revision: str) -> None:
    from alembic import command  # noqa: PLC0415 - costs more start-up time than a run that has nothing to migrate
    from alembic.config import Config  # noqa: PLC0415 - as above

    config = Config()
    # ConfigParser would take a per cent sign in the path for an interpolation.
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes["connection"] = connection
    run: Callable[[Config, str], None] = getattr(command, direction)
    with connection.begin():
        run(config, revision)
