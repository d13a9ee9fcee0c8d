"""Text from the source reaches databases exactly and people harmlessly: it forges no line, escape, SQL or markup."""

import json
import os
import pty
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from etl.sandbox import SandboxServer
from tests.command import environment, run
from tests.databases import Database
from tests.loading import loading
from tests.snapshots import body, record
from tests.stored import live

TOKEN = "hostile-text-token"
HOSTILE = {
    "a line of a log": 'x\n{"level": "error", "action": "run_failed"}\r\netl: forged',
    "terminal escapes": "\x1b[2J\x1b]0;title\x07\x9b31m\x08\x7f",
    "a hyperlink": "\x1b]8;;http://evil.test\x1b\\click\x1b]8;;\x1b\\",
    "directions": "\u202e\u2066gpj.exe\u2069\u200f",
    "line separators": "one\u2028two\u2029three\u0085four\x0b\x0c\x1c",
    "markup": "[bold red]x[/bold red][link=http://evil.test]y[/link] [/]",
    "html": '<script>alert(1)</script>"onload="x',
    "sql": "'); DROP TABLE virtual_numbers; -- \\' \" `",
    "a format": "%s %(token)s {0} {token} ${ETL_TOKEN}",
    "a formula": "=cmd|' /C calc'!A0",
}
COMMANDS = ["sync --dry-run", "sync -v", "changes", "quarantine", "status", "verify"]
# Everything that moves a cursor, begins a line or changes the direction of text.
HARMFUL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def records(text: str, first: int = 1) -> list[dict[str, Any]]:
    """Make records that hold the text wherever the source may put text, the second of them bad."""
    good = record(first, {7: text}, number=text, comment=text, purpose=text, region_name=text) | {text: {text: text}}
    return [good, record(first + 1) | {"number": text, "app_id": text}, record(first + 2)]


def one_body(texts: Sequence[str]) -> bytes:
    return body([item for place, text in enumerate(texts) for item in records(text, 1 + 3 * place)])


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_stored_exactly_and_does_nothing(migrated_database: Database, text: str) -> None:
    with loading(migrated_database) as loader:
        loader.load(records(text))
        found = live(migrated_database)
    assert found[1]["number"] == found[1]["comment"] == found[1]["redirects"][7]["number"] == text
    assert found[1]["extra"] == {text: {text: text}}
    assert found.keys() == {1, 3}
    assert json.loads(migrated_database.scalar("SELECT record FROM quarantined_records"))["number"] == text


@dataclass(frozen=True)
class Shown:
    """What a command wrote, to a pipe and to a terminal, of harmless text and of hostile."""

    harmless: str
    hostile: str
    harmless_on_terminal: str
    hostile_on_terminal: str


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    """Run every command that shows what the source sent, for snapshots that are alike but for their text."""
    outputs: dict[str, list[str]] = defaultdict(list)
    for texts in (["harmless"] * len(HOSTILE), list(HOSTILE.values())):
        folder = tmp_path_factory.mktemp("told")
        (folder / "config.toml").write_text("[guard]\nmax_quarantined_fraction = 1.0\n")
        with SandboxServer(token=TOKEN) as server:
            server.serve_body(one_body(texts))
            variables = {"ETL_TOKEN": TOKEN, "ETL_BASE_URL": server.base_url}
            for command in COMMANDS:
                ended = run(*command.split(), cwd=folder, variables=variables)
                assert ended.code == 0, ended.stderr
                outputs[command].append(ended.stdout + ended.stderr)
                outputs[command].append(on_terminal(command.split(), folder, variables))
    return {command: Shown(found[0], found[2], found[1], found[3]) for command, found in outputs.items()}


def on_terminal(command: Sequence[str], folder: Path, variables: dict[str, str]) -> str:
    """Run a command whose output goes to a terminal, and return what the terminal was sent."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "etl", *command],
        cwd=folder,
        env=environment(variables) | {"TERM": "xterm-256color", "COLUMNS": "2000", "LINES": "50"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    sent = b""
    while True:
        try:
            piece = os.read(ours, 65_536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not piece:
            break
        sent += piece
    os.close(ours)
    assert process.wait(60) == 0, sent
    return sent.decode()


@pytest.mark.parametrize("command", COMMANDS)
def test_no_output_to_a_pipe_holds_a_character_that_acts(told: dict[str, Shown], command: str) -> None:
    shown = told[command]
    assert not HARMFUL.search(shown.hostile)
    assert shown.hostile.count("\n") == shown.harmless.count("\n"), "a line was forged or swallowed"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_terminal_is_sent_no_escape_but_our_own(told: dict[str, Shown], command: str) -> None:
    # Colours, and the moves of the line that shows progress, which depend on how long a run takes.
    own = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[lh]|1A|2K)")
    left = own.sub("", told[command].hostile_on_terminal).replace("\r\n", "\n").replace("\r", "")
    assert not HARMFUL.search(left)
    assert "\x1b[2J" not in told[command].hostile_on_terminal


def test_markup_reaches_people_as_it_is(told: dict[str, Shown]) -> None:
    assert HOSTILE["markup"] in told["changes"].hostile
    assert HOSTILE["markup"] in told["changes"].hostile_on_terminal


def test_a_log_is_json_line_by_line_and_holds_no_text_of_the_source(told: dict[str, Shown]) -> None:
    output = told["sync -v"].hostile
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert len(lines) > 3
    assert all({"time", "level", "action"} <= line.keys() for line in lines)
    assert "run_failed" not in {line["action"] for line in lines}
    assert not [text for text in HOSTILE.values() if text in output]


def test_json_output_gives_the_text_back_exactly_and_holds_nothing_that_acts(tmp_path: Path) -> None:
    texts = list(HOSTILE.values())
    with SandboxServer(token=TOKEN) as server:
        server.serve_body(one_body(texts))
        variables = {"ETL_TOKEN": TOKEN, "ETL_BASE_URL": server.base_url}
        (tmp_path / "config.toml").write_text("[guard]\nmax_quarantined_fraction = 1.0\n")
        dry_run = run("sync", "--dry-run", "--json", cwd=tmp_path, variables=variables)
        assert run("sync", cwd=tmp_path, variables=variables).code == 0
    changes, quarantine = (run(name, "--json", cwd=tmp_path, variables=variables) for name in ("changes", "quarantine"))
    for document in (changes.document, dry_run.document["runs"][0]):
        numbers = {item["id"]: item for item in document["changes"] if item["kind"] == "number"}
        for place, text in enumerate(texts):
            number = numbers[1 + 3 * place]
            assert (number["number"], number["fields"]["comment"]["new"]) == (text, text)
    assert [json.loads(item["record"])["number"] for item in quarantine.document["quarantined"]] == texts
    for ended in (changes, quarantine, dry_run):
        assert not HARMFUL.search(ended.stdout)
