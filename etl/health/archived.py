"""What the archive knows of the numbers that must be live."""

from collections.abc import Set

import msgspec
from sqlalchemy import Connection

from etl.config import Config
from etl.extract.archive import read_stored, stored_bodies
from etl.load.runs import live_body
from etl.records import digest
from etl.transform.snapshot import read_snapshot


class Archived(msgspec.Struct, frozen=True):
    """The records of the body that became live last."""

    run_id: int
    """The run that received it."""
    digests: dict[int, bytes]
    """Id → digest of the record's values."""
    marks: dict[bytes, int]
    """Fingerprint of a record's text → id."""
    kept: Set[int]
    """Ids that keep their live version, for their record is quarantined."""
    hides_ids: bool
    """A record without a readable id: then no number was removed."""

    def may_be_live(self, identity: int) -> bool:
        """Whether a number of this id can have been left live by the run."""
        return identity in self.digests or identity in self.kept or self.hides_ids


def archived_records(connection: Connection, config: Config, source: str) -> Archived | None:
    """Read the archived body that the live tables were brought to; None where the archive does not hold it.

    Raises StorageError when the file is damaged or cannot be read.
    """
    if not config.archive.directory:
        return None
    received_by = live_body(connection, source)
    stored = [body for body in stored_bodies(config.archive.directory, source) if body.run_id == received_by]
    if len(stored) != 1:
        return None
    body = read_stored(stored[0], config.http.max_body_bytes)
    snapshot = read_snapshot(body.view, {})
    return Archived(
        received_by,
        {identity: digest(candidate.record()) for identity, candidate in snapshot.candidates.items()},
        {candidate.fingerprint: identity for identity, candidate in snapshot.candidates.items()},
        snapshot.quarantined_ids,
        snapshot.hides_ids,
    )
