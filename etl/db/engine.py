"""Open the configured database."""

from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from etl.db.dialects import connect_arguments, missing_driver, prepare_sessions, settle_url, sqlite_file
from etl.errors import ConfigError


def open_engine(url: str, *, migrating: bool = False, read_only: bool = False) -> Engine:
    """Return an engine for the configured URL, without connecting yet.

    `migrating` allows tables to be rebuilt; `read_only` makes the database refuse every write of this engine.
    Raises ConfigError for a URL that is malformed or not supported, and for a driver that is not installed.
    """
    settled = read_url(url)
    # A run uses one connection, and what belongs to it, its lock above all, has to end with it: nothing is pooled.
    try:
        engine = create_engine(
            settled,
            poolclass=NullPool,
            connect_args=connect_arguments(settled),
            hide_parameters=True,
            **_isolation(settled, read_only=read_only),
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise missing_driver(settled, getattr(error, "name", None)) from None
    except (ArgumentError, TypeError, ValueError):
        raise ConfigError("database.url: its options are not ones that the driver knows", code="bad_url") from None
    if engine.dialect.is_async:
        raise ConfigError(
            f"database.url: the driver {engine.driver} is asynchronous; leave the driver out of the URL", code="bad_url"
        )
    prepare_sessions(engine, migrating=migrating, read_only=read_only)
    return engine


def _isolation(url: URL, *, read_only: bool) -> dict[str, Any]:
    backend = url.get_backend_name()
    if backend == "sqlite":
        return {}
    if read_only:
        # All that a command reads in one transaction is of one moment.
        return {"isolation_level": "REPEATABLE READ"}
    # Rows of MariaDB are locked as they are read; gaps between them need not be.
    return {"isolation_level": "READ COMMITTED"} if backend in ("mysql", "mariadb") else {}


def read_url(url: str) -> URL:
    """Parse the configured URL; raises ConfigError, never quoting it, for it may hold a password."""
    try:
        settled = settle_url(make_url(url))
    except (ArgumentError, ValueError):
        raise ConfigError(
            'database.url is not a URL such as "sqlite:///numbers.db" or "postgresql://user:password@host/database"',
            code="bad_url",
        ) from None
    if settled.get_backend_name() == "sqlite" and sqlite_file(settled) is None:
        raise ConfigError("database.url: a database in memory would be gone when the command ends; name a file",
                          code="bad_url")  # fmt: skip
    return settled
