"""How long a run waits between attempts, and when it gives up: against a real server, with the waiting written down."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from etl.config import Http, Source
from etl.errors import UnavailableError
from etl.events import Action, Event
from etl.extract.client import fetch
from etl.sandbox import Answer, SandboxServer
from tests.loading import TOKEN

FAILURE = Answer(status=503)


def attempt(answers: list[Answer], **settings: Any) -> tuple[list[float], UnavailableError | None, list[Event], int]:
    """Ask a server that answers so; return the pauses, the error if it ended in one, the events and the requests."""
    pauses: list[float] = []
    events: list[Event] = []
    with SandboxServer(token=TOKEN) as server:
        server.script(*answers)
        source = Source(base_url=server.base_url, token=TOKEN)
        try:
            fetch(source, TOKEN, Http(**settings), events.append, pauses.append).close()
        except UnavailableError as error:
            return pauses, error, events, len(server.requests)
        return pauses, None, events, len(server.requests)


def test_pauses_grow_and_none_is_the_exact_power_that_every_client_would_take() -> None:
    pauses, error, events, requests = attempt([FAILURE] * 9, max_attempts=10)

    assert error is None
    assert requests == 10
    longest = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0]
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses, longest, strict=True))
    assert len(set(pauses)) == len(pauses)
    assert [event.action for event in events].count(Action.ATTEMPT_FAILED) == 9


def seconds(number: int) -> Callable[[], str]:
    return lambda: str(number)


def date(delta: timedelta) -> Callable[[], str]:
    return lambda: format_datetime(datetime.now(UTC) + delta, usegmt=True)


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        (seconds(0), 0, 0),
        (seconds(90), 90, 90),
        (date(timedelta(seconds=100)), 50, 100),
        (date(timedelta(days=-1)), 0, 0),
        # What makes no sense is as good as nothing.
        (seconds(10**8), 0.5, 1),
        (lambda: "in a while", 0.5, 1),
        (lambda: "-5", 0.5, 1),
        (date(timedelta(days=400)), 0.5, 1),
    ],
    ids=["now", "seconds", "date", "past", "years", "words", "negative", "next-year"],
)
def test_the_source_may_say_how_long_to_wait(header: Callable[[], str], low: float, high: float) -> None:
    (pause,), error, _, _ = attempt([Answer(status=429, headers={"Retry-After": header()})])

    assert error is None
    assert low <= pause <= high


def test_a_wait_past_the_deadline_is_not_begun() -> None:
    pauses, error, _, requests = attempt([Answer(status=429, headers={"Retry-After": "700"})], deadline=600.0)

    assert (pauses, requests) == ([], 1)
    assert error is not None
    assert (error.exit_code, error.http_status, error.attempts) == (69, 429, 1)
    assert "past http.deadline" in str(error)


@pytest.mark.parametrize("attempts", [1, 3])
def test_no_more_attempts_than_allowed(attempts: int) -> None:
    pauses, error, _, requests = attempt([FAILURE] * 9, max_attempts=attempts)

    assert (len(pauses), requests) == (attempts - 1, attempts)
    assert error is not None
    assert (error.code, error.attempts) == ("http_status", attempts)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 507, 520, 599])
def test_a_status_that_may_pass_is_tried_again(status: int) -> None:
    pauses, error, _, requests = attempt([Answer(status=status)])

    assert error is None
    assert (len(pauses), requests) == (1, 2)
