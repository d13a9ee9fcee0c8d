"""The guard's arithmetic: exactly at a limit is within it, whatever floats make of a product."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.config import Guard
from etl.guard import judge
from etl.records import Changes, NumberRecord, Rejection, Snapshot

HUNDREDTHS = st.integers(0, 100)
COUNTS = st.integers(0, 300)


def snapshot(received: int, bad: int) -> Snapshot:
    """Make a snapshot some of whose records are bad and the others live as they are."""
    rejections = [Rejection(n, n + 1, "wrong_type", "", "", b"") for n in range(bad)]
    known = set(range(1_000, 1_000 + received - bad))
    return Snapshot(received, known, {}, 0, 0, rejections, lambda: None)


def removing(removed: int, live: int) -> Changes:
    return Changes(live, removed=[NumberRecord(id=n + 1, number="7", from_redirect_numbers=[]) for n in range(removed)])


@settings(max_examples=500, deadline=None)
@given(removed=COUNTS, kept=st.integers(1, 300), hundredths=HUNDREDTHS)
def test_no_more_than_the_share_is_removed(removed: int, kept: int, hundredths: int) -> None:
    live = removed + kept
    policy = Guard(max_removed_fraction=float(f"{hundredths / 100:.2f}"))
    refused = judge("main", removing(removed, live), snapshot(kept, 0), policy) is not None

    assert refused == (Fraction(removed, live) > Fraction(hundredths, 100))


@settings(max_examples=500, deadline=None)
@given(bad=COUNTS, good=st.integers(1, 300), hundredths=HUNDREDTHS)
def test_no_more_than_the_share_is_bad(bad: int, good: int, hundredths: int) -> None:
    policy = Guard(max_quarantined_fraction=float(f"{hundredths / 100:.2f}"))
    refused = judge("main", removing(0, good), snapshot(good + bad, bad), policy) is not None

    assert refused == (Fraction(bad, good + bad) > Fraction(hundredths, 100))


def test_29_of_100_is_not_more_than_29_hundredths() -> None:
    assert 0.29 * 100 < 29  # what is compared must not be this
    assert judge("main", removing(29, 100), snapshot(71, 0), Guard(max_removed_fraction=0.29)) is None
    assert judge("main", removing(0, 71), snapshot(100, 29), Guard(max_quarantined_fraction=0.29)) is None


@pytest.mark.parametrize(("accepted", "refused"), [(0, True), (39, True), (40, False), (41, False), (None, True)])
def test_a_person_may_accept_as_many_removals_as_there_are(accepted: int | None, *, refused: bool) -> None:
    judgement = judge("main", removing(40, 50), snapshot(10, 0), Guard(max_removed_fraction=0.5), accepted)

    assert (judgement is not None) == refused


def test_what_a_person_accepts_does_not_narrow_what_the_guard_allows() -> None:
    assert judge("main", removing(2, 50), snapshot(48, 0), Guard(), accept_removals=1) is None


def test_accepted_removals_excuse_no_bad_records() -> None:
    judgement = judge("main", removing(1, 50), snapshot(50, 40), Guard(), accept_removals=50)

    assert judgement is not None
    assert judgement.code == "too_many_bad_records"


def test_a_list_without_numbers_is_refused_whatever_share_is_allowed() -> None:
    empty = snapshot(0, 0)
    lax = Guard(max_removed_fraction=1.0)
    judgement = judge("main", removing(3, 3), empty, lax)

    assert judgement is not None
    assert judgement.code == "empty_snapshot"
    assert judge("main", removing(0, 0), empty, lax) is None
    assert judge("main", removing(3, 3), empty, Guard(max_removed_fraction=1.0, allow_empty=True)) is None
    assert judge("main", removing(3, 3), empty, lax, accept_removals=3) is None


def test_nothing_at_all_is_within_limits_of_nothing() -> None:
    strict = Guard(max_removed_fraction=0.0, max_quarantined_fraction=0.0)

    assert judge("main", removing(0, 0), snapshot(0, 0), strict) is None
    assert judge("main", removing(1, 5), snapshot(4, 0), strict) is not None
    assert judge("main", removing(0, 5), snapshot(5, 1), strict) is not None
