"""`docs/events.md` says what is logged, and what is logged can be trusted."""

import ast
import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import pytest

from etl.config import Config, Guard, Http, Source
from etl.config import Database as DatabaseSection
from etl.events import RUN_OUTCOMES, Action, Event, Level
from etl.integrations.metrics import METRICS
from etl.pipeline import api_job, sync_all
from etl.report.observers import human_lines, json_lines
from etl.sandbox import Answer, SandboxServer
from tests.command import CHECKOUT
from tests.databases import Database
from tests.snapshots import bad, body, record

TOKEN = "0123456789-token"
PAGE = (CHECKOUT / "docs" / "events.md").read_text(encoding="utf-8")
MARK = "Zaphod"
"""Occurs in all text that the source sends."""


def words(text: str) -> set[str]:
    """Return what is set in code."""
    return set(re.findall(r"`([a-z_0-9]+)`", text))


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table under a heading."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


@cache
def documented() -> dict[str, tuple[str, set[str]]]:
    """Return the level and the keys of each event."""
    of_a_run = words(PAGE.partition("**The run's keys**")[2].partition("\n## ")[0]) - {"sync_runs"}
    return {
        next(iter(words(action))): (level, of_a_run if keys == "the run's keys" else words(keys))
        for action, level, keys, _ in rows("Events")
    }


class Story:
    """Syncs one database from one server, and keeps all events."""

    def __init__(self, database: Database, server: SandboxServer) -> None:
        self.server = server
        self.events: list[Event] = []
        self.source = Source(name="main", base_url=server.base_url, token=TOKEN)
        self.config = Config(
            database=DatabaseSection(url=database.url),
            sources=(self.source,),
            http=Http(max_attempts=2, max_body_bytes=100_000),
            guard=Guard(max_quarantined_fraction=0.9),
        )

    def sync(self, *answers: Answer, body: bytes | None = None, **options: int) -> str:
        self.server.script(*answers)
        self.server.serve_body(body)
        job = partial(api_job, self.config, self.source, self.events.append, **options)
        (result,) = sync_all([(self.source, job)], self.events.append)
        return result.error.code if result.error else result.outcome


@pytest.fixture
def story(migrated_database: Database) -> Iterator[Story]:
    with SandboxServer(token=TOKEN) as server:
        yield Story(migrated_database, server)


def marked(identity: int, **fields: object) -> dict[str, object]:
    """Make a record all of whose text is marked, its unknown field's name included."""
    made = record(identity, {identity + 5000: f"{MARK}{identity}"}, comment=f"{MARK}\n\x1b[31m", reason=MARK)
    return {**made, "number": f"{MARK}{identity}", "region_name": MARK, MARK: MARK, **fields}


def tell_everything(story: Story) -> None:
    """Live through all that a source can do to a run."""
    good = [marked(identity) for identity in range(1, 9)]
    wrong = [marked(90, type=5), marked(91, id=MARK), marked(92, purpose=MARK), marked(93, state=MARK), [MARK]]
    retried = Answer(status=503, headers={"Retry-After": "0", "X-Note": MARK}, body=MARK.encode())
    assert story.sync(retried, body=body(good)) == "succeeded"
    assert story.sync(body=body([*good, *wrong])) == "succeeded"
    assert story.sync(body=body([*good, *wrong])) == "succeeded"
    assert story.sync(body=body(good[:1])) == "too_many_removed"
    assert story.sync(body=body([])) == "empty_snapshot"
    assert story.sync(body=f"<html>{MARK}</html>".encode()) == "not_json"
    assert story.sync(body=json.dumps({MARK: MARK}).encode()) == "not_an_array"
    assert story.sync(body=f'["{MARK}\xff"]'.encode("latin-1")) == "not_utf8"
    assert story.sync(body=body([MARK * 50_000])) == "body_too_large"
    assert story.sync(Answer(status=302, headers={"Location": f"/{MARK}"})) == "unexpected_status"
    assert story.sync(Answer(status=403, body=MARK.encode())) == "ip_not_allowed"
    assert story.sync(Answer(headers={"Content-Encoding": MARK}, body=b"[]")) == "unknown_encoding"
    assert story.sync(retried, retried) == "http_status"


# The page -------------------------------------------------------------------------------------------------------------


def test_the_page_lists_every_event_and_no_other() -> None:
    assert [next(iter(words(row[0]))) for row in rows("Events")] != []
    assert documented().keys() == {action.value for action in Action}


def test_the_page_lists_every_metric_and_no_other() -> None:
    listed = [next(iter(words(row[0]))) for row in rows("Metrics")]
    assert listed == [f"virtual_numbers_{name}" for name in METRICS]


def test_events_have_the_levels_and_keys_that_the_page_gives(story: Story) -> None:
    tell_everything(story)
    assert len({event.action for event in story.events}) > 12
    for event in story.events:
        level, keys = documented()[event.action]
        assert event.level == level, event.action
        had = {name for name, value in event.details.items() if value is not None} | (
            {"message"} if event.message else set()
        )
        assert had <= keys, event.action
        assert not event.details.keys() & {"time", "level", "action", "source", "run_id", "message"}


def test_a_run_that_did_not_succeed_says_why_and_how_it_ends(story: Story) -> None:
    tell_everything(story)
    codes = {row[0]: words(row[1]) for row in rows("Error codes")}
    ends = [event for event in story.events if event.action in RUN_OUTCOMES]
    assert len(ends) == 13
    for event in ends:
        if event.action is not Action.RUN_SUCCEEDED:
            assert event.message
            assert event.details["error_code"] in codes[str(event.details["exit_code"])]


def test_the_page_lists_every_error_code_a_run_can_end_with() -> None:
    listed = set().union(*(words(row[1]) for row in rows("Error codes")))
    all_codes = {code for file in (CHECKOUT / "etl").rglob("*.py") for code in codes_in(file)}
    of_runs = {
        code
        for place in ("extract", "transform", "load", "guard.py", "pipeline.py", "unforeseen.py", "db/failures.py")
        for file in files_of(CHECKOUT / "etl" / place)
        for code in codes_in(file)
    }
    assert of_runs - listed == set()
    assert listed - all_codes == set()


def files_of(place: Path) -> list[Path]:
    """Return the Python files of a folder, or the file itself."""
    return sorted(place.rglob("*.py")) if place.is_dir() else [place]


def codes_in(file: Path) -> set[str]:
    """Return the error codes that a module gives to its errors, in any of the ways in which the program does so."""
    found: set[object] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Name(id="_AttemptFailedError" | "Refusal"), args=[ast.Constant(value=code), *_]):
                found.add(code)
            case ast.keyword(arg="code", value=ast.Constant(value=code)):
                found.add(code)
            case ast.AnnAssign(target=ast.Name(id="default_code"), value=ast.Constant(value=code)):
                found.add(code)
            case ast.Assign(targets=[ast.Name(id="default_code")], value=ast.Constant(value=code)):
                found.add(code)
            case ast.AnnAssign(
                annotation=ast.Name(id="_Meaning"), value=ast.Tuple(elts=[_, ast.Constant(value=code), _])
            ):
                found.add(code)
            case ast.AnnAssign(target=ast.Name(id="_CONNECTION_FAILURES"), value=ast.Tuple(elts=entries)):
                found |= {entry.elts[1].value for entry in entries}  # type: ignore[attr-defined] # a tuple of tuples
    return {code for code in found if isinstance(code, str)}


# What the core tells --------------------------------------------------------------------------------------------------


def test_no_event_repeats_what_the_source_sent(story: Story) -> None:
    tell_everything(story)
    told = "\n".join(map(repr, story.events))
    assert MARK.lower() not in told.lower()
    assert TOKEN not in told


def test_a_run_knows_how_the_last_one_ended_that_nobody_interrupted(story: Story, migrated_database: Database) -> None:
    good = body([record(1), record(2), record(3)])
    story.sync(body=good)
    story.sync(Answer(status=403))
    story.sync(body=good)
    story.sync(body=b"[]")
    story.sync(body=good)
    migrated_database.execute(
        "UPDATE sync_runs SET outcome = 'failed', error_code = 'interrupted' WHERE id = (SELECT * FROM "
        "(SELECT max(id) FROM sync_runs) AS newest)"
    )
    story.sync(body=good)
    started = [event for event in story.events if event.action is Action.RUN_STARTED]
    told = [event.details["previous_outcome"] for event in started]
    assert told == [None, "succeeded", "failed", "succeeded", "refused", "refused"]


def test_only_records_that_are_new_in_quarantine_are_told_as_new(story: Story) -> None:
    good = [record(identity) for identity in range(1, 9)]
    for wrong in ([bad(90)], [bad(90)], [bad(90), bad(91)], [], [bad(90)]):
        story.sync(body=body([*good, *wrong]))
    fresh = [event for event in story.events if event.action is Action.RECORDS_NEWLY_QUARANTINED]
    assert [(event.run_id, event.details["records"]) for event in fresh] == [(1, 1), (3, 1), (5, 1)]


# How it is written ----------------------------------------------------------------------------------------------------


@contextmanager
def standard_error(monkeypatch: pytest.MonkeyPatch, encoding: str) -> Iterator[io.BytesIO]:
    """Put a standard error of this encoding in the place of the real one, set up as the command line does."""
    raw = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace"))
        yield raw


FORGERIES = [
    'x\n{"level": "info", "action": "run_succeeded"}',
    "x\r\netl: main: all is well",
    "\x1b[2J\x1b[Hx",
    "x\u2028y\u2029z\x85w",
    "x\u202eevil",
    "file\udcff.json",
    "кириллица é 𝛼 \x7f\x00",
]


@pytest.mark.parametrize("text", FORGERIES)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1251"])
def test_no_text_breaks_a_json_line_in_any_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str, text: str) -> None:
    with standard_error(monkeypatch, encoding) as raw:
        json_lines(Level.INFO)(Event(Action.RUN_FAILED, Level.ERROR, "main", 1, text, {"error_code": text}))
        written = raw.getvalue().decode(encoding)
    assert len(written.splitlines()) == 1
    assert written.endswith("\n")
    assert written[:-1].isprintable()
    line = json.loads(written)
    assert line["message"] == line["error_code"] == text
    assert list(line)[:5] == ["time", "level", "action", "source", "run_id"]


@pytest.mark.parametrize("text", FORGERIES)
def test_no_text_breaks_a_line_for_people(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with standard_error(monkeypatch, "utf-8") as raw:
        human_lines(Level.INFO)(Event(Action.RUN_FAILED, Level.ERROR, "main", 1, text))
        human_lines(Level.INFO)(Event(Action.RUN_FAILED, Level.ERROR, "main", 1, "", {"error_code": text}))
        written = raw.getvalue().decode()
    lines = written.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("etl: main: ") and line.isprintable() for line in lines)


def test_the_log_leaves_out_what_matters_less_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [Event(Action.SYNC_STARTED, level) for level in Level]
    with standard_error(monkeypatch, "utf-8") as raw:
        for threshold in (Level.DEBUG, Level.INFO, Level.WARNING, Level.ERROR):
            for event in events:
                json_lines(threshold)(event)
        levels = [json.loads(line)["level"] for line in raw.getvalue().decode().splitlines()]
    assert levels == ["debug", "info", "warning", "error", "info", "warning", "error", "warning", "error", "error"]
