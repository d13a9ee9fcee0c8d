"""What a person at a terminal sees, and that programs see none of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from etl.sandbox import Answer, SandboxServer
from tests.command import run
from tests.loading import TOKEN
from tests.snapshots import bad, body, record
from tests.terminals import Screen, run_at_terminal

HEADINGS = ["Source", "Outcome", "Added", "Changed", "Removed", "Same", "Redirects", "Quarantined"]
ORDINARY = 80  # columns
PLACE_BODY = body([record(1, {10: "7495"}), record(2), *map(record, range(3, 13)), bad(50)])


class Place:
    """A folder and a server, for `etl` with a database file there."""

    def __init__(self, folder: Path, server: SandboxServer) -> None:
        self.folder = folder
        self.server = server
        self.variables = {"ETL_BASE_URL": server.base_url, "ETL_TOKEN": TOKEN}

    def etl(self, *arguments: str, columns: int = ORDINARY) -> Screen:
        return run_at_terminal(*arguments, cwd=self.folder, columns=columns, variables=self.variables)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with SandboxServer(token=TOKEN) as server:
        server.serve_body(PLACE_BODY)
        yield Place(tmp_path, server)


def table(screen: Screen) -> list[list[str]]:
    """Return the words of the lines from the headings on."""
    words = [line.split() for line in screen.lines]
    return words[words.index(HEADINGS) :]


def test_a_sync_shows_progress_and_ends_in_a_table_that_fits_an_ordinary_terminal(place: Place) -> None:
    place.server.script(Answer(body=PLACE_BODY, delay=0.5))  # a faster one may be over before it is painted
    screen = place.etl("sync")

    assert screen.code == 0
    assert "main asking the source…" in screen.text
    assert table(screen)[2:] == [["main", "succeeded", "12", "0", "0", "0", "+1", "~0", "−0", "1"]]
    assert screen.raw.count("\x1b[?25l") == screen.raw.count("\x1b[?25h") == 1  # the cursor is back
    assert '{"time"' not in screen.text


def test_a_table_of_a_hundred_thousand_numbers_fits_too(place: Place) -> None:
    place.server.serve_body(body([record(number, {number: "7"}) for number in range(1, 12_346)]))
    screen = place.etl("sync")

    assert table(screen)[2:] == [["main", "succeeded", "12345", "0", "0", "0", "+12345", "~0", "−0", "0"]]


def test_warnings_and_errors_are_plain_sentences(place: Place) -> None:
    assert "etl: main: 1 record is quarantined: see `etl quarantine`" in place.etl("sync", columns=200).text
    place.server.serve_body(b"<html>")
    screen = place.etl("sync", columns=200)

    assert screen.code == 65
    assert screen.text.count("etl: main: the body is not valid JSON") == 1
    assert table(screen)[2:] == [["main", "refused", *["–"] * 6]]
    assert "Traceback" not in screen.text


def test_a_dry_run_says_that_it_is_one(place: Place) -> None:
    screen = place.etl("sync", "--dry-run")

    assert screen.lines[-1] == "This was a dry run: nothing was written."
    assert "+ number 79200000001 (id 1)" in screen.text
    assert not list(place.folder.iterdir())


def test_quiet_is_silent_and_verbose_tells_every_step(place: Place) -> None:
    place.server.serve_body(body([record(1)]))
    loud = place.etl("sync", "--verbose")
    quiet = place.etl("sync", "--quiet")

    assert (quiet.code, quiet.raw) == (0, "")
    for step in ("run started", "body received", "changes found", "run succeeded"):
        assert f"etl: main: {step}" in loud.text


def test_a_long_reason_is_folded_between_words(place: Place) -> None:
    place.etl("sync")
    screen = place.etl("quarantine")

    assert " ".join(screen.text.split()).endswith("50 wrong_type comment is an integer, not a string")
    assert len(screen.lines) > 3
    assert all(len(line) <= ORDINARY for line in screen.lines)


def test_a_pipe_gets_no_colour_and_no_progress(place: Place) -> None:
    ended = run("sync", cwd=place.folder, variables=place.variables)

    assert ended.stdout.startswith("main: succeeded: 12 added")
    assert "\x1b" not in ended.stdout + ended.stderr
    assert len(ended.logged) == len(ended.stderr.splitlines())
