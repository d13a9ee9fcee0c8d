"""Connect for reading only, without making anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection

from etl.db.dialects import sqlite_file
from etl.db.engine import open_engine, read_url
from etl.db.failures import database_failures
from etl.db.revision import current_revision, needed_revision, refuse_unknown
from etl.errors import ConfigError


@contextmanager
def reading(url: str) -> Iterator[Connection | None]:
    """Yield a connection that cannot write, or None where there is no schema yet.

    Raises ConfigError when the schema is at another revision than this version needs.
    """
    with _connected(url) as connection:
        revision = current_revision(connection) if connection else None
        refuse_unknown(revision)
        if revision not in (None, needed_revision()):
            raise ConfigError(
                f"the database is at revision {revision}, this version needs {needed_revision()}: run `etl db upgrade`",
                code="schema_old",
            )
        if connection:
            connection.rollback()
        yield connection if revision else None


def current_only(url: str) -> str | None:
    """Return the schema's revision, whatever it is; None where there is no schema yet."""
    with _connected(url) as connection:
        return current_revision(connection) if connection else None


@contextmanager
def _connected(url: str) -> Iterator[Connection | None]:
    file = sqlite_file(read_url(url))
    if file and not Path(file).exists():
        yield None
        return
    with database_failures(), open_engine(url, read_only=True).connect() as connection:
        yield connection
