"""Open the database for a command that only reads."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from etl.config import Config
from etl.db.failures import database_failures
from etl.db.reading import reading
from etl.errors import ConfigError


@contextmanager
def connected(config: Config) -> Iterator[Connection]:
    """Connect inside one transaction, so that all that is read is of one moment.

    Raises ConfigError when there is no schema yet.
    """
    with reading(config.database.url) as connection:
        if connection is None:
            raise ConfigError("the database has no tables yet: run `etl sync`", code="schema_missing")
        with database_failures(), connection.begin():
            yield connection
