"""Keep the archive in step with the log of runs: which bodies were accepted, and which may go."""

from sqlalchemy import Connection

from etl.config import Archive
from etl.db.failures import database_failures
from etl.extract.archive import note_outcomes, prune, stored_bodies
from etl.load.runs import outcomes_of


def tidy(archive: Archive, connection: Connection, source: str, run_id: int, replayed: int | None) -> None:
    """Note how runs up to `run_id` ended beside the bodies they received, and delete the bodies that are too many.

    `replayed` names the run whose body `run_id` loaded again with success. The source's lock must be held.
    Raises StorageError, and what the database can raise; whatever was not done then is done by the next run.
    """
    bodies = stored_bodies(archive.directory, source)
    unsettled = {body.run_id: body.sha256 for body in bodies if body.outcome is None}
    with database_failures(), connection.begin():
        outcomes = outcomes_of(connection, source, unsettled)
    # A rebuild loads the accepted bodies in the order in which they were received: a body that became live only after
    # a later one has no place there.
    accepted = [body.run_id for body in bodies if body.outcome == "succeeded"]
    if replayed is not None and replayed > max(accepted, default=0):
        outcomes[replayed] = "succeeded"
    note_outcomes(archive.directory, source, outcomes)
    prune(archive.directory, source, archive.keep, run_id)
