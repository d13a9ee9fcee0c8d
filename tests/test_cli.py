"""The command line as cron and people use it: exit codes, one-line errors, results, JSON."""

import gzip
import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from etl.sandbox import Answer, SandboxServer
from tests import stored
from tests.command import Ended, end, run, start
from tests.databases import Database, Databases
from tests.loading import TOKEN
from tests.snapshots import body, record

SNAPSHOT = [record(number, {number + 100: "74950000007"}, comment="личное") for number in (1, 2, 3, 4)]


@dataclass
class Shell:
    """A folder with a configuration, a server and a database."""

    folder: Path
    server: SandboxServer
    database: Database

    def configure(self, text: str = "", sources: str = '[[sources]]\nname = "main"\n') -> None:
        blocks = sources.replace("[[sources]]", f'[[sources]]\nbase_url = "{self.server.base_url}"\ntoken = "{TOKEN}"')
        http = "" if "[http]" in text else "[http]\nmax_attempts = 1\n"
        file = self.folder / "config.toml"
        file.write_text(f'[database]\nurl = "{self.database.url}"\n{http}{text}\n{blocks}', encoding="utf-8")
        file.chmod(0o600)

    def etl(self, *arguments: str, **variables: str) -> Ended:
        ended = run(*arguments, cwd=self.folder, variables=variables)
        everything = ended.stdout + ended.stderr
        assert "Traceback" not in everything
        assert TOKEN not in everything
        return ended


@pytest.fixture
def shell(migrated_database: Database, tmp_path: Path) -> Iterator[Shell]:
    with SandboxServer(token=TOKEN) as server:
        server.serve_body(body(SNAPSHOT))
        made = Shell(tmp_path, server, migrated_database)
        made.configure()
        yield made


@pytest.fixture
def local(sqlite_databases: Databases, tmp_path: Path) -> Iterator[Shell]:
    """Give the same on SQLite alone, for what no database has a part in."""
    with sqlite_databases.migrated() as database, SandboxServer(token=TOKEN) as server:
        server.serve_body(body(SNAPSHOT))
        made = Shell(tmp_path, server, database)
        made.configure()
        yield made


def complaint(ended: Ended) -> str:
    """Return the one line that says what is wrong, from the log or from an error before any run."""
    told = [line["message"] for line in ended.logged if line["level"] == "error"]
    told += [line for line in ended.stderr.splitlines() if line.startswith("etl: ")]
    assert len(told) == 1, ended.stderr
    assert "\n" not in told[0]
    assert not re.search(r"\d{11}|личное", told[0])
    return str(told[0])


def test_a_sync_prints_one_plain_line_for_each_source_and_ends_with_0(shell: Shell) -> None:
    ended = shell.etl("sync")

    assert ended.code == 0
    assert re.fullmatch(
        r"main: succeeded: 4 added, 0 changed, 0 removed, 0 unchanged; redirects: 4 added, 0 changed, 0 removed; "
        r"0 quarantined; \d+\.\d s\n",
        ended.stdout,
    )
    assert [line["action"] for line in ended.logged][:1] == ["sync_started"]
    assert shell.etl("sync", "--quiet").stdout == ""


def test_quarantined_records_within_the_limit_are_a_warning(shell: Shell) -> None:
    shell.server.serve_body(body([*SNAPSHOT, record(9, comment="x") | {"app_id": "x"}]))
    ended = shell.etl("sync")

    assert ended.code == 0
    assert "1 quarantined" in ended.stdout
    assert any(line["action"] == "records_quarantined" and line["level"] == "warning" for line in ended.logged)


@pytest.mark.parametrize(
    ("answer", "code", "error_code", "words"),
    [
        (Answer(body=b"<html>"), 65, "not_json", "not valid JSON"),
        (Answer(body=b'{"error": "79201234567"}'), 65, "not_an_array", "object instead of an array"),
        (Answer(body=b'["\xff"]'), 65, "not_utf8", "UTF-8"),
        (Answer(body=b"[] []"), 65, "not_json", "not valid JSON"),
        (Answer(body=b"[1, 2, 3]"), 65, "too_many_bad_records", "etl quarantine"),
        (Answer(status=401), 77, "bad_token", "Сгенерировать"),
        (Answer(status=403), 77, "ip_not_allowed", "denies every IP until it is on the allow-list"),
        (Answer(status=404), 76, "unexpected_status", "check base_url"),
        (Answer(status=206, body=b"[]"), 76, "unexpected_status", "206"),
        (Answer(status=302, headers={"Location": "/"}), 76, "unexpected_status", "redirect"),
        (Answer(status=503), 69, "http_status", "503"),
        (Answer(status=429), 69, "http_status", "429"),
        (Answer(reset=True), 69, "connection_reset", "reset"),
        (Answer(body=b"[1, 2, 3]", cut_after=4), 69, "connection_broken", "broke off"),
    ],
)  # fmt: skip
def test_what_the_source_answers_decides_the_exit_code(
    shell: Shell, answer: Answer, code: int, error_code: str, words: str
) -> None:
    shell.server.script(answer)
    ended = shell.etl("sync")

    assert ended.code == code
    assert words in complaint(ended)
    logged = stored.last_run(shell.database)
    assert (logged["outcome"], logged["error_code"]) == ("refused" if code == 65 else "failed", error_code)
    assert logged["error_message"] == complaint(ended)
    assert shell.database.scalar("SELECT count(*) FROM virtual_numbers") == 0
    assert shell.etl("sync").code == 0


def test_the_guard_refuses_and_a_person_may_accept(shell: Shell) -> None:
    shell.etl("sync")
    shell.server.serve_body(body(SNAPSHOT[:1]))

    refused = shell.etl("sync")
    assert refused.code == 65
    assert "would remove 3 of 4" in complaint(refused)
    assert "etl sync --source main --accept-removals 3" in complaint(refused)
    assert shell.etl("sync", "--accept-removals", "2").code == 65
    assert len(stored.live(shell.database)) == 4

    accepted = shell.etl("sync", "--accept-removals", "3", "--json")
    assert (accepted.code, accepted.document["runs"][0]["numbers_removed"]) == (0, 3)
    assert stored.live(shell.database).keys() == {1}


def test_an_empty_list_wipes_nothing(shell: Shell) -> None:
    shell.etl("sync")
    shell.server.serve_body(b"[]")
    ended = shell.etl("sync")

    assert ended.code == 65
    assert "no number at all while 4 are live" in complaint(ended)
    assert len(stored.live(shell.database)) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sync", "--accept-removals", "1"], "--accept-removals needs one --source"),
        (["sync", "--from-file", "x.json"], "--from-file needs one --source"),
        (["sync", "--accept-removals", "-1"], "-1 is negative"),
        (["sync", "--nonsense"], "unrecognized arguments"),
        (["nonsense"], "invalid choice"),
        ([], "required"),
        (["changes", "--since", "yesterday"], "neither a date or time"),
        (["sandbox", "--churn", "2"], "is not a share"),
    ],
)
def test_wrong_usage_is_2(local: Shell, arguments: list[str], words: str) -> None:
    local.configure(sources='[[sources]]\nname = "a"\n[[sources]]\nname = "b"\n')
    ended = local.etl(*arguments)

    assert ended.code == 2
    assert words in ended.stderr
    assert stored.runs(local.database, "a") == []


def test_several_sources_are_all_tried_and_the_first_failure_counts(shell: Shell) -> None:
    shell.configure(sources="".join(f'[[sources]]\nname = "{name}"\n' for name in "abc"))
    shell.server.script(Answer(status=404), Answer(status=401))
    ended = shell.etl("sync", "--json")

    assert ended.code == ended.document["exit_code"] == 76
    assert [(one["source"], one["exit_code"]) for one in ended.document["runs"]] == [("a", 76), ("b", 77), ("c", 0)]
    named = shell.etl("sync", "--source", "c", "--source", "b", "--json")
    assert [one["source"] for one in named.document["runs"]] == ["b", "c"]
    assert shell.etl("sync", "--source", "d").code == 78


@pytest.mark.parametrize(
    ("text", "variables", "words"),
    [
        ("[http]\nmax_atempts = 1", {}, "did you mean 'max_attempts'"),
        ('[schedule]\ncron = "never"', {}, "schedule.cron"),
        ("", {"ETL_DATABASE_URL": "oracle://x/y"}, "use sqlite, postgresql, mysql or mariadb"),
        ("", {"ETL_DATABASE_URL": "nonsense"}, "is not a URL"),
        ("", {"ETL_DATABASE_URL": "sqlite://"}, "in memory"),
        ("", {"ETL_CONFIG": "absent.toml"}, "absent.toml, which is not a file"),
        ("", {"ETL_DATABASE_URL": "postgresql+psycopg2://x/y"}, "driver"),
    ],
)
def test_configuration_that_cannot_be_right_is_78(
    local: Shell, text: str, variables: dict[str, str], words: str
) -> None:
    local.configure(text)
    ended = local.etl("sync", **variables)

    assert ended.code == 78
    assert words in complaint(ended)
    assert stored.runs(local.database) == []


def test_no_token_is_78_and_leaves_no_run(local: Shell) -> None:
    (local.folder / "config.toml").unlink()
    ended = local.etl("sync", ETL_DATABASE_URL=local.database.url, ETL_BASE_URL=local.server.base_url)

    assert ended.code == 78
    assert "$ETL_TOKEN is empty" in complaint(ended)
    assert stored.runs(local.database) == []


@pytest.mark.parametrize(
    ("url", "extra"), [("postgresql://h/d", "postgresql"), ("mariadb://h/d", "mysql"), ("mysql://h/d", "mysql")]
)
def test_a_missing_driver_names_the_extra_that_brings_it(local: Shell, url: str, extra: str) -> None:
    missing = local.folder / "missing"
    missing.mkdir()
    for name in ("psycopg", "pymysql"):
        (missing / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}', name='{name}')\n")
    path = f"{missing}:{Path(__file__).parents[1]}"
    ended = local.etl("sync", ETL_DATABASE_URL=url, PYTHONPATH=path)

    assert ended.code == 78
    assert f"pip install 'virtual-numbers-etl[{extra}]'" in complaint(ended)


def test_schemas_of_other_revisions_are_78(shell: Shell) -> None:
    shell.database.execute("UPDATE alembic_version SET version_num = '2099_01_01_later'")
    for arguments in (["sync"], ["sync", "--dry-run"], ["changes"], ["db", "check"], ["db", "upgrade"]):
        ended = shell.etl(*arguments)
        assert ended.code == 78, arguments
        assert "2099_01_01_later" in complaint(ended)
    assert shell.etl("db", "current").stdout == "2099_01_01_later\n"


def test_a_schema_that_only_an_operator_may_upgrade(database: Database, tmp_path: Path) -> None:
    with SandboxServer(token=TOKEN) as server:
        server.serve_body(body(SNAPSHOT))
        shell = Shell(tmp_path, server, database)
        shell.configure()
        text = (tmp_path / "config.toml").read_text().replace("[database]", '[database]\nmigrate = "check"')
        (tmp_path / "config.toml").write_text(text)
        refused = shell.etl("sync")

        assert refused.code == 78
        assert "run `etl db upgrade`" in complaint(refused)
        assert not list(tmp_path.glob("*.db*"))
        assert shell.etl("db", "check").code == 78
        assert shell.etl("db", "upgrade").code == 0
        assert shell.etl("db", "check").code == 0
        assert shell.etl("sync").code == 0


def test_a_dry_run_writes_nothing_at_all(database: Database, tmp_path: Path) -> None:
    with SandboxServer(token=TOKEN) as server:
        server.serve_body(body([*SNAPSHOT, 5]))
        shell = Shell(tmp_path, server, database)
        shell.configure()
        before = sorted(path.name for path in tmp_path.iterdir())
        ended = shell.etl("sync", "--dry-run")

        assert ended.code == 0
        assert "+ number 79200000001 (id 1)" in ended.stdout
        assert "main: dry run: succeeded: 4 added" in ended.stdout
        assert "record 4 would be quarantined" in ended.stdout
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        if database.kind == "sqlite":
            assert not Path(database.url.removeprefix("sqlite:///")).exists()
        else:
            tables = database.scalar(
                "SELECT count(*) FROM information_schema.tables WHERE table_name IN ('sync_runs', 'alembic_version') "
                f"AND table_schema = {'current_schema()' if database.kind == 'postgresql' else 'database()'}"
            )
            assert tables == 0


def test_a_dry_run_shows_every_change_field_by_field(shell: Shell) -> None:
    shell.etl("sync")
    before = stored.dump(shell.database)
    changed = record(1, {101: "74950000008", 102: "74950000009"}, comment="новое")
    shell.server.serve_body(body([changed, *SNAPSHOT[2:], record(9)]))
    ended = shell.etl("sync", "--dry-run", "--json")

    (result,) = ended.document["runs"]
    seen = {(one["kind"], one["change"], one["id"]): one["fields"] for one in result["changes"]}
    assert seen[("number", "changed", 1)] == {"comment": {"old": "личное", "new": "новое"}}
    assert seen[("redirect", "changed", 101)] == {"number": {"old": "74950000007", "new": "74950000008"}}
    assert {key for key in seen if key[1] != "changed"} == {
        ("redirect", "added", 102), ("number", "removed", 2), ("redirect", "removed", 102), ("number", "added", 9),
    }  # fmt: skip
    assert (result["run_id"], result["numbers_unchanged"]) == (None, 2)
    assert stored.dump(shell.database) == before
    refused = shell.etl("sync", "--dry-run", "--source", "main", ETL_CONFIG="config.toml")
    assert refused.code == 0


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_saved_body_is_loaded_without_a_token(shell: Shell, pack: Any) -> None:
    (shell.folder / "saved").write_bytes(pack(body(SNAPSHOT)))
    config = shell.folder / "config.toml"
    config.write_text(config.read_text().replace(f'token = "{TOKEN}"', ""))
    ended = shell.etl("sync", "--from-file", "saved", "--source", "main")

    assert ended.code == 0, ended.stderr
    assert len(stored.live(shell.database)) == 4
    assert shell.server.requests == []


def test_a_file_that_cannot_be_read_is_74(local: Shell) -> None:
    (local.folder / "cut.gz").write_bytes(gzip.compress(body(SNAPSHOT))[:-5])
    for name in ("absent.json", "cut.gz", "."):
        ended = local.etl("sync", "--from-file", name, "--source", "main")
        assert ended.code == 74, name
        assert name in complaint(ended)


def test_a_file_that_is_no_database_is_74(local: Shell) -> None:
    (local.folder / "letter.db").write_text("Здравствуйте! " * 100)
    ended = local.etl("sync", ETL_DATABASE_URL="sqlite:///letter.db")

    assert ended.code == 74
    assert "not an SQLite database" in complaint(ended)


def test_an_unreachable_database_is_69(local: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for scheme in ("postgresql", "mariadb"):
        ended = local.etl("sync", ETL_DATABASE_URL=f"{scheme}://u:secret@127.0.0.1:{port}/x")
        assert ended.code == 69, scheme
        assert "secret" not in ended.stderr


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_wrong_password_is_77(local: Shell, kind: str, request: pytest.FixtureRequest) -> None:
    databases: Databases = request.getfixturevalue(f"{kind}_databases")
    with databases.empty() as database:
        url = re.sub(r"//([^:]+):[^@]+@", r"//\1:wrong-secret@", database.url)
        ended = local.etl("sync", ETL_DATABASE_URL=url)

    assert ended.code == 77
    assert "refuses this user or password" in complaint(ended)
    assert "wrong-secret" not in ended.stderr


def wait_for_request(server: SandboxServer) -> None:
    end_of_patience = time.monotonic() + 20
    while not server.requests:
        assert time.monotonic() < end_of_patience
        time.sleep(0.02)


def test_a_second_run_of_a_source_ends_with_75_and_leaves_no_trace(shell: Shell) -> None:
    shell.server.script(Answer(body=body(SNAPSHOT), delay=3))
    first = start("sync", cwd=shell.folder)
    wait_for_request(shell.server)
    second = shell.etl("sync")
    dry = shell.etl("sync", "--dry-run")

    assert second.code == 75
    assert "in progress" in complaint(second)
    assert dry.code == 0
    assert end(first).code == 0
    assert [row["outcome"] for row in stored.runs(shell.database)] == ["succeeded"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_that_is_then_marked_interrupted(shell: Shell, number: int, code: int) -> None:
    shell.server.script(Answer(body=body(SNAPSHOT), delay=30))
    process = start("sync", cwd=shell.folder)
    wait_for_request(shell.server)
    process.send_signal(number)

    assert end(process).code == code
    logged = stored.last_run(shell.database)
    assert (logged["outcome"], logged["error_code"]) == ("failed", "interrupted")
    assert shell.etl("sync").code == 0


def test_a_killed_run_shows_running_until_the_next_marks_it(shell: Shell) -> None:
    shell.server.script(Answer(body=body(SNAPSHOT), delay=30))
    process = start("sync", cwd=shell.folder)
    wait_for_request(shell.server)
    process.kill()
    end(process)
    assert [row["outcome"] for row in stored.runs(shell.database)] == ["running"]

    for _ in range(50):
        if shell.etl("sync").code != 75:
            break
        time.sleep(0.1)
    assert [(row["outcome"], row["error_code"]) for row in stored.runs(shell.database)] == [
        ("failed", "interrupted"), ("succeeded", None),
    ]  # fmt: skip


def test_a_bug_is_70_in_one_line_without_its_text(local: Shell) -> None:
    broken = local.folder / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import hashlib\ndef fail(*_, **__): raise ZeroDivisionError('79201234567')\nhashlib.blake2b = fail\n"
    )
    ended = local.etl("sync", PYTHONPATH=f"{broken}:{Path(__file__).parents[1]}")

    assert ended.code == 70
    assert re.search(r"a bug: ZeroDivisionError at etl/records\.py:\d+; nothing was changed", complaint(ended))
    assert stored.last_run(local.database)["error_code"] == "bug"


def test_every_reading_command_prints_one_json_document(shell: Shell) -> None:
    shell.server.serve_body(body([*SNAPSHOT, record(5) | {"app_id": "x"}]))
    shell.etl("sync")
    shell.server.serve_body(body([record(1, {101: "74950000007"}, comment="новое"), *SNAPSHOT[1:]]))
    shell.etl("sync")

    changes = shell.etl("changes", "--run", "2", "--json").document["changes"]
    assert [(one["change"], one["id"], one["fields"]) for one in changes] == [
        ("changed", 1, {"comment": {"old": "личное", "new": "новое"}})
    ]
    assert len(shell.etl("changes", "--json").document["changes"]) == 9
    assert len(shell.etl("changes", "--number", "79200000002", "--json").document["changes"]) == 2
    assert len(shell.etl("changes", "--number", "2", "--json").document["changes"]) == 2
    assert len(shell.etl("changes", "--number", "74950000007", "--json").document["changes"]) == 4
    assert shell.etl("changes", "--since", "2099-01-01", "--json").document == {"changes": []}
    assert len(shell.etl("changes", "--since", "1h", "--source", "main", "--json").document["changes"]) == 9
    assert shell.etl("quarantine", "--json").document == {"quarantined": []}
    (closed,) = shell.etl("quarantine", "--all", "--json").document["quarantined"]
    assert (closed["number_id"], closed["reason_code"], closed["valid_from_run"], closed["valid_to_run"]) == (
        5,
        "wrong_type",
        1,
        2,
    )
    assert json.loads(closed["record"])["id"] == 5
    assert shell.etl("db", "current", "--json").document["revision"] == shell.etl("db", "check").stdout.strip()
    assert "~ number 79200000001 (id 1)\n      comment: “личное” → “новое”" in shell.etl("changes").stdout


def test_reading_before_there_is_a_schema_says_what_to_do(database: Database, tmp_path: Path) -> None:
    for command in ("changes", "quarantine"):
        ended = run(command, cwd=tmp_path, variables={"ETL_DATABASE_URL": database.url})
        assert ended.code == 78
        assert "run `etl sync`" in ended.error
    assert list(tmp_path.glob("*.db*")) == []


def test_the_demo_runs_again_over_its_own_file_and_no_other(tmp_path: Path) -> None:
    for _ in range(2):
        ended = run("demo", "--numbers", "40", cwd=tmp_path)
        assert ended.code == 0, ended.stderr
        assert "First sync" in ended.stdout
        assert "What run 2 changed" in ended.stdout
    (tmp_path / "mine.db").write_text("precious")
    refused = run("demo", "--database", "mine.db", cwd=tmp_path)

    assert refused.code == 2
    assert (tmp_path / "mine.db").read_text() == "precious"


def test_the_sandbox_serves_what_a_sync_can_load(tmp_path: Path) -> None:
    process = start("sandbox", "--port", "0", "--numbers", "25", "--seed", "3", "--token", "t-9", cwd=tmp_path)
    assert process.stdout is not None
    url = re.search(r"http://\S+(?=;)", process.stdout.readline())
    assert url
    variables = {"ETL_BASE_URL": url[0], "ETL_TOKEN": "t-9", "ETL_DATABASE_URL": "sqlite:///n.db"}
    assert "25 added" in run("sync", cwd=tmp_path, variables=variables).stdout
    assert run("sync", cwd=tmp_path, variables=variables | {"ETL_TOKEN": "other"}).code == 77
    process.send_signal(signal.SIGTERM)

    assert end(process).code == 143
