"""Checks of what lies on this machine: who may read it, and how much room is left."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from etl.config import Config, Source, exposed_token_file
from etl.db.dialects import sqlite_file
from etl.db.engine import read_url
from etl.errors import StorageError
from etl.health.finding import Finding, failed, ok, warning

_ENOUGH_BYTES = 500_000_000
_TOO_LITTLE_BYTES = 50_000_000


def file_rights(config: Config, config_file: Path | None, sources: Sequence[Source]) -> Iterator[Finding]:
    """Check that files with secrets or personal data can be read by their owner alone."""
    check = "file rights"
    exposed: list[tuple[Path, str]] = []
    if config_file and _holds_secrets(config) and _readable_by_others(config_file):
        exposed.append((config_file, "holds a token or a password"))
    exposed += [(Path(name), "holds a token") for name in map(exposed_token_file, sources) if name]
    exposed += [(file, "holds the numbers") for file in _database_files(config) if _readable_by_others(file)]
    archive = Path(config.archive.directory) if config.archive.directory else None
    if archive and _readable_by_others(archive):
        exposed.append((archive, "holds response bodies"))
    for file, what in exposed:
        mode = "700" if file.is_dir() else "600"
        yield warning(check, f"{file} {what} and can be read by other users", f"chmod {mode} {file}")
    if not exposed:
        yield ok(check, "no file with secrets or numbers can be read by other users")


def _holds_secrets(config: Config) -> bool:
    in_url = not os.environ.get("ETL_DATABASE_URL") and read_url(config.database.url).password is not None
    return in_url or bool(config.ping.url or config.notify.urls) or any(source.token for source in config.sources)


def _database_files(config: Config) -> list[Path]:
    file = sqlite_file(read_url(config.database.url))
    return [Path(f"{file}{suffix}") for suffix in ("", "-wal", "-shm")] if file else []


def _readable_by_others(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # there is nothing that anybody could read
    return bool(mode & (stat.S_IRGRP | stat.S_IROTH))


def textfile_folder(config: Config) -> Iterator[Finding]:
    """Check that the figures can be written where the configuration wants them."""
    if not config.metrics.textfile:
        return
    folder = Path(config.metrics.textfile).absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        message = f"metrics.textfile: the folder {folder} is missing or cannot be written to"
        yield warning("integrations", message, "make it, and give this user the right")


def disk_space(config: Config) -> Iterator[Finding]:
    """Check the folders that a run writes to."""
    check = "disk space"
    try:
        yield _room(Path(tempfile.gettempdir()), "the temporary folder", "set TMPDIR to a larger disk, or make room")
    except FileNotFoundError:
        message = "there is no temporary folder that this user may write to: set TMPDIR to one"
        yield failed(check, StorageError(message, code="io_error"))
    if file := sqlite_file(read_url(config.database.url)):
        yield _room(Path(file).absolute().parent, "the database's folder", "make room there")
    if config.archive.directory:
        yield _room(Path(config.archive.directory).absolute(), "the archive", "make room there, or lower archive.keep")


def _room(folder: Path, what: str, advice: str) -> Finding:
    check = "disk space"
    # A folder that a run will make is on the disk of the nearest one that is there.
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        message = f"{what}, {folder}, cannot be written to: give this user the right, or name another"
        return failed(check, StorageError(message, code="io_error"))
    free = shutil.disk_usage(existing).free
    room = f"{free / 1e6:,.0f} MB free in {what}, {folder}"
    if free < _TOO_LITTLE_BYTES:
        return failed(check, StorageError(f"only {room}: {advice}", code="disk_full"))
    return warning(check, f"only {room}", advice) if free < _ENOUGH_BYTES else ok(check, room)
