"""Hypothesis strategies for bodies: mostly near to the contract's edges, some of them broken byte by byte."""

import json
import random
from typing import Any

from hypothesis import strategies as st

IDS = st.sampled_from(
    ["1", "2", "3", "9223372036854775807", "9223372036854775808", "0", "-1", "-0", "1.0", "1e0", "true"]
)
TOKENS = st.sampled_from(
    [
        "null", "true", "false", "0", "-0", "1", "1.0", "1E5", "1e999", "-1", "0.10", "9223372036854775807",
        "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "1" + "0" * 40, '""', '"1"', "[]", "{}",
        '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\u0031"', '"\\/\\b\\f\\n\\r\\t\\"\\\\"',
        '"not_specified"', '"company"', '"\u0441ompany"', '"\\u0441ompany"', '"employee"', '"active"', '"def"', '"abc"',
        '{"a":{"b":[1,2.50,{"c":null}]}}', '{"a":1,"a":2}', '["\\u0000"]', '{"\\ud800":1}',
        '"\u0442\u0435\u0441\u0442 \U0001f4de"',
        "[" * 62 + "]" * 62, "[" * 63 + "]" * 63, "[" * 64 + "]" * 64, "[" * 200 + "]" * 200, '"\x7f\u2028\ufeff"',
    ]
)  # fmt: skip
NAMES = st.sampled_from(
    [
        "number", "comment", "type", "purpose", "scenario_id", "group_id", "is_scenario_active", "state", "reason",
        "employee_id", "dgn_number", "redirect_number", "sip_uri", "app_id", "extra", "_digest", "source", "new",
        "\u043d\u043e\u0432", "\ue000extra", "from_redirect_numbers", "id", "redirects", "valid_from", "",
    ]
)  # fmt: skip
GOOD = (
    ("number", '"79200000001"'), ("type", '"def"'), ("purpose", '"company"'), ("state", '"active"'),
    ("from_redirect_numbers", "[]"),
)  # fmt: skip


@st.composite
def redirects(draw: st.DrawFn) -> str:
    pairs = draw(
        st.lists(
            st.tuples(IDS, st.sampled_from(['"7"', '"8"', '""', "7"]), st.sampled_from(["", ',"x":1', ',"x":1.0'])),
            max_size=4,
        )
    )
    return "[" + ",".join(f'{{"id":{identity},"number":{number}{more}}}' for identity, number, more in pairs) + "]"


@st.composite
def records(draw: st.DrawFn) -> str:
    """Text of a record: good but for a few members."""
    members = [("id", draw(IDS)), *GOOD]
    if draw(st.booleans()):
        members.append(("from_redirect_numbers", draw(redirects())))
    members += draw(st.lists(st.tuples(NAMES, TOKENS), max_size=3))
    if draw(st.integers(0, 7)) == 0:
        del members[draw(st.integers(0, len(members) - 1))]
    members = draw(st.permutations(members))
    blank = draw(st.sampled_from(["", " ", "\n\t"]))
    return (
        "{"
        + f",{blank}".join(
            f"{json.dumps(name, ensure_ascii=draw(st.booleans()))}{blank}:{value}" for name, value in members
        )
        + "}"
    )


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A well-formed array of records, good and bad, with duplicates."""
    texts = draw(st.lists(st.one_of(records(), records(), records(), TOKENS), max_size=6))
    if draw(st.booleans()) and texts:
        texts.append(draw(st.sampled_from(texts)))
    mark = draw(st.sampled_from(["", "", "\ufeff"]))
    in_any_order: list[str] = draw(st.permutations(texts))
    return f"{mark}[{','.join(in_any_order)}]".encode()


INTRUDERS = st.sampled_from(
    [
        b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"0", b"-", b"e", b".", b"\0", b"\x1f", b"\xff", b"\xc0\x80",
        b"\xed\xa0\x80", b"\xef\xbb\xbf", b"NaN", b"Infinity", b"//", b"\x0b", b"\xc2\xa0", b"+1", b"01",
        b"\\u12", b"\\x",
    ]
)  # fmt: skip


@st.composite
def broken_bodies(draw: st.DrawFn) -> bytes:
    """A body of which a few bytes were lost, doubled, changed or put elsewhere."""
    data = bytearray(draw(bodies()))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0:
                del data[place : place + draw(st.integers(1, 4))]
            case 1:
                data[place:place] = draw(INTRUDERS)
            case 2:
                data[place : place + 1] = bytes([draw(st.integers(0, 255))])
            case _:
                data[place:place] = data[: draw(st.integers(0, 30))]
    return bytes(data)


def shuffled(value: Any, order: random.Random) -> Any:
    """Return the same JSON value with the members of its objects, and its records' redirects, in another order."""
    if isinstance(value, dict):
        names = list(value)
        order.shuffle(names)
        value = {name: shuffled(value[name], order) for name in names}
        if isinstance(value.get("from_redirect_numbers"), list):
            order.shuffle(value["from_redirect_numbers"])
        return value
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value
