"""A second reading of the contract's rules for a body: slow, plain, on Python's own `json`.

It shares no code with the job. It answers what must become of every record; the fuzz tests compare that with what
`read_snapshot` says.
"""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

INTEGERS = (
    "scenario_id", "group_scenario_id", "group_id", "employee_id", "app_id",
)  # fmt: skip
BOOLEANS = ("is_scenario_active", "is_group_scenario_active")
STRINGS = (
    "comment", "type", "purpose", "state", "reason", "dgn_number", "redirect_number", "region_name", "sip_uri",
    "nc_type",
)  # fmt: skip
KNOWN = {"id", "number", "from_redirect_numbers", *INTEGERS, *BOOLEANS, *STRINGS}
MAX_DEPTH = 64


class Spelled(str):
    """A number as the body spells it."""

    __slots__ = ()


class BadBodyError(Exception):
    """The body is refused whole."""


class BadRecordError(Exception):
    """A record breaks a rule."""


@dataclass
class Verdict:
    """What must become of a body's records."""

    received: int = 0
    loaded: dict[int, Any] = field(default_factory=dict)
    """Values of the snapshot's records by id, in a form of the judge's own."""
    outside: int = 0
    quarantined: Counter[int | None] = field(default_factory=Counter)
    """How many records of each id are quarantined; None where no id can be read."""
    unknown_purposes: int = 0


def judge(body: bytes) -> Verdict:
    """Judge a body by the contract, section 5; raises BadBodyError where it is refused whole."""
    elements = parse_body(body)
    verdict = Verdict(received=len(elements))
    good: dict[int, list[Any]] = defaultdict(list)
    bad: dict[int | None, list[Any]] = defaultdict(list)
    for element in elements:
        try:
            record = read_record(element)
        except BadRecordError:
            bad[readable_id(element)].append(element)
        else:
            good[record["id"]].append((record, element))
    for identity, pairs in good.items():
        different: list[Any] = []
        for record, _ in pairs:
            if not any(same(record, other) for other in different):
                different.append(record)
        if len(different) > 1 or identity in bad:
            verdict.quarantined[identity] += len(different)
        elif in_filter(different[0]):
            verdict.loaded[identity] = different[0]
            verdict.unknown_purposes += different[0]["purpose"] not in ("company", "employee")
        else:
            verdict.outside += 1
    for number, elements_of_it in bad.items():
        verdict.quarantined[number] += len(elements_of_it) if number is None else count_different(elements_of_it)
    return verdict


def parse_body(body: bytes) -> list[Any]:
    """Read a body as strictly as RFC 8259 allows; raises BadBodyError."""
    try:
        text = body.decode("utf-8").removeprefix("\ufeff")
        value = json.loads(text, parse_int=Spelled, parse_float=Spelled, parse_constant=_refuse)
    except ValueError as error:
        raise BadBodyError(str(error)) from None
    if not isinstance(value, list):
        raise BadBodyError("not an array")
    return value


def _refuse(word: str) -> None:
    raise ValueError(word)


def read_record(element: Any) -> dict[str, Any]:
    """Return the record's values; raises BadRecordError where it breaks a rule."""
    if not isinstance(element, dict):
        raise BadRecordError("not an object")
    if depth(element) > MAX_DEPTH:
        raise BadRecordError("too deep")
    check_characters(element)
    record: dict[str, Any] = {"id": integer(element.get("id"), low=1), "number": nonempty(element.get("number"))}
    for name in INTEGERS:
        record[name] = None if element.get(name) is None else integer(element[name], low=-(2**63))
    for name in BOOLEANS:
        record[name] = nothing_or(bool, element.get(name))
    for name in STRINGS:
        record[name] = nothing_or(str, element.get(name))
    if record["purpose"] == "\u0441ompany":
        record["purpose"] = "company"
    if "from_redirect_numbers" not in element:
        raise BadRecordError("no redirects")
    record["redirects"] = read_redirects(element["from_redirect_numbers"])
    record["extra"] = {name: value for name, value in element.items() if name not in KNOWN}
    return record


def read_redirects(value: Any) -> dict[int, Any]:
    """Return the redirects by id; raises BadRecordError."""
    if value is None:
        return {}
    if not isinstance(value, list):
        raise BadRecordError("redirects are no array")
    redirects: dict[int, Any] = {}
    for item in value:
        if not isinstance(item, dict):
            raise BadRecordError("a redirect is no object")
        identity = integer(item.get("id"), low=1)
        redirect = {
            "id": identity,
            "number": nonempty(item.get("number")),
            "extra": {name: value for name, value in item.items() if name not in ("id", "number")},
        }
        if not same(redirects.setdefault(identity, redirect), redirect):
            raise BadRecordError("two redirects of one id")
    return redirects


def integer(value: Any, low: int) -> int:
    if not isinstance(value, Spelled) or not value.lstrip("-").isdigit():
        raise BadRecordError("not an integer")
    if len(value) > 20 or not low <= int(value) <= 2**63 - 1:
        raise BadRecordError("out of range")
    return int(value)


def nonempty(value: Any) -> str:
    if type(value) is not str or not value:
        raise BadRecordError("no number")
    return value


def nothing_or(kind: type, value: Any) -> Any:
    if value is not None and type(value) is not kind:
        raise BadRecordError(f"not {kind}")
    return value


def readable_id(element: Any) -> int | None:
    try:
        return integer(element.get("id"), low=1) if isinstance(element, dict) else None
    except BadRecordError:
        return None


def check_characters(value: Any) -> None:
    if isinstance(value, str):
        if any(character == "\0" or 0xD800 <= ord(character) <= 0xDFFF for character in value):
            raise BadRecordError("characters that cannot be stored")
    elif isinstance(value, list):
        for item in value:
            check_characters(item)
    elif isinstance(value, dict):
        check_characters(list(value))
        check_characters(list(value.values()))


def depth(value: Any) -> int:
    """Levels of arrays and objects, counted without recursion."""
    deepest, level = 0, [value]
    while level := [item for item in level if isinstance(item, list | dict)]:
        deepest += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return deepest


def in_filter(record: dict[str, Any]) -> bool:
    return record["state"] == "active" and record["type"] in ("def", "abc") and record["purpose"] != "not_specified"


def same(one: Any, other: Any) -> bool:
    """Equality that tells true from 1, a number from its text, and 1.0 from 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def count_different(elements: list[Any]) -> int:
    """Count elements, those that differ only in the order of keys and redirects once."""
    different: list[Any] = []
    for element in elements:
        if not any(same_record(element, other) for other in different):
            different.append(element)
    return len(different)


def same_record(one: dict[str, Any], other: dict[str, Any]) -> bool:
    name = "from_redirect_numbers"
    mine, theirs = one.get(name), other.get(name)
    if not isinstance(mine, list) or not isinstance(theirs, list) or len(mine) != len(theirs):
        return same(one, other)
    left = list(theirs)
    for item in mine:
        match = next((index for index, candidate in enumerate(left) if same(item, candidate)), None)
        if match is None:
            return False
        del left[match]
    return same({**one, name: []}, {**other, name: []})
