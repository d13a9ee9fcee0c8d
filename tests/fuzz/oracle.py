"""Hold `read_snapshot` against the slow judge."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from etl.errors import DataRefusedError
from etl.records import NumberRecord, RedirectRecord, Snapshot
from etl.transform.snapshot import read_snapshot
from tests.fuzz.judge import BOOLEANS, INTEGERS, STRINGS, BadBodyError, Spelled, Verdict, judge, same

# A record of each kind that the fast decoder leaves to slower code; with one of them beside it, a record must come to
# the same end as without.
SLOW_SPLITTING = b'{"id":"\\ud800"}'
SLOW_DECODING = b'{"id":"\\u0000"}'


def check(body: bytes) -> None:
    """Fail unless fast path, slow path and judge agree on the body, with nothing known and with everything known."""
    expected = verdict_of(body)
    snapshot = read(body)
    assert (snapshot is None) == (expected is None), "the body is refused by one and read by the other"
    if snapshot is None or expected is None:
        return
    agree(snapshot, expected, {})
    values_agree(snapshot, expected)
    once_each(snapshot, body)
    known = {candidate.fingerprint: identity for identity, candidate in snapshot.candidates.items()}
    agree(required(read(body, known)), expected, known)
    for slow in (SLOW_SPLITTING, SLOW_DECODING):
        longer = with_element(body, slow)
        with_one_more = judge(longer)
        assert with_one_more.loaded.keys() == expected.loaded.keys()
        for recognised in ({}, known):
            agree(required(read(longer, recognised)), with_one_more, recognised)


def read(body: bytes, known: Mapping[bytes, int] | None = None) -> Snapshot | None:
    """Read the body; None where it is refused whole. Any other exception is a bug."""
    try:
        return read_snapshot(memoryview(body), known or {})
    except DataRefusedError as error:
        refusal = error
    assert refusal.code in ("not_utf8", "not_json", "not_an_array")
    assert "\n" not in str(refusal)
    return None


def required(snapshot: Snapshot | None) -> Snapshot:
    assert snapshot is not None, "a body that was read is refused with more known, or with one more record"
    return snapshot


def verdict_of(body: bytes) -> Verdict | None:
    try:
        return judge(body)
    except BadBodyError:
        return None


def agree(snapshot: Snapshot, expected: Verdict, known: Mapping[bytes, int]) -> None:
    """Fail unless every record comes to the end the judge foresees."""
    assert snapshot.received == expected.received
    assert snapshot.recognised.isdisjoint(snapshot.candidates)
    assert snapshot.recognised <= set(known.values())
    assert snapshot.recognised | snapshot.candidates.keys() == expected.loaded.keys()
    assert snapshot.outside_filter == expected.outside
    assert Counter(rejection.number_id for rejection in snapshot.rejections) == expected.quarantined
    if not known:
        assert snapshot.unknown_purposes == expected.unknown_purposes
    keys = [(rejection.number_id, rejection.identity) for rejection in snapshot.rejections]
    assert len(set(keys)) == len(keys), "two quarantined records pass for one"


def values_agree(snapshot: Snapshot, expected: Verdict) -> None:
    """Fail unless what would be stored is what the judge read."""
    for identity, candidate in snapshot.candidates.items():
        record = candidate.record()
        assert same(values_of(record), expected.loaded[identity]), identity
        assert candidate.redirect_count == len(record.redirects)


def values_of(record: NumberRecord) -> dict[str, Any]:
    names = ("id", "number", *INTEGERS, *BOOLEANS, *STRINGS)
    return {name: getattr(record, name) for name in names} | {
        "redirects": {redirect.id: redirect_values(redirect) for redirect in record.redirects},
        "extra": spelled(record.extra or "{}"),
    }


def redirect_values(redirect: RedirectRecord) -> dict[str, Any]:
    return {"id": redirect.id, "number": redirect.number, "extra": spelled(redirect.extra or "{}")}


def spelled(text: str) -> Any:
    return json.loads(text, parse_int=Spelled, parse_float=Spelled)


def once_each(snapshot: Snapshot, body: bytes) -> None:
    """Fail unless each quarantined text is the element at its position, as received."""
    elements = json.loads(body.decode().removeprefix("\ufeff"), parse_int=Spelled, parse_float=Spelled)
    for rejection in snapshot.rejections:
        assert same(spelled(rejection.record), elements[rejection.position])
        assert rejection.record in body.decode()
        assert rejection.number_id is None or rejection.number_id not in snapshot.candidates


def with_element(body: bytes, element: bytes) -> bytes:
    """Return the body's array with one more element at its end."""
    opened = body.rstrip(b" \t\r\n")[:-1].rstrip(b" \t\r\n")
    separator = b"" if opened.endswith(b"[") and not judge(body).received else b","
    return opened + separator + element + b"]"
