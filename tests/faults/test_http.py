"""Answers that are HTTP but not what was asked for."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.databases import Database
from tests.faults.raw_server import RawServer, Script, answers, response
from tests.faults.world import World, body, generation

GOOD = body(generation(1))
REFUSED = (101, 201, 202, 203, 204, 205, 206, 207, 226, 300, 301, 302, 303, 304, 305, 307, 308, 400, 402, 404, 405,
           406, 407, 409, 410, 413, 414, 415, 418, 421, 422, 426, 428, 431, 451, 499, 600, 700, 999)  # fmt: skip
RETRIED = (408, 425, 429, 500, 501, 502, 503, 504, 505, 507, 511, 520, 599)
FORBIDDEN = {401: "bad_token", 403: "ip_not_allowed"}


def status(code: int, *headers: str) -> Script:
    """Answer with a list that would be good, were it not for the status."""
    return answers(response(GOOD, *headers, status=f"{code} Whatever"))


@pytest.mark.parametrize(
    ("codes", "exit_code", "error_code"),
    [(REFUSED, 76, "unexpected_status"), (RETRIED, 69, "http_status")],
    ids=["refused", "retried"],
)
def test_no_other_status_than_200_is_taken_for_a_snapshot(
    world: World, codes: tuple[int, ...], exit_code: int, error_code: str
) -> None:
    for code in codes:
        with RawServer(status(code)) as server:
            outcome = world.sync(server.base_url)
        assert outcome.runs[0]["http_status"] == code
        world.assert_unharmed(outcome, exit_code, error_code)
    world.assert_recovers()


@pytest.mark.parametrize("code", FORBIDDEN)
def test_a_refusal_of_token_or_address_is_not_retried(world: World, code: int) -> None:
    with RawServer(status(code)) as server:
        outcome = world.sync(server.base_url, http={"max_attempts": 5})
        assert server.connections == 1
    world.assert_unharmed(outcome, 77, FORBIDDEN[code])


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed_into_a_trap(world: World, code: int) -> None:
    with RawServer(answers(response(GOOD))) as trap, RawServer(status(code, f"Location: {trap.base_url}/x")) as server:
        outcome = world.sync(server.base_url)
        assert trap.connections == 0
    world.assert_unharmed(outcome, 76)


@pytest.mark.parametrize("line", ["HTTP/1.1", "HTTP/1.1 abc OK", "HTTP/1.1 99 Low", "HTTP/1.1 1000 High", "HTTP/9 200"])
def test_a_status_line_that_is_none_is_a_broken_answer(world: World, line: str) -> None:
    with RawServer(answers(line.encode() + b"\r\n\r\n" + GOOD)) as server:
        outcome = world.sync(server.base_url)
    world.assert_unharmed(outcome, 69, "connection_broken")


def in_the_past() -> str:
    return format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)


def in_a_second() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)


HONOURED: dict[str, Callable[[], str]] = {
    "seconds": lambda: "1",
    "none": lambda: "0",
    "past date": in_the_past,
    "date": in_a_second,
    "negative": lambda: "-5",
    "fraction": lambda: "0.5",
    "word": lambda: "soon",
    "empty": lambda: "",
    "a thousand years": lambda: str(1000 * 365 * 86400),
    "digits without end": lambda: "9" * 500,
    "date in a thousand years": lambda: "Fri, 01 Jan 3024 00:00:00 GMT",
    "date that is none": lambda: "Fri, 99 Foo 2024 99:99:99 GMT",
    "not ASCII": lambda: "¹²",
}


@pytest.mark.parametrize("value", HONOURED)
def test_retry_after_is_obeyed_where_it_is_sane_and_ignored_where_not(
    sqlite_database: Database, world_of: Callable[[Database], World], value: str
) -> None:
    world = world_of(sqlite_database)
    with RawServer(status(503, f"Retry-After: {HONOURED[value]()}"), answers(response(GOOD))) as server:
        outcome = world.sync(server.base_url, http={"max_attempts": 2})
    world.assert_accepted(outcome, generation(1))
    assert outcome.runs[0]["attempts"] == 2
    assert outcome.seconds >= 1 or value != "seconds"


@pytest.mark.parametrize("value", ["7200", "86400"])
def test_a_wait_past_the_deadline_is_not_begun(world: World, value: str) -> None:
    with RawServer(status(429, f"Retry-After: {value}")) as server:
        outcome = world.sync(server.base_url, http={"max_attempts": 5}, seconds=8)
        assert server.connections == 1
    world.assert_unharmed(outcome, 69, "http_status")


BAD_HEADERS: dict[str, tuple[bytes, int]] = {
    "hundreds of headers": (response(GOOD, *(f"X-{number}: y" for number in range(500))), 69),
    "one header of a megabyte": (response(GOOD, f"X: {'y' * (1 << 20)}"), 69),
    "a status line of a megabyte": (response(GOOD, status="200 " + "O" * (1 << 20)), 69),
    "two lengths that contradict": (response(GOOD, "Content-Length: 7"), 69),
    "lengths that contradict on one line": (response(GOOD, f"Content-Length: {len(GOOD)}, 7", length=-1), 69),
    "compressed by its header alone": (response(GOOD, "Content-Encoding: gzip"), 69),
    "a coding nobody asked for": (response(GOOD, "Content-Encoding: br"), 65),
    "codings within each other": (response(GOOD, "Content-Encoding: gzip, gzip"), 65),
    "a login page": (response(b"<!doctype html><title>Login</title>", "Content-Type: text/html"), 65),
    "an error in JSON": (response(b'{"error":"try later"}', "Content-Type: application/json"), 65),
}


@pytest.mark.parametrize("fault", BAD_HEADERS)
def test_headers_that_lie_change_nothing(world: World, fault: str) -> None:
    answer, exit_code = BAD_HEADERS[fault]
    with RawServer(answers(answer)) as server:
        outcome = world.sync(server.base_url)
    world.assert_unharmed(outcome, exit_code)


ODD_HEADERS = {
    "no content type": response(GOOD),
    "another content type": response(GOOD, "Content-Type: text/html; charset=windows-1251"),
    "another charset": response(GOOD, "Content-Type: application/json; charset=iso-8859-1"),
    "a charset that is none": response(GOOD, "Content-Type: application/json; charset=no-such"),
    "the same length twice": response(GOOD, f"Content-Length: {len(GOOD)}"),
    "ninety headers of sixty kilobytes": response(GOOD, *(f"X-{number}: {'y' * 60_000}" for number in range(90))),
    "a line that is no header": response(GOOD, "no colon here"),
    "cookies": response(GOOD, *("Set-Cookie: a=b; Path=/" for _ in range(20))),
}


@pytest.mark.parametrize("oddity", ODD_HEADERS)
def test_a_whole_list_is_loaded_whatever_else_the_headers_say(world: World, oddity: str) -> None:
    with RawServer(answers(ODD_HEADERS[oddity])) as server:
        outcome = world.sync(server.base_url)
    world.assert_accepted(outcome, generation(1))
    world.assert_recovers()
