"""Records and response bodies for tests, in the API's own form."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

Record = dict[str, Any]

SCALARS = (
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
"""The nineteen scalar fields, in the order of the contract."""

BOOLEANS = ("is_scenario_active", "is_group_scenario_active")


def record(identity: int, redirects: Mapping[int, str] | None = None, **fields: Any) -> Record:
    """Make a good record with all twenty fields; `redirects` maps their ids to their numbers."""
    made = {
        "number": f"7920{identity:07d}",
        "comment": f"Заметка {identity}",
        "type": "def",
        "purpose": "employee",
        "scenario_id": 779,
        "group_scenario_id": None,
        "group_id": None,
        "is_scenario_active": True,
        "is_group_scenario_active": None,
        "id": identity,
        "state": "active",
        "reason": None,
        "from_redirect_numbers": [{"id": key, "number": number} for key, number in (redirects or {}).items()],
        "employee_id": 125,
        "dgn_number": None,
        "region_name": "Брянская область",
        "sip_uri": None,
        "nc_type": "custom",
        "redirect_number": None,
        "app_id": 1200054,
    }
    unknown = fields.keys() - made.keys()
    assert not unknown, f"use `record(…) | {{…}}` for fields the API does not have: {unknown}"
    return made | fields


def bad(identity: int, **fields: Any) -> Record:
    """Make a record that breaks one rule, with a readable id."""
    return record(identity, **fields) | {"comment": 5}


def body(records: Iterable[object]) -> bytes:
    """Write a response body as the API does."""
    return json.dumps(list(records), ensure_ascii=False).encode()


def canonical(received: Mapping[str, Any]) -> Record:
    """Return a good record as it is to be found in the tables: every field, redirects by id, extra fields apart.

    The model of the contract that stored data are compared with; it shares nothing with the program.
    """
    made: Record = {name: received.get(name) for name in SCALARS}
    if made["purpose"] == "\u0441ompany":
        made["purpose"] = "company"
    made["extra"] = _extra(received, (*SCALARS, "from_redirect_numbers"))
    made["redirects"] = {
        redirect["id"]: {"number": redirect["number"], "extra": _extra(redirect, ("id", "number"))}
        for redirect in received["from_redirect_numbers"] or []
    }
    return made


def _extra(received: Mapping[str, Any], known: Iterable[str]) -> Record | None:
    known = set(known)
    return {name: value for name, value in received.items() if name not in known} or None
