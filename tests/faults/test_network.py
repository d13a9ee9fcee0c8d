"""Connections that fail in every way a network can, on every database: nothing changes, and the next run works."""

import random
from collections.abc import Callable

import pytest

from tests.faults.raw_server import Peer, RawServer, Script, answers, closed_port, full_backlog, response
from tests.faults.world import World, body, generation

GOOD = body(generation(1))
HALF = GOOD[: len(GOOD) // 2]


def silent(peer: Peer) -> None:
    peer.stall()


def hang_up(_: Peer) -> None:
    return


def reset_at_once(peer: Peer) -> None:
    peer.reset()


def reset_before_headers(peer: Peer) -> None:
    peer.read_request()
    peer.reset()


def reset_after_headers(peer: Peer) -> None:
    peer.read_request()
    peer.send(response(GOOD)[: -len(GOOD)])
    peer.reset()


def reset_within_headers(peer: Peer) -> None:
    peer.read_request()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    peer.reset()


def reset_within_body(peer: Peer) -> None:
    peer.read_request()
    peer.send(response(HALF, length=len(GOOD)))
    peer.reset()


def silent_after_headers(peer: Peer) -> None:
    peer.read_request()
    peer.send(response(GOOD)[: -len(GOOD)])
    peer.stall()


def silent_within_body(peer: Peer) -> None:
    peer.read_request()
    peer.send(response(HALF, length=len(GOOD)))
    peer.stall()


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def chunked(rest: bytes) -> bytes:
    return response(rest, "Transfer-Encoding: chunked", length=-1)


BROKEN: dict[str, tuple[Script, str]] = {
    "closed before the request": (hang_up, "connection_reset"),
    "closed before headers": (answers(), "connection_reset"),
    "closed within the status line": (answers(b"HTTP/1.1 20"), "connection_broken"),
    "closed after headers": (answers(response(b"", length=len(GOOD))), "connection_broken"),
    "reset at once": (reset_at_once, "connection_reset"),
    "reset before headers": (reset_before_headers, "connection_reset"),
    "reset within headers": (reset_within_headers, "connection_reset"),
    "reset after headers": (reset_after_headers, "connection_reset"),
    "reset within the body": (reset_within_body, "connection_reset"),
    "body shorter than its length": (answers(response(HALF, length=len(GOOD))), "connection_broken"),
    "body one byte shorter": (answers(response(GOOD[:-1], length=len(GOOD))), "connection_broken"),
    "no last chunk": (answers(chunked(chunks(GOOD))), "connection_broken"),
    "cut within a chunk": (answers(chunked(chunks(GOOD)[:-50])), "connection_broken"),
    "chunk without a size": (answers(chunked(b"zz\r\n" + GOOD + b"\r\n0\r\n\r\n")), "connection_broken"),
    "chunk of negative size": (answers(chunked(b"-1\r\n" + GOOD + b"\r\n0\r\n\r\n")), "connection_broken"),
    "not HTTP": (answers(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n"), "connection_broken"),
    "noise": (answers(random.Random(1).randbytes(5000)), "connection_broken"),
    "nothing but line ends": (answers(b"\r\n" * 50), "connection_broken"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_connection_that_breaks_changes_nothing(world: World, fault: str) -> None:
    script, error_code = BROKEN[fault]
    with RawServer(script) as server:
        outcome = world.sync(server.base_url)
    world.assert_unharmed(outcome, 69, error_code)


SLOW: dict[str, Script] = {
    "silence from the start": silent,
    "silence after headers": silent_after_headers,
    "silence within the body": silent_within_body,
}


@pytest.mark.parametrize("fault", SLOW)
def test_silence_is_waited_for_no_longer_than_the_read_timeout(world: World, fault: str) -> None:
    with RawServer(SLOW[fault]) as server:
        outcome = world.sync(server.base_url, http={"read_timeout": 0.3}, seconds=8)
    world.assert_unharmed(outcome, 69, "timeout")


def drip_status_line(peer: Peer) -> None:
    peer.read_request()
    peer.drip(b"HTTP/1.1 200 " + b"O" * 10_000, 0.05)


def drip_headers(peer: Peer) -> None:
    peer.read_request()
    peer.send(b"HTTP/1.1 200 OK\r\n")
    peer.drip(b"X: y\r\n" * 10_000, 0.05)


def drip_body(peer: Peer) -> None:
    peer.read_request()
    peer.send(response(b"", length=len(GOOD)))
    peer.drip(GOOD, 0.05)


def drip_chunks(peer: Peer) -> None:
    peer.read_request()
    peer.send(chunked(b""))
    peer.send_for_ever(b"1\r\n \r\n", 0.05)


def drip_trailers(peer: Peer) -> None:
    peer.read_request()
    peer.send(chunked(chunks(GOOD) + b"0\r\n"))
    peer.send_for_ever(b"X: y\r\n", 0.05)


def endless_continue(peer: Peer) -> None:
    peer.read_request()
    peer.send_for_ever(b"HTTP/1.1 100 Continue\r\n\r\n", 0.01)


DRIPPING: dict[str, Script] = {
    "status line": drip_status_line,
    "headers": drip_headers,
    "body": drip_body,
    "chunks": drip_chunks,
    "trailers": drip_trailers,
    "interim answers": endless_continue,
}


@pytest.mark.parametrize("fault", DRIPPING)
def test_a_byte_at_a_time_for_ever_ends_with_the_deadline(world: World, fault: str) -> None:
    with RawServer(DRIPPING[fault]) as server:
        outcome = world.sync(server.base_url, http={"deadline": 0.4, "max_attempts": 3}, seconds=8)
    world.assert_unharmed(outcome, 69)


def test_a_port_that_nobody_listens_on(world: World) -> None:
    world.assert_unharmed(world.sync(f"http://127.0.0.1:{closed_port()}"), 69, "connection_refused")


def test_a_host_that_nobody_knows(world: World) -> None:
    outcome = world.sync("http://no-such-host.invalid", http={"allow_plain_http": True})
    world.assert_unharmed(outcome, 69, "unknown_host")


def test_a_server_too_busy_to_accept(world: World) -> None:
    with full_backlog() as base_url:
        outcome = world.sync(base_url, http={"connect_timeout": 0.3}, seconds=8)
    world.assert_unharmed(outcome, 69, "timeout")


def test_the_next_run_works_after_any_of_them_with_no_cleaning_up(world: World) -> None:
    for script in (reset_within_body, reset_at_once, BROKEN["no last chunk"][0]):
        with RawServer(script) as server:
            world.assert_unharmed(world.sync(server.base_url), 69)
    world.assert_recovers()


RECOVERING: dict[str, Callable[[], list[Script]]] = {
    "reset, then cut, then whole": lambda: [
        reset_within_body,
        answers(response(HALF, length=len(GOOD))),
        answers(response(GOOD)),
    ],
    "closed, then whole in chunks": lambda: [
        answers(),
        answers(chunked(chunks(HALF, GOOD[len(HALF) :]) + b"0\r\n\r\n")),
    ],
}


@pytest.mark.parametrize("course", RECOVERING)
def test_a_source_that_gets_better_in_time_is_loaded(world: World, course: str) -> None:
    scripts = RECOVERING[course]()
    with RawServer(*scripts) as server:
        outcome = world.sync(server.base_url, http={"max_attempts": 4})
    world.assert_accepted(outcome, generation(1))
    assert outcome.runs[0]["attempts"] == len(scripts)
    world.assert_recovers()


def test_an_answer_without_a_length_that_is_whole_is_loaded(world: World) -> None:
    with RawServer(answers(response(GOOD, length=-1))) as server:
        world.assert_accepted(world.sync(server.base_url), generation(1))
    world.assert_recovers()
