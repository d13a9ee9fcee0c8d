"""The contract's rules for a record, one by one: decides what the fast decoder could not, and says what is wrong."""

import json
from collections import Counter
from functools import cache
from hashlib import blake2b
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from msgspec import UNSET, UnsetType

from etl.records import INTEGER_MAX, INTEGER_MIN, NUMBER_FIELDS, ExtraFields, NumberRecord, RedirectRecord
from etl.transform.decode import RepeatedRedirectError, normalise
from etl.transform.split import tokens

MAX_DEPTH = 64
"""Levels of nesting a record may have. Every supported database and Python version stores and reads back that much."""


class Literal(str):
    """A JSON number that keeps its spelling: Python would round it, or refuse to convert it."""

    __slots__ = ()


class BadRecord(NamedTuple):
    """What is wrong with a record, and what can be read of it all the same."""

    number_id: int | None
    reason_code: str
    reason: str
    identity: bytes


class _RuleBrokenError(Exception):
    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def validate(text: str) -> NumberRecord | BadRecord:
    """Judge the text of one record, which is known to be well-formed JSON."""
    try:
        value = _parse(text)
        depth = _depth(value)
    except RecursionError:
        value, depth = None, MAX_DEPTH + 1
    if depth > MAX_DEPTH:
        reason = f"nested deeper than {MAX_DEPTH} levels"
        return BadRecord(_read_deep_id(text), "too_deep", reason, _identity_of_tokens(text))
    try:
        return _number(value)
    except _RuleBrokenError as problem:
        return BadRecord(_read_id(value), problem.code, problem.reason, identity(value))


def _parse(text: str) -> Any:
    return json.loads(text, parse_int=_integer, parse_float=Literal)


def _integer(digits: str) -> int | Literal:
    # 19 digits and a sign hold every 64-bit integer.
    return int(digits) if len(digits) <= 20 and digits != "-0" else Literal(digits)


def _depth(value: Any, so_far: int = 0) -> int:
    if so_far > MAX_DEPTH or not isinstance(value, dict | list):
        return so_far
    children = value.values() if isinstance(value, dict) else value
    return max((_depth(child, so_far + 1) for child in children), default=so_far + 1)


def _number(value: Any) -> NumberRecord:
    _check_characters(value)
    fields = _members(value, "the record")
    if "from_redirect_numbers" not in fields:
        raise _RuleBrokenError("missing_field", "from_redirect_numbers is missing")
    redirects = fields.pop("from_redirect_numbers")
    if redirects is not None and not isinstance(redirects, list):
        raise _RuleBrokenError("wrong_type", f"from_redirect_numbers is {_kind(redirects)}, not an array")
    known = _known_values(fields, _types(NumberRecord), "")
    record = NumberRecord(
        **known,
        from_redirect_numbers=[_redirect(item) for item in redirects or ()],
        extra=_extra(fields, _types(NumberRecord)),
    )
    try:
        return normalise(record)
    except RepeatedRedirectError:
        raise _RuleBrokenError("duplicate_redirect", "two redirects have the same id and different values") from None


def _redirect(value: Any) -> RedirectRecord:
    fields = _members(value, "a redirect")
    return RedirectRecord(
        **_known_values(fields, _types(RedirectRecord), "from_redirect_numbers."),
        extra=_extra(fields, _types(RedirectRecord)),
    )


def _members(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _RuleBrokenError("not_an_object", f"{what} is {_kind(value)}, not an object")
    return dict(value)


@cache
def _types(record_type: type) -> dict[str, type]:
    """Map the record's scalar fields to bool, int or str."""
    hints = get_type_hints(record_type)
    return {
        name: get_args(hints[name])[0] if get_origin(hints[name]) else hints[name]
        for name in (*NUMBER_FIELDS, "id", "number")
        if name in hints and name != "extra"
    }


_REQUIRED = ("id", "number")


def _known_values(fields: dict[str, Any], types: dict[str, type], prefix: str) -> dict[str, Any]:
    values = {}
    for name, expected in types.items():
        value = fields.get(name)
        if name in _REQUIRED:
            if name not in fields:
                raise _RuleBrokenError("missing_field", f"{prefix}{name} is missing")
        elif value is None:
            continue
        values[name] = _checked(f"{prefix}{name}", value, expected, low=1 if name == "id" else INTEGER_MIN)
    if not values["number"]:
        raise _RuleBrokenError("empty_number", f"{prefix}number is empty")
    return values


def _checked(name: str, value: Any, expected: type, low: int) -> Any:
    if expected is int and isinstance(value, Literal) and value.lstrip("-").isdigit():
        value = int(value) if value == "-0" else INTEGER_MAX + 1
    # bool is a kind of int, and Literal a kind of str, for Python alone.
    kind = type(value)
    if kind is not expected:
        raise _RuleBrokenError("wrong_type", f"{name} is {_kind(value)}, not {_TYPE_NAMES[expected]}")
    if expected is int and not low <= value <= INTEGER_MAX:
        raise _RuleBrokenError("out_of_range", f"{name} is not from {'1' if low == 1 else '-2^63'} to 2^63-1")
    return value


_TYPE_NAMES = {int: "an integer", str: "a string", bool: "a boolean"}


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, Literal):
        return "a number"
    if isinstance(value, dict):
        return "an object"
    return "an array" if isinstance(value, list) else _TYPE_NAMES[type(value)]


def _check_characters(value: Any) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise _RuleBrokenError("nul_character", "a string holds a NUL character, which databases cannot store")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise _RuleBrokenError("lone_surrogate", "a string holds half a surrogate pair, which is not a character")
    elif isinstance(value, dict):
        for key, child in value.items():
            _check_characters(key)
            _check_characters(child)
    elif isinstance(value, list):
        for child in value:
            _check_characters(child)


def _extra(fields: dict[str, Any], known: dict[str, type]) -> ExtraFields | UnsetType:
    unknown = {name: value for name, value in fields.items() if name not in known}
    return ExtraFields(canonical(unknown)) if unknown else UNSET


def canonical(value: Any) -> str:
    """JSON text without white space, keys sorted, characters and the spelling of numbers as received."""
    if isinstance(value, Literal):
        return str(value)
    if isinstance(value, dict):
        members = (f"{json.dumps(key, ensure_ascii=False)}:{canonical(value[key])}" for key in sorted(value))
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def identity(value: Any) -> bytes:
    """16 bytes that are the same for the same record, whatever the order of its keys and redirects."""
    if isinstance(value, dict) and isinstance(redirects := value.get("from_redirect_numbers"), list):
        value = {**value, "from_redirect_numbers": sorted(redirects, key=canonical)}
    return _hash(canonical(value))


def _hash(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _identity_of_tokens(text: str) -> bytes:
    # Too deep to be sorted member by member; the bag of its tokens does not depend on their order either.
    counted = Counter(token.text for token in tokens(text))
    return _hash(repr(sorted(counted.items())))


def _read_id(value: Any) -> int | None:
    candidate: Any = value.get("id") if isinstance(value, dict) else None
    if isinstance(candidate, bool) or not isinstance(candidate, int):
        return None
    return candidate if 1 <= candidate <= INTEGER_MAX else None


def _read_deep_id(text: str) -> int | None:
    value = None
    awaiting_value = False
    for token in tokens(text):
        if token.depth == 1 and token.is_key:
            awaiting_value = json.loads(token.text) == "id"
        elif awaiting_value and token.text != ":":
            value = token.text
            awaiting_value = False
    return None if value is None or value[0] in "[{" else _read_id({"id": _parse(value)})
