"""What the three floors share: fetch, split into records, digest, decode. No feature but speed.

A floor is the yardstick for this job: the least a program can do and still bring the tables to the snapshot by the
same plan. It trusts its source, keeps no history, checks nothing, retries nothing. What is unchanged is told by the
digest of the record's bytes, and only what differs is decoded, so nothing is decoded for nothing.
"""

from __future__ import annotations

import gc
import http.client
from collections.abc import Iterable, Iterator
from hashlib import sha1
from typing import Any

import msgspec

PATH = "/numbers/virtual-number?purpose__ne=not_specified&state=active&type=def&type=abc"
COLUMNS = (
    "id",
    "number",
    "comment",
    "type",
    "purpose",
    "scenario_id",
    "group_scenario_id",
    "group_id",
    "is_scenario_active",
    "is_group_scenario_active",
    "state",
    "reason",
    "employee_id",
    "dgn_number",
    "redirect_number",
    "region_name",
    "sip_uri",
    "nc_type",
    "app_id",
)

Digest = bytes
Row = tuple[Any, ...]


class Redirect(msgspec.Struct):
    """A redirect as the source sends it."""

    id: int
    number: str


class Number(msgspec.Struct):
    """A number as the source sends it."""

    id: int
    number: str
    comment: str | None
    type: str | None
    purpose: str | None
    scenario_id: int | None
    group_scenario_id: int | None
    group_id: int | None
    is_scenario_active: bool | None
    is_group_scenario_active: bool | None
    state: str | None
    reason: str | None
    from_redirect_numbers: list[Redirect]
    employee_id: int | None
    dgn_number: str | None
    redirect_number: str | None
    region_name: str | None
    sip_uri: str | None
    nc_type: str | None
    app_id: int | None


def fetch(base_url: str) -> dict[Digest, msgspec.Raw]:
    """Return the snapshot's records, undecoded, by the digest of their bytes."""
    # A process this short frees its memory by ending; looking for cycles among the records costs more than it finds.
    gc.disable()
    connection = http.client.HTTPConnection(base_url.removeprefix("http://"))
    connection.request("GET", PATH, headers={"Authorization": "token"})
    records = msgspec.json.decode(connection.getresponse().read(), type=list[msgspec.Raw])
    # SHA-1 is the fastest of the digests in the standard library that two different records will not share by accident.
    return {sha1(record, usedforsecurity=False).digest(): record for record in records}


def compare(snapshot: dict[Digest, msgspec.Raw], live: dict[Digest, int]) -> tuple[dict[Digest, Number], list[int]]:
    """Return the records to insert, decoded, and the ids to delete first; a changed record is in both."""
    decode = msgspec.json.Decoder(Number).decode
    new = {digest: decode(record) for digest, record in snapshot.items() if digest not in live}
    return new, [live[digest] for digest in live.keys() - snapshot.keys()]


def number_rows(new: dict[Digest, Number]) -> Iterator[Row]:
    """Yield rows for `virtual_numbers`: digest, then the columns in their order."""
    for digest, n in new.items():
        yield (
            digest,
            n.id,
            n.number,
            n.comment,
            n.type,
            n.purpose,
            n.scenario_id,
            n.group_scenario_id,
            n.group_id,
            n.is_scenario_active,
            n.is_group_scenario_active,
            n.state,
            n.reason,
            n.employee_id,
            n.dgn_number,
            n.redirect_number,
            n.region_name,
            n.sip_uri,
            n.nc_type,
            n.app_id,
        )


def redirect_rows(new: Iterable[Number]) -> Iterator[Row]:
    """Yield rows for `redirect_numbers`."""
    return ((number.id, redirect.id, redirect.number) for number in new for redirect in number.from_redirect_numbers)


def where_clause(flags: list[str]) -> str:
    """Begin the condition of a DELETE so that the key serves it: with `--keys` keys begin with the source."""
    return "WHERE source = 'main' AND" if "--keys" in flags else "WHERE"
