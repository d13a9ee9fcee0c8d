"""Stored response bodies: one file a run, from which a database can be made again.

    <directory>/<source>/<run>-<time>-<sha256>[-<outcome>].json.gz

The name holds all there is to know, so a listing of the folder is the archive's index, in the order of the runs, and
`zcat FILE | sha256sum` proves a file without the database. How the run ended is added to the name once that is known;
without it a rebuild could not tell the snapshots that were accepted from those that were refused.
Whoever writes here holds the source's lock.
"""

import gzip
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec

from etl.errors import StorageError
from etl.extract.body import CHUNK_BYTES, Body, storage_failures
from etl.extract.file import read_file

_NAME = r"(\d{12,19})-(\d{8}T\d{6}Z)-([0-9a-f]{64})(?:-(succeeded|refused|failed))?\.json\.gz"
_COMPRESSION_LEVEL = 3
"""26 MB of a body become 3.3 MB in 0.23 s; level 6 makes 2.7 MB of them in 0.46 s, level 1 makes 3.8 MB in 0.18 s."""


class StoredBody(msgspec.Struct, frozen=True):
    """A response body in the archive."""

    path: Path
    source: str
    run_id: int
    """The run that received it."""
    received_at: datetime
    """`started_at` of that run, to the second."""
    sha256: str
    """Of the body after decompression, hexadecimal."""
    outcome: str | None
    """succeeded, refused or failed, as it is noted in the name; None when that is not known yet."""

    @classmethod
    def parse(cls, path: Path) -> Self | None:
        """Read a file's name; None when it is none of the archive's."""
        match = re.fullmatch(_NAME, path.name)
        if not match:
            return None
        run_id, moment, sha256, outcome = match.groups()
        try:
            received_at = datetime.fromisoformat(moment)
        except ValueError:
            return None
        return cls(path, path.parent.name, int(run_id), received_at, sha256, outcome)

    @property
    def compressed_size(self) -> int:
        """Size of the file in bytes."""
        with storage_failures(str(self.path)):
            return self.path.stat().st_size

    @property
    def size(self) -> int:
        """Size of the body in bytes, modulo 4 GiB: gzip's trailer holds no more (RFC 1952, section 2.3.1)."""
        with storage_failures(str(self.path)), self.path.open("rb") as file:
            file.seek(max(0, self.compressed_size - 4))
            return int.from_bytes(file.read(4), "little")


def store(directory: str, source: str, run_id: int, started_at: datetime, body: Body) -> StoredBody:
    """Store a body for good before it is loaded; when this returns, it has survived a power cut.

    Raises StorageError when that cannot be promised; then nothing of it is left behind.
    """
    folder = Path(directory) / source
    target = folder / _name(run_id, started_at, body.sha256)
    partial = folder / f".{target.name}.part"
    with storage_failures(f"archive {folder}"):
        _make_private(folder)
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                with gzip.GzipFile("", "wb", _COMPRESSION_LEVEL, file, mtime=0) as compressed:
                    for piece in _pieces(body):
                        compressed.write(piece)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(folder)
    return StoredBody(target, source, run_id, started_at, body.sha256, None)


def _name(run_id: int, moment: datetime, sha256: str, outcome: str | None = None) -> str:
    end = f"-{outcome}" if outcome else ""
    return f"{run_id:012d}-{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}-{sha256}{end}.json.gz"


def _pieces(body: Body) -> Iterator[memoryview]:
    view = body.view
    for start in range(0, len(view), CHUNK_BYTES):
        yield view[start : start + CHUNK_BYTES]


def _make_private(folder: Path) -> None:
    missing = [folder, *folder.parents]
    for path in reversed(missing[: next(index for index, path in enumerate(missing) if path.is_dir())]):
        path.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # A new name lasts only when its folder is on the disk too.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stored_bodies(directory: str, source: str) -> list[StoredBody]:
    """Return the bodies of a source in the order of their runs."""
    folder = Path(directory) / source
    with storage_failures(f"archive {folder}"):
        files = list(folder.iterdir()) if folder.is_dir() else []
    found = filter(None, map(StoredBody.parse, files))
    return sorted(found, key=lambda stored: (stored.run_id, stored.received_at))


def archived_sources(directory: str) -> list[str]:
    """Return the names of all sources that have a folder in the archive."""
    with storage_failures(f"archive {directory}"):
        root = Path(directory)
        return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def newest_archived_run(directory: str) -> int:
    """Return the greatest number of any run in the archive, 0 where there is none.

    An archive that cannot be read has none: the run that asks will say so when it comes to storing its body.
    """
    try:
        bodies = [body for source in archived_sources(directory) for body in stored_bodies(directory, source)]
    except StorageError:
        return 0
    return max((body.run_id for body in bodies), default=0)


def read_stored(stored: StoredBody, limit: int) -> Body:
    """Return the body, proven to be the one that was received.

    Raises StorageError when the file is damaged or cannot be read, DataRefusedError when it holds more than `limit`
    bytes.
    """
    body = read_file(str(stored.path), limit)
    if body.sha256 != stored.sha256:
        body.close()
        raise StorageError(
            f"{stored.path}: its content is not what was stored (wrong SHA-256); take another copy", code="file_damaged"
        )
    return body


def note_outcomes(directory: str, source: str, outcomes: Mapping[int, str]) -> None:
    """Add to the names of the bodies of these runs how the runs ended."""
    with storage_failures(f"archive {Path(directory) / source}"):
        for stored in stored_bodies(directory, source):
            outcome = outcomes.get(stored.run_id)
            if outcome and outcome != stored.outcome:
                name = _name(stored.run_id, stored.received_at, stored.sha256, outcome)
                stored.path.rename(stored.path.with_name(name))


def prune(directory: str, source: str, keep: int, run_id: int) -> None:
    """Delete all but the newest `keep` bodies and what killed runs before `run_id` left half written.

    The newest body that was accepted stays in any case: a hundred refused ones must not push out the one to go back to.
    """
    bodies = stored_bodies(directory, source)
    accepted = newest_accepted(bodies)
    folder = Path(directory) / source
    with storage_failures(f"archive {folder}"):
        for stored in bodies[:-keep]:
            if stored != accepted:
                stored.path.unlink(missing_ok=True)
        for partial in folder.glob(".*.part"):
            if partial.name < f".{run_id:012d}":
                partial.unlink(missing_ok=True)


def newest_accepted(bodies: Sequence[StoredBody]) -> StoredBody | None:
    """Return the last of the bodies that is known to have become live."""
    return next((stored for stored in reversed(bodies) if stored.outcome == "succeeded"), None)
