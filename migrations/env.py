"""Runs the revisions, on the connection that `etl db` hands over or, for a developer's `alembic`, a configured one."""

from alembic import context
from sqlalchemy import Connection

from etl.config import load_config
from etl.db.engine import open_engine
from etl.db.tables import metadata


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()


def _run_for_developer() -> None:
    with open_engine(load_config().database.url, migrating=True).begin() as connection:
        _run(connection)


handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    _run(handed_over)
else:
    _run_for_developer()
