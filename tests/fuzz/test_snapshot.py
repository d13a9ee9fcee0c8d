import json
import os
import random
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl.records import Snapshot, digest
from tests.fuzz.bodies import bodies, broken_bodies, shuffled
from tests.fuzz.judge import Spelled, judge
from tests.fuzz.oracle import agree, check, read, required

# A bounded share in CI; FUZZ_EXAMPLES=200000 for a night.
bounded = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "300")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@bounded
@given(bodies())
def test_fast_path_slow_path_and_judge_agree_on_records(body: bytes) -> None:
    check(body)


@bounded
@given(broken_bodies())
def test_fast_path_slow_path_and_judge_agree_on_broken_bodies(body: bytes) -> None:
    check(body)


@bounded
@given(st.binary(max_size=60))
def test_no_bytes_make_the_reader_fail_but_by_refusing(body: bytes) -> None:
    check(body)


@bounded
@given(bodies(), bodies())
def test_what_is_known_from_an_earlier_body_changes_no_verdict(earlier: bytes, body: bytes) -> None:
    known = {item.fingerprint: identity for identity, item in required(read(earlier)).candidates.items()}
    agree(required(read(body, known)), judge(body), known)


@bounded
@given(bodies(), st.randoms(use_true_random=False))
def test_order_of_records_keys_and_redirects_means_nothing(body: bytes, order: random.Random) -> None:
    elements = json.loads(body.decode().removeprefix("\ufeff"), parse_int=Spelled, parse_float=Spelled)
    one = text_of(elements).encode()
    order.shuffle(elements)
    other = text_of([shuffled(element, order) for element in elements]).encode()
    assert summary(required(read(one))) == summary(required(read(other)))


def summary(snapshot: Snapshot) -> Any:
    """All of a snapshot that must not depend on order."""
    return (
        {identity: digest(candidate.record()) for identity, candidate in snapshot.candidates.items()},
        Counter((rejection.number_id, rejection.identity) for rejection in snapshot.rejections),
        (snapshot.received, snapshot.outside_filter, snapshot.unknown_purposes),
    )


def text_of(value: Any) -> str:
    """Write JSON with its numbers as they were spelled, and half a surrogate pair as the escape it came as."""
    if isinstance(value, Spelled):
        return str(value)
    if isinstance(value, list):
        return f"[{','.join(map(text_of, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{text_of(item)}" for name, item in value.items()) + "}"
    return json.dumps(value)
