"""What a run asks for, accepts, writes down and leaves alone: sections 4 and 5 of the contract, but records."""

import gzip
import hashlib
import re
import zlib
from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest

from etl import __version__
from etl.errors import BusyError
from etl.events import Action
from etl.extract.client import _retry_after
from etl.sandbox import Answer, SandboxServer
from tests import stored
from tests.databases import Database
from tests.loading import TOKEN, Loader, loading
from tests.snapshots import bad, body, record

NO_WAIT = {"Retry-After": "0"}


def test_the_request_is_exactly_the_documented_one(loader: Loader) -> None:
    loader.load([record(1)])
    (request,) = loader.server.requests

    assert request.method == "GET"
    assert request.target == "/numbers/virtual-number?purpose__ne=not_specified&state=active&type=def&type=abc"
    assert request.headers["authorization"] == TOKEN
    assert request.headers["content-type"] == "application/json; charset=UTF-8"


def test_a_successful_run_writes_down_all_it_knows(loader: Loader) -> None:
    loader.load([record(1, {10: "7495"}), record(2)])
    snapshot = body([record(1, {11: "7495"}), record(2, comment="x"), record(3), bad(4), record(5, state="freeze")])
    before = datetime.now(UTC)
    run = loader.load(snapshot)
    row = stored.last_run(loader.database)

    assert row["id"] == run
    assert (row["source"], row["outcome"], row["etl_version"], row["http_status"]) == (
        "main",
        "succeeded",
        __version__,
        200,
    )
    assert (row["attempts"], row["error_code"], row["error_message"]) == (1, None, None)
    assert (row["body_bytes"], row["body_sha256"]) == (len(snapshot), hashlib.sha256(snapshot).hexdigest())
    assert (row["records_received"], row["records_quarantined"], row["records_outside_filter"]) == (5, 1, 1)
    counted = [row[f"numbers_{what}"] for what in ("added", "changed", "removed", "unchanged")]
    assert counted == [1, 1, 0, 1]  # number 1 is unchanged: only its redirects are not
    assert [row[f"redirects_{what}"] for what in ("added", "changed", "removed")] == [1, 0, 1]
    started, finished = (moment(row[name]) for name in ("started_at", "finished_at"))
    assert before - timedelta(seconds=1) < started <= finished < datetime.now(UTC) + timedelta(seconds=1)


def moment(value: object) -> datetime:
    """Read a time as its database gives it: always UTC."""
    if isinstance(value, str):
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", value)
        value = datetime.fromisoformat(value)
    assert isinstance(value, datetime)
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def test_a_run_has_one_time_that_closes_the_old_version_and_opens_the_next(loader: Loader) -> None:
    first = loader.load([record(1, {10: "1"})])
    second = loader.load([record(1, {10: "2"}, comment="x")])
    third = loader.load([])
    times = {row["id"]: moment(row["started_at"]) for row in stored.runs(loader.database)}

    for view in ("virtual_numbers_timeline", "redirect_numbers_timeline"):
        rows = stored.select(loader.database, f"SELECT * FROM {view} ORDER BY valid_from_run")
        assert [(row["valid_from_run"], row["valid_to_run"]) for row in rows] == [(first, second), (second, third)]
        assert [(moment(row["valid_from"]), moment(row["valid_to"])) for row in rows] == [
            (times[first], times[second]), (times[second], times[third]),
        ]  # fmt: skip


def test_the_latest_version_of_every_number_ever_seen(loader: Loader) -> None:
    loader.load([record(1), record(2), record(3)])
    loader.load([record(1), record(2, comment="x")])
    loader.load([record(1)])
    loader.load([record(1), record(3, comment="back")])
    rows = stored.select(loader.database, "SELECT id, comment, removed_at FROM virtual_numbers_ever ORDER BY id")
    times = [moment(row["started_at"]) for row in stored.runs(loader.database)]

    assert [(row["id"], row["comment"]) for row in rows] == [(1, "Заметка 1"), (2, "x"), (3, "back")]
    assert [row["removed_at"] and moment(row["removed_at"]) for row in rows] == [None, times[2], None]


def test_numbers_and_redirects_in_one_view(loader: Loader) -> None:
    loader.load([record(1, {10: "a", 11: "b"}), record(2)])
    rows = loader.database.rows(
        "SELECT source, id, number, comment, redirect_id, redirected_number FROM number_redirects "
        "ORDER BY id, redirect_id"
    )

    assert rows == [
        ("main", 1, "79200000001", "Заметка 1", 10, "a"),
        ("main", 1, "79200000001", "Заметка 1", 11, "b"),
        ("main", 2, "79200000002", "Заметка 2", None, None),
    ]


def test_numbers_may_swap_and_ids_may_return(loader: Loader) -> None:
    first = loader.load([record(1, number="A"), record(2, number="B")])
    swapped = loader.load([record(1, number="B"), record(2, number="A")])
    gone = loader.load([record(2, number="A")])
    back = loader.load([record(1, number="A"), record(2, number="A")])

    numbers = {
        run: {key: value["number"] for key, value in stored.live_after(loader.database, run).items()}
        for run in (first, swapped, gone, back)
    }
    assert numbers == {first: {1: "A", 2: "B"}, swapped: {1: "B", 2: "A"}, gone: {2: "A"}, back: {1: "A", 2: "A"}}


def test_a_number_kept_by_quarantine_counts_as_unchanged(loader: Loader) -> None:
    loader.load([record(1), record(2)])
    loader.load([bad(1), record(2)])
    row = stored.last_run(loader.database)

    assert (row["numbers_unchanged"], row["numbers_removed"]) == (2, 0)
    assert stored.live(loader.database).keys() == {1, 2}


def test_the_same_bad_record_is_one_row_until_it_is_gone(loader: Loader) -> None:
    first = loader.load([record(1), bad(7)])
    loader.load([dict(reversed(bad(7).items())), record(1)])
    assert [(row["valid_from_run"], row["position"]) for row in stored.quarantined(loader.database)] == [(first, 1)]

    mended = loader.load([record(1), record(7)])
    assert stored.quarantined(loader.database) == []
    again = loader.load([bad(7), record(1)])
    rows = stored.quarantined(loader.database, still=False)
    assert {(row["valid_from_run"], row["valid_to_run"]) for row in rows} == {(first, mended), (again, None)}


def test_a_refused_snapshot_still_brings_the_quarantine_up_to_date(loader: Loader) -> None:
    loader.load([record(1), record(2), bad(7)])
    loader.guarded(max_removed_fraction=0.1, max_quarantined_fraction=1.0)
    before = stored.dump(loader.database)
    result = loader.sync([record(1), bad(8)])
    after = stored.dump(loader.database)

    assert result.outcome == "refused"
    assert result.error is not None
    assert result.error.code == "too_many_removed"
    assert [row["number_id"] for row in stored.quarantined(loader.database)] == [8]
    for log in ("sync_runs", "quarantined_records"):
        assert before.pop(log) != after.pop(log)
    assert after == before


def test_a_body_that_cannot_be_parsed_leaves_the_quarantine_alone(loader: Loader) -> None:
    loader.load([record(1), bad(7)])
    result = loader.sync(b"<html>")
    row = stored.last_run(loader.database)

    assert result.outcome == row["outcome"] == "refused"
    assert (row["error_code"], row["records_received"], row["body_bytes"], row["http_status"]) == (
        "not_json",
        None,
        6,
        200,
    )
    assert [bad["number_id"] for bad in stored.quarantined(loader.database)] == [7]


@pytest.mark.parametrize(
    ("live", "snapshot", "settings", "code"),
    [
        (4, 2, {}, None),
        (4, 1, {}, "too_many_removed"),
        (4, 1, {"max_removed_fraction": 0.75}, None),
        (4, 3, {"max_removed_fraction": 0.0}, "too_many_removed"),
        (0, 0, {}, None),
        (1, 0, {"max_removed_fraction": 1.0}, "empty_snapshot"),
        (4, 0, {"allow_empty": True}, "too_many_removed"),
        (4, 0, {"allow_empty": True, "max_removed_fraction": 1.0}, None),
    ],
)
def test_the_guard(loader: Loader, live: int, snapshot: int, settings: dict[str, object], code: str | None) -> None:
    numbers = [record(number) for number in range(1, 5)]
    loader.load(numbers[:live])
    loader.guarded(**settings)
    result = loader.sync(numbers[:snapshot])

    assert (result.error.code if result.error else None) == code
    assert len(stored.live(loader.database)) == (live if code else snapshot)


def test_a_share_of_bad_records_is_borne_and_no_more(loader: Loader) -> None:
    good = [record(number) for number in range(1, 4)]
    loader.guarded()
    assert loader.sync([*good, 5]).outcome == "succeeded"
    result = loader.sync([*good, 5, 6])

    assert result.outcome == "refused"
    assert result.error is not None
    assert result.error.code == "too_many_bad_records"


@pytest.mark.parametrize(
    "answers",
    [
        [Answer(status=503, headers=NO_WAIT), Answer(status=429, headers=NO_WAIT)],
        [Answer(status=408, headers=NO_WAIT), Answer(status=425, headers=NO_WAIT)],
        [Answer(status=599, headers=NO_WAIT)],
        [Answer(reset=True)],
        [Answer(body=b"[" + b" " * 5000 + b"]", cut_after=100)],
        [Answer(body=b"[]" * 500, chunked=True, chunk_size=100, end_chunks=False)],
        [Answer(body=gzip.compress(b"[]")[:-3], headers={"Content-Encoding": "gzip"})],
        [Answer(body=gzip.compress(b"[]")[:-8] + b"12345678", headers={"Content-Encoding": "gzip"})],
    ],
    ids=["503-429", "408-425", "599", "reset", "shorter", "no-last-chunk", "gzip-cut", "gzip-checksum"],
)  # fmt: skip
def test_what_may_pass_is_tried_again(loader: Loader, answers: list[Answer]) -> None:
    loader.server.script(*answers)
    loader.load([record(1)])

    assert stored.last_run(loader.database)["attempts"] == len(answers) + 1
    assert len(loader.told(Action.ATTEMPT_FAILED)) == len(answers)
    assert stored.live(loader.database).keys() == {1}


@pytest.mark.parametrize(
    ("packed", "headers"),
    [
        (gzip.compress(body([record(1)])), {"Content-Encoding": "gzip"}),
        (zlib.compress(body([record(1)])), {"Content-Encoding": "deflate"}),
        (zlib.compress(body([record(1)]))[2:-4], {"Content-Encoding": "Deflate"}),
        (b"\xef\xbb\xbf" + body([record(1)]), {}),
        (body([record(1)]), {"Content-Type": "text/html; charset=windows-1251"}),
        (body([record(1)]), {"Content-Type": ""}),
    ],
    ids=["gzip", "deflate", "bare-deflate", "bom", "wrong-charset", "no-type"],
)
def test_bodies_are_utf8_json_whatever_the_headers_say(loader: Loader, packed: bytes, headers: dict[str, str]) -> None:
    loader.server.script(Answer(body=packed, headers=headers))
    assert loader.sync_as_served().outcome == "succeeded"

    assert stored.live(loader.database)[1]["comment"] == "Заметка 1"
    assert (
        stored.last_run(loader.database)["body_sha256"]
        == hashlib.sha256(body([record(1)]) if "Content-Encoding" in headers else packed).hexdigest()
    )


def test_a_redirect_is_not_followed(loader: Loader) -> None:
    loader.server.script(Answer(status=301, headers={"Location": f"{loader.server.base_url}/elsewhere"}))
    result = loader.sync_as_served()

    assert result.exit_code == 76
    assert [request.target.partition("?")[0] for request in loader.server.requests] == ["/numbers/virtual-number"]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0), ("120", 120), (" 7 ", 7), ("86400", 86400),
        ("86401", None), ("31536000000", None), ("-1", None), ("1.5", None), ("soon", None), ("", None), (None, None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Wed, 21 Oct 9015 07:28:00 GMT", None), ("Wed, 99 Oct 2015", None),
    ],
)  # fmt: skip
def test_a_sane_retry_after_is_honoured(header: str | None, seconds: float | None) -> None:
    assert _retry_after(header) == seconds


def test_a_dry_run_beside_a_real_one_tells_of_one_moment(migrated_database: Database) -> None:
    """A dry run holds no lock; a number that goes while it asks the source is a new one by the time it compares."""

    def remove(_: str) -> None:
        real.load([record(1)])

    with loading(migrated_database) as real, SandboxServer(token=TOKEN, on_request=remove) as server:
        real.load([record(1), record(2), record(3)])
        with loading(migrated_database, server) as dry:
            result = dry.sync([record(1), record(2, comment="другая")], dry_run=True)

    assert result.outcome == "succeeded", result.error
    assert result.counts is not None
    assert (result.counts.numbers_added, result.counts.numbers_changed, result.counts.numbers_removed) == (1, 0, 0)


def test_sources_do_not_touch_each_other_and_run_side_by_side(loader: Loader) -> None:
    loader.load([record(1), record(2)], source="a")
    loader.load([record(1, comment="b's own")], source="b")
    loader.load([], source="b")
    assert stored.live(loader.database, "a").keys() == {1, 2}
    assert stored.live(loader.database, "b") == {}

    loader.server.script(Answer(body=body([record(3)]), delay=2))
    slow = Thread(target=loader.sync_as_served, kwargs={"source": "a"})
    slow.start()
    while len(loader.server.requests) < 4:
        assert slow.is_alive()
    assert loader.sync([record(4)], source="b").outcome == "succeeded"
    same = loader.sync([record(4)], source="a")
    assert isinstance(same.error, BusyError)
    slow.join()

    assert stored.live(loader.database, "a").keys() == {3}
    assert stored.live(loader.database, "b").keys() == {4}
    assert [row["outcome"] for row in stored.runs(loader.database, "a")] == ["succeeded", "succeeded"]
