"""Which schema revision the database has, and which one this version needs: without importing Alembic."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

import etl
from etl.errors import ConfigError

VERSION_TABLE = "alembic_version"


def migrations_folder() -> Path:
    """Return the folder of migrations: inside an installed package, or beside it in a checkout."""
    package = Path(etl.__file__).parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def known_revisions() -> list[str]:
    """Return all revisions this version knows, the oldest first: files are named by date, and revisions by file."""
    return sorted(file.stem for file in (migrations_folder() / "versions").glob("[0-9]*.py"))


def needed_revision() -> str:
    """Return the revision whose tables this version reads and writes."""
    return known_revisions()[-1]


def current_revision(connection: Connection) -> str | None:
    """Return the database's revision, None when it has no schema of ours yet."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant


def refuse_unknown(revision: str | None) -> None:
    """Raise ConfigError when the database is at a revision that this version does not know."""
    if revision is not None and revision not in known_revisions():
        raise ConfigError(
            f"the database is at revision {revision}, which this version does not know: install the newer version of "
            "virtual-numbers-etl that made it",
            code="schema_unknown",
        )
