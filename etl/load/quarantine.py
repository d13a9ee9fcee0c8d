"""Keep the quarantine in step with the newest snapshot that could be parsed."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from etl.db.tables import quarantined_records
from etl.load.live import IDS_PER_STATEMENT, batches
from etl.records import Rejection

_ROWS_PER_STATEMENT = 500


def update_quarantine(connection: Connection, source: str, run_id: int, rejections: Sequence[Rejection]) -> int:
    """Open a row for each bad record that is new, close those of records that are gone; write nothing for the rest.

    Returns the number of new rows.
    """
    columns = quarantined_records.c
    query = select(columns["_identity"], columns["_id"]).where(columns.source == source, columns.valid_to_run.is_(None))
    still_open = {bytes(identity): row for identity, row in connection.execute(query)}
    fresh = [rejection for rejection in rejections if still_open.pop(rejection.identity, None) is None]
    for gone in batches(list(still_open.values()), IDS_PER_STATEMENT):
        connection.execute(update(quarantined_records).where(columns["_id"].in_(gone)).values(valid_to_run=run_id))
    for batch in batches(fresh, _ROWS_PER_STATEMENT):
        connection.execute(insert(quarantined_records), [_row(source, run_id, rejection) for rejection in batch])
    return len(fresh)


def _row(source: str, run_id: int, rejection: Rejection) -> dict[str, Any]:
    return {
        "source": source,
        "valid_from_run": run_id,
        "position": rejection.position,
        "number_id": rejection.number_id,
        "reason_code": rejection.reason_code,
        "reason": rejection.reason,
        "record": rejection.record,
        "_identity": rejection.identity,
    }
