"""Bodies that are no list of numbers, or more than a machine can hold."""

import gzip
import json
import zlib
from pathlib import Path

import pytest

from tests.databases import Database
from tests.faults.jobs import run_new_process, write_config
from tests.faults.raw_server import Peer, RawServer, Script, answers, response
from tests.faults.world import Record, World, body, business, check_accepted, generation, live, record

GOOD = body(generation(1))
MEGABYTE = 1 << 20
BASE_BYTES = 130 * MEGABYTE
"""What a run takes beside the body: the interpreter, its libraries, and the pieces under way."""

REFUSED = {
    "nothing": b"",
    "blanks": b" \n\t ",
    "not UTF-8": GOOD.replace("заметка".encode(), "заметка".encode("cp1251")),
    "UTF-16": GOOD.decode().encode("utf-16"),
    "an overlong encoding": GOOD.replace(b'"company"', b'"\xc0\x80"'),
    "a surrogate in UTF-8": GOOD.replace(b'"company"', b'"\xed\xa0\x80"'),
    "text after the end": GOOD + b"x",
    "two lists": GOOD + GOOD,
    "cut in the middle": GOOD[: len(GOOD) // 2],
    "a trailing comma": GOOD[:-1] + b",]",
    "an object": b'{"numbers":' + GOOD + b"}",
    "null": b"null",
    "a number": b"12",
    "a string": b'"[]"',
    "NaN": b"[NaN]",
    "an infinity": b"[-Infinity]",
    "single quotes": b"[{'id': 1}]",
    "a comment": b"[/* none */]",
    "a raw control character": GOOD.replace(b'"company"', b'"com\x01pany"'),
    "two BOMs": b"\xef\xbb\xbf" * 2 + GOOD,
    "deep and never closed": b"[" * 100_000,
}


def test_a_body_that_is_no_list_is_refused_whole(world: World) -> None:
    for name, content in REFUSED.items():
        with RawServer(answers(response(content))) as server:
            outcome = world.sync(server.base_url, http={"max_attempts": 3})
            assert server.connections == 1, f"{name}: asked again"
        assert outcome.code == 65, name
        world.assert_unharmed(outcome, 65, how="refused", error_code=outcome.runs[0]["error_code"])
    world.assert_recovers()


LOADED = {
    "a BOM": b"\xef\xbb\xbf" + GOOD,
    "blanks all around": b" \r\n\t" + GOOD + b"\n\n ",
    "gzip": gzip.compress(GOOD),
    "gzip of two members": gzip.compress(GOOD[:500]) + gzip.compress(GOOD[500:]),
    "deflate": zlib.compress(GOOD),
    "bare deflate": zlib.compress(GOOD, wbits=-15),
}


def test_a_list_is_loaded_however_it_is_wrapped(world: World) -> None:
    for name, content in LOADED.items():
        coding = name.partition(" ")[0] if "gzip" in name else "deflate" if "deflate" in name else "identity"
        with RawServer(answers(response(content, f"Content-Encoding: {coding}"))) as server:
            outcome = world.sync(server.base_url)
        world.assert_accepted(outcome, generation(1))
    world.assert_recovers()


CORRUPT = {
    "gzip cut in the middle": gzip.compress(GOOD)[:-200],
    "gzip without its trailer": gzip.compress(GOOD)[:-8],
    "gzip with half its trailer": gzip.compress(GOOD)[:-4],
    "gzip with a wrong checksum": gzip.compress(GOOD)[:-8] + b"\0" * 8,
    "gzip with text after it": gzip.compress(GOOD) + b"more",
    "an empty gzip": b"",
}


@pytest.mark.parametrize("fault", CORRUPT)
def test_a_compressed_body_that_is_damaged_counts_as_not_arrived(world: World, fault: str) -> None:
    with RawServer(answers(response(CORRUPT[fault], "Content-Encoding: gzip"))) as server:
        outcome = world.sync(server.base_url)
    world.assert_unharmed(outcome, 69, "body_corrupt")


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


ONE_BAD_RECORD = {
    "an integer of 5,000 digits": json.dumps(record(900)).replace('"group_id": 7', f'"group_id": {"9" * 5000}'),
    "an id of 5,000 digits": json.dumps(record(900)).replace('"id": 900', f'"id": {"9" * 5000}'),
    "a lone surrogate": json.dumps(record(900)).replace('"custom"', '"\\ud800"'),
    "a NUL": json.dumps(record(900)).replace('"custom"', '"\\u0000"'),
    "100,000 levels in place of a record": nested(100_000),
    "100,000 levels in a field": json.dumps(record(900)).replace('"custom"', nested(100_000)),
}


@pytest.mark.parametrize("fault", ONE_BAD_RECORD)
def test_one_monstrous_record_is_quarantined_and_the_others_are_loaded(world: World, fault: str) -> None:
    content = (json.dumps(generation(1))[:-1] + "," + ONE_BAD_RECORD[fault] + "]").encode()
    with RawServer(answers(response(content))) as server:
        outcome = world.sync(server.base_url)
    assert outcome.code == 0, outcome.errors
    assert outcome.runs[0]["records_quarantined"] == 1
    assert 900 not in live(world.database)
    [(kept,)] = world.database.rows("SELECT record FROM quarantined_records WHERE valid_to_run IS NULL")
    assert kept == ONE_BAD_RECORD[fault]


def test_an_unknown_field_100_000_levels_deep_is_kept_or_quarantined(world: World) -> None:
    deep = json.dumps(record(900))[:-1] + f', "new": {nested(100_000)}' + "}"
    with RawServer(answers(response((json.dumps(generation(1))[:-1] + "," + deep + "]").encode()))) as server:
        outcome = world.sync(server.base_url)
    assert outcome.code == 0, outcome.errors
    assert (900 in live(world.database)) == (outcome.runs[0]["records_quarantined"] == 0)


def bomb(peer: Peer) -> None:
    """Send 4 GB in some 4 MB."""
    peer.read_request()
    peer.send(response(length=-1).replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"))
    packer = zlib.compressobj(wbits=31)
    piece = b" " * (16 * MEGABYTE)
    for _ in range(256):
        peer.send(packer.compress(piece))


def endless(peer: Peer) -> None:
    peer.read_request()
    peer.send(response(length=-1) + b"[")
    peer.send_for_ever(b" " * MEGABYTE)


def endless_chunk_of_negative_size(peer: Peer) -> None:
    peer.read_request()
    peer.send(response(b"-1\r\n", "Transfer-Encoding: chunked", length=-1))
    peer.send_for_ever(b" " * MEGABYTE)


def endless_headers(peer: Peer) -> None:
    peer.read_request()
    peer.send(b"HTTP/1.1 200 OK\r\nX: ")
    peer.send_for_ever(b"y" * MEGABYTE)


MONSTERS: dict[str, tuple[Script, int]] = {
    "a small body that expands to gigabytes": (bomb, 65),
    "an endless body": (endless, 65),
    "an endless chunk of negative size": (endless_chunk_of_negative_size, 69),
    "an endless header": (endless_headers, 69),
}


@pytest.mark.parametrize("monster", MONSTERS)
def test_memory_stays_within_the_limit_of_the_body_and_a_constant(
    migrated_database: Database, monster: str, tmp_path: Path
) -> None:
    script, exit_code = MONSTERS[monster]
    limit = 50 * MEGABYTE
    before = business(migrated_database)
    with RawServer(script) as server:
        config = write_config(
            tmp_path, migrated_database.url, {"main": server.base_url}, http={"max_body_bytes": limit, "deadline": 5}
        )
        outcome = run_new_process(tmp_path, "sync", "--json", "--config", str(config))
    assert outcome.code == exit_code, (outcome.code, outcome.errors)
    assert outcome.peak_bytes < BASE_BYTES + limit
    assert business(migrated_database) == before


def test_two_hundred_thousand_records_and_then_the_same_again(migrated_database: Database, tmp_path: Path) -> None:
    size = 200_000
    first = body([record(identity) for identity in range(1, size + 1)])
    path = tmp_path / "body.json"
    path.write_bytes(first)
    config = write_config(tmp_path, migrated_database.url, {"main": "http://127.0.0.1:9"})
    arguments = ("sync", "--json", "--config", str(config), "--from-file", str(path), "--source", "main")
    outcome = run_new_process(tmp_path, *arguments, seconds=120)
    assert outcome.code == 0, outcome.errors
    assert migrated_database.scalar("SELECT count(*) FROM virtual_numbers") == size
    again = run_new_process(tmp_path, *arguments, seconds=120)
    assert again.runs[0]["numbers_unchanged"] == size
    assert migrated_database.scalar("SELECT count(*) FROM virtual_numbers_history") == 0


def every_character() -> list[Record]:
    """Return records that hold every character there is, save NUL and surrogates, in comments of moderate length."""
    points = [point for point in range(1, 0x110000) if not 0xD800 <= point <= 0xDFFF]
    step = 8192
    return [
        record(number + 1, comment="".join(map(chr, points[start : start + step])))
        for number, start in enumerate(range(0, len(points), step))
    ]


AWKWARD = [
    " leading and trailing ", "tab\tnewline\nreturn\rvertical\vform\f", "quote ' \" ` \\ %s %(x)s :name ? $1 \\N",
    "'; DROP TABLE virtual_numbers; --", "NULL", "", "\x7f\x80\x9f", "\u200b\u200e\u202e\ufeff", "e\u0301 \u00e9",
    "ёЁЕе", "ß SS ẞ", "\U0001f600\U0001f468\u200d\U0001f469", "\ufffe\uffff\U0010ffff", "I i İ ı",
]  # fmt: skip


def test_every_character_a_megabyte_and_awkward_strings_come_back_as_they_were(world: World) -> None:
    snapshot = [
        *every_character(),
        *(record(1000 + number, comment=text, region_name=text) for number, text in enumerate(AWKWARD)),
        record(2000, comment="я" * MEGABYTE, number="7" * MEGABYTE),
        record(2001, comment="\U0001f600" * (MEGABYTE // 4)),
    ]
    outcome = world.load_file(body(snapshot), "--accept-removals", "1000")
    world.assert_accepted(outcome, snapshot)
    again = world.load_file(json.dumps(snapshot[::-1]).encode())
    world.assert_accepted(again, snapshot)
    assert again.runs[0]["numbers_unchanged"] == len(snapshot)
    check_accepted(world.database, world.accepted)


def test_numbers_that_swap_and_an_id_that_returns_after_a_gap(world: World) -> None:
    first = [record(identity) for identity in range(1, 9)]
    swapped = [record(1, number=first[1]["number"]), record(2, number=first[0]["number"]), *first[2:]]
    course = [first, swapped, first[2:], first, first[:5], swapped]
    for snapshot in course:
        outcome = world.load_file(body(snapshot), "--accept-removals", "100")
        world.assert_accepted(outcome, snapshot)
    world.assert_recovers()
