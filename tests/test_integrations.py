"""Figures, dead-man's switch and messages, each against the real thing; none of them may change how a run ends."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from etl.config import Config, Metrics, Notify, Ping, load_config
from etl.db.engine import open_engine
from etl.db.locks import exclusive_lock, source_lock
from etl.errors import ConfigError
from etl.events import Action, Detail, Event
from etl.integrations import connect
from etl.integrations.metrics import METRICS, Textfile
from etl.sandbox import Answer, SandboxServer
from tests import command
from tests.command import Ended
from tests.listening import Listener
from tests.snapshots import bad, body, record

# Apprise looks for a module that Python 3.13 has no more; with it in this process, the warning is ours.
loads_apprise = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
TOKEN = "d41d8cd9-secret-token"
LIVE = 20


class Operator:
    """Has sources, a configuration file and an SQLite database, and calls `etl` as cron does."""

    def __init__(self, folder: Path, server: SandboxServer) -> None:
        self.folder = folder
        self.server = server
        self.sections = ""
        self.sources = ["main"]
        self.environment = {"ETL_TOKEN": TOKEN}
        self.serve_well()

    def etl(self, *arguments: str) -> Ended:
        return command.end(self.start(*arguments))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        sources = (f'[[sources]]\nname = "{name}"\nbase_url = "{self.server.base_url}"\n' for name in self.sources)
        text = "".join((*sources, "[http]\nmax_attempts = 1\n", self.sections))
        (self.folder / "config.toml").write_text(text, encoding="utf-8")
        return command.start(*arguments, cwd=self.folder, variables=self.environment)

    def serve_well(self, count: int = LIVE) -> None:
        self.server.serve_body(body(record(identity) for identity in range(1, count + 1)))

    def serve_bad_records(self, *identities: int) -> None:
        records = [record(identity) for identity in range(1, LIVE + 1)]
        self.server.serve_body(body([*records, *map(bad, identities)]))


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    with SandboxServer(token=TOKEN) as server:
        yield Operator(tmp_path, server)


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as made:
        yield made


def warnings_of(ended: Ended) -> list[str]:
    """Return what the log says of broken integrations."""
    return [line["message"] for line in ended.logged if line["action"] == "integration_failed"]


# Configuration --------------------------------------------------------------------------------------------------------


def test_an_unconfigured_integration_is_not_even_imported(operator: Operator) -> None:
    operator.etl("sync")
    code = (
        "import sys; from etl.cli import main; main(['sync'])\n"
        "unwanted = ('apprise', 'prometheus', 'etl.integrations.')\n"
        "print(*(name for name in sys.modules if name.startswith(unwanted)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=operator.folder,
        env=command.environment(operator.environment),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.splitlines()[-1] == ""
    assert ended.stdout.startswith("main: succeeded")


@pytest.mark.parametrize(
    ("section", "hint"),
    [
        ('[metrics]\ntextfile = "/somewhere/etl.txt"', ".prom"),
        ('[metrics]\ntextfiles = "/somewhere/etl.prom"', "did you mean 'textfile'"),
        ('[ping]\nurl = "hc.example/hidden-path"', "ping.url must look like"),
        ('[ping]\nurl = "https://hc.example/hidden-path?state=up"', "without a query"),
        ('[ping]\nurl = "https://user:hidden-path@hc.example/"', "ping.url must look like"),
        ('[notify]\nurls = ["hidden-path"]', "address 1 must look like"),
        ('[notify]\nurls = ["json://127.0.0.1/", "nosuchservice://hidden-path"]', "address 2"),
        ('[notify]\nurls = ["mailto://"]', "address 1"),
        ('[notify]\nurls = "mailto://hidden-path@x.example"', "notify.urls: expected array"),
    ],
)
def test_a_wrong_section_ends_the_command_before_it_begins(operator: Operator, section: str, hint: str) -> None:
    operator.sections = section
    ended = operator.etl("sync")
    assert ended.code == 78
    assert hint in ended.error
    assert "hidden-path" not in ended.stdout + ended.stderr
    assert not operator.server.requests


@pytest.mark.parametrize(
    ("package", "extra", "section"),
    [
        ("prometheus_client", "metrics", '[metrics]\ntextfile = "etl.prom"'),
        ("apprise", "notify", '[notify]\nurls = ["json://127.0.0.1/"]'),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    operator: Operator, package: str, extra: str, section: str
) -> None:
    (operator.folder / "config.toml").write_text(section, encoding="utf-8")
    code = f"import sys; sys.modules[{package!r}] = None; from etl.cli import main; sys.exit(main(['sync']))"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=operator.folder,
        env=command.environment(operator.environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 78
    assert f"virtual-numbers-etl[{extra}]" in ended.stderr


def test_neither_an_address_nor_a_password_shows_in_a_configuration_that_is_printed() -> None:
    config = Config(ping=Ping(url="https://hc.example/secret"), notify=Notify(urls=("mailto://me:secret@x.example",)))
    assert "secret" not in repr(config)


# Metrics --------------------------------------------------------------------------------------------------------------


def figures(file: Path) -> dict[str, float]:
    """Parse a textfile into values by `name{label values}`."""
    families = text_string_to_metric_families(file.read_text(encoding="utf-8"))

    def name(sample: Sample) -> str:
        # The source comes first, then the outcome where there is one.
        labels = ",".join(sample.labels[label] for label in sorted(sample.labels, reverse=True))
        return f"{sample.name.removeprefix('virtual_numbers_')}{{{labels}}}"

    return {name(sample): sample.value for family in families for sample in family.samples}


@pytest.fixture
def textfile(operator: Operator) -> Path:
    operator.sections = '[metrics]\ntextfile = "etl.prom"\n'
    return operator.folder / "etl.prom"


def test_a_run_leaves_all_its_figures(operator: Operator, textfile: Path) -> None:
    operator.serve_bad_records(1001)
    before = time.time()
    ended = operator.etl("sync")
    found = figures(textfile)
    assert ended.code == 0
    assert {name.partition("{")[0] for name in found} == METRICS.keys()
    assert found["live{main}"] == found["last_run_numbers_added{main}"] == LIVE
    assert found["last_run_numbers_changed{main}"] == found["last_run_numbers_removed{main}"] == 0
    assert found["last_run_records_quarantined{main}"] == found["last_run_attempts{main}"] == 1
    assert found["last_run_body_bytes{main}"] > 1000
    assert found["last_run_exit_code{main}"] == 0
    assert [found[f"last_run_outcome{{main,{each}}}"] for each in ("succeeded", "refused", "failed")] == [1, 0, 0]
    assert before <= found["last_success_timestamp_seconds{main}"] == found["last_run_timestamp_seconds{main}"]
    assert 0 < found["last_run_duration_seconds{main}"] < time.time() - before


def test_a_run_that_does_not_succeed_keeps_what_is_live_and_the_time_of_the_last_success(
    operator: Operator, textfile: Path
) -> None:
    operator.etl("sync")
    good = figures(textfile)
    operator.serve_well(count=2)
    assert operator.etl("sync").code == 65
    refused = figures(textfile)
    operator.server.script(Answer(status=503))
    assert operator.etl("sync").code == 69
    failed = figures(textfile)
    for found, outcome, code in ((refused, "refused", 65), (failed, "failed", 69)):
        assert found["live{main}"] == LIVE
        assert found["last_success_timestamp_seconds{main}"] == good["last_success_timestamp_seconds{main}"]
        assert found["last_run_timestamp_seconds{main}"] > good["last_run_timestamp_seconds{main}"]
        assert found[f"last_run_outcome{{main,{outcome}}}"] == 1
        assert found["last_run_outcome{main,succeeded}"] == 0
        assert found["last_run_exit_code{main}"] == code
        assert found["last_run_numbers_removed{main}"] == 0, "whatever the snapshot would have done"
        assert found["last_run_numbers_added{main}"] == 0


def test_a_run_of_one_source_leaves_the_figures_of_the_others(operator: Operator, textfile: Path) -> None:
    operator.sources = ["north", "south"]
    operator.etl("sync")
    both = figures(textfile)
    operator.serve_well(count=LIVE + 5)
    operator.etl("sync", "--source", "south")
    after = figures(textfile)
    assert after["live{south}"] == LIVE + 5
    assert {name: value for name, value in after.items() if "north" in name} == {
        name: value for name, value in both.items() if "north" in name
    }


def test_a_source_that_is_no_longer_configured_leaves_the_file(operator: Operator, textfile: Path) -> None:
    operator.sources = ["north", "south"]
    operator.etl("sync")
    operator.sources = ["north"]
    operator.etl("sync")
    assert not [name for name in figures(textfile) if "south" in name]


def test_sources_that_are_synced_side_by_side_lose_no_figures(tmp_path: Path) -> None:
    names = [f"s{number}" for number in range(8)]
    file = tmp_path / "etl.prom"
    writers = [Textfile(str(file), names) for _ in names]

    def work(index: int) -> None:
        for added in range(5):
            details: dict[str, Detail] = {"numbers_added": added, "numbers_changed": 0, "numbers_unchanged": index}
            writers[index](Event(Action.RUN_SUCCEEDED, source=names[index], details=details))

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(work, range(len(names))))
    found = figures(file)
    assert [found[f"live{{{name}}}"] for name in names] == [4 + index for index in range(len(names))]
    assert [path.name for path in tmp_path.iterdir()] == ["etl.prom"]


def test_node_exporter_may_read_the_file_whatever_the_umask(tmp_path: Path) -> None:
    file = tmp_path / "etl.prom"
    before = os.umask(0o077)
    try:
        Textfile(str(file), ["main"])(Event(Action.RUN_FAILED, source="main"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


@pytest.mark.parametrize("content", [b"", b"virtual_numbers_live{source=", b"\xff\xfe\x00", b"live{} nonsense\n"])
def test_a_damaged_file_is_made_anew(operator: Operator, textfile: Path, content: bytes) -> None:
    textfile.write_bytes(content)
    ended = operator.etl("sync")
    assert ended.code == 0
    assert not warnings_of(ended)
    assert figures(textfile)["live{main}"] == LIVE


def test_a_run_that_finds_another_one_in_progress_leaves_the_file_alone(operator: Operator, textfile: Path) -> None:
    operator.etl("sync")
    before = textfile.read_bytes()
    url = f"sqlite:///{operator.folder / 'numbers.db'}"
    with open_engine(url).connect() as connection, exclusive_lock(connection, source_lock("main")):
        assert operator.etl("sync").code == 75
    assert textfile.read_bytes() == before


@pytest.mark.parametrize("obstacle", ["no folder", "a folder in its place", "a name no file can have"])
def test_a_file_that_cannot_be_written_is_a_warning(operator: Operator, obstacle: str) -> None:
    name = {"no folder": "nowhere/etl.prom", "a name no file can have": r"a\u0000b.prom"}.get(obstacle, "etl.prom")
    operator.sections = f'[metrics]\ntextfile = "{name}"\n'
    if obstacle == "a folder in its place":
        (operator.folder / name).mkdir()
    ended = operator.etl("sync")
    assert ended.code == 0
    assert ended.stdout.startswith("main: succeeded")
    (warning,) = warnings_of(ended)
    assert warning.startswith("metrics: ")
    assert "the run itself is not affected" in warning
    assert "Traceback" not in ended.stderr
    assert not list(operator.folder.glob("*.prom.*")), "no draft is left behind"


# The dead-man's switch ------------------------------------------------------------------------------------------------


@pytest.fixture
def switch(operator: Operator, listener: Listener) -> Listener:
    operator.sections = f'[ping]\nurl = "{listener.url}/uuid/"\n'
    return listener


def test_a_sync_pings_when_it_starts_and_when_it_is_done(operator: Operator, switch: Listener) -> None:
    operator.sources = ["north", "south"]
    assert operator.etl("sync").code == 0
    assert switch.paths == ["/uuid/start", "/uuid"], "one beat for all sources"


def test_a_sync_that_fails_pings_the_exit_code_of_the_first_failure(operator: Operator, switch: Listener) -> None:
    operator.etl("sync")
    operator.serve_well(count=1)
    assert operator.etl("sync").code == 65
    operator.server.blocked = True
    assert operator.etl("sync").code == 77
    assert switch.paths[2:] == ["/uuid/start", "/uuid/65", "/uuid/start", "/uuid/77"]


def test_a_failure_before_a_run_could_be_opened_is_pinged(operator: Operator, switch: Listener) -> None:
    operator.environment = {"ETL_TOKEN": TOKEN, "ETL_DATABASE_URL": "sqlite:////nowhere/at/all.db"}
    operator.sources = ["north", "south"]
    ended = operator.etl("sync")
    assert ended.code == 77
    assert len(ended.stdout.splitlines()) == 2, "the other source is tried all the same"
    assert switch.paths == ["/uuid/start", "/uuid/77"]


def test_a_sync_that_finds_another_one_in_progress_leaves_the_last_word_to_it(
    operator: Operator, switch: Listener
) -> None:
    operator.etl("sync")
    url = f"sqlite:///{operator.folder / 'numbers.db'}"
    with open_engine(url).connect() as connection, exclusive_lock(connection, source_lock("main")):
        assert operator.etl("sync").code == 75
    assert switch.paths[2:] == ["/uuid/start"]


def test_a_dry_run_is_nobody_elses_business(operator: Operator, switch: Listener) -> None:
    operator.sections += f'[metrics]\ntextfile = "etl.prom"\n[notify]\nurls = ["json://{switch.address}"]\n'
    operator.server.blocked = True
    assert operator.etl("sync", "--dry-run").code == 77
    assert not switch.paths
    assert not (operator.folder / "etl.prom").exists()


def test_an_interrupted_sync_pings_no_end_and_its_log_says_how_it_ended(operator: Operator, switch: Listener) -> None:
    operator.etl("sync")
    operator.sections += f'[notify]\nurls = ["json://{switch.address}/note"]\n'
    operator.server.script(Answer(body=b"[]", delay=20))
    process = operator.start("sync")
    end = time.monotonic() + 20
    while len(operator.server.requests) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    ended = command.end(process)
    assert ended.code == 143
    assert ended.logged[-1]["action"] == "run_failed"
    assert ended.logged[-1]["error_code"] == "interrupted"
    assert ended.logged[-1]["exit_code"] == 143
    assert switch.paths[2:] == ["/uuid/start"]


@pytest.mark.parametrize("trouble", ["down", "status 500", "status 404", "status 302", "silent"])
def test_a_broken_switch_is_a_warning_and_its_address_is_not_shown(
    operator: Operator, switch: Listener, trouble: str
) -> None:
    if trouble == "down":
        operator.sections = '[ping]\nurl = "http://127.0.0.1:9/uuid"\n'
    elif trouble == "silent":
        switch.silent = True
    else:
        switch.status = int(trouble.removeprefix("status "))
    ended = operator.etl("sync")
    assert ended.code == 0
    assert len(warnings_of(ended)) == 2, "one for the start, one for the end"
    assert all(warning.startswith("ping: ") for warning in warnings_of(ended))
    assert "uuid" not in ended.stderr
    assert "/elsewhere" not in switch.paths, "redirects are not followed"


def test_a_ping_is_sent_again_once_when_the_switch_stumbles(operator: Operator, switch: Listener) -> None:
    switch.status = 503
    operator.etl("sync")
    assert switch.paths == ["/uuid/start"] * 2 + ["/uuid"] * 2


def test_a_ping_carries_no_credentials_and_takes_no_way_from_the_environment(
    operator: Operator, switch: Listener
) -> None:
    (operator.folder / ".netrc").write_text("machine 127.0.0.1 login x password y\n", encoding="utf-8")
    (operator.folder / ".netrc").chmod(0o600)
    with Listener() as proxy:
        operator.environment |= {"HOME": str(operator.folder), "http_proxy": proxy.url, "ALL_PROXY": proxy.url}
        assert not warnings_of(operator.etl("sync"))
    assert not proxy.paths
    assert switch.paths == ["/uuid/start", "/uuid"]
    assert all(not headers.keys() & {"authorization", "cookie"} for headers in switch.headers)
    assert TOKEN not in str(switch.headers)


# Messages -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def person(operator: Operator, listener: Listener) -> Listener:
    operator.sections = f'[notify]\nurls = ["json://{listener.address}/"]\n'
    return listener


def titles(person: Listener) -> list[str]:
    """Return what each message says of its source."""
    found = (re.search(r'"title": "virtual-numbers-etl: source main ([^"]*)"', text) for text in person.bodies)
    return [match[1] if match else "?" for match in found]


def test_a_person_hears_of_the_first_failure_and_of_the_recovery_and_of_nothing_between(
    operator: Operator, person: Listener
) -> None:
    operator.etl("sync")
    assert not person.bodies, "a first run that succeeds is no news"
    operator.server.blocked = True
    assert [operator.etl("sync").code for _ in range(3)] == [77, 77, 77]
    assert titles(person) == ["could not be synced"]
    assert "allow-list" in person.bodies[0], "the message says what to do"
    operator.server.blocked = False
    assert [operator.etl("sync").code for _ in range(2)] == [0, 0]
    assert titles(person) == ["could not be synced", "is in sync again"]
    assert TOKEN not in str(person.bodies)


def test_a_first_run_ever_that_fails_is_told(operator: Operator, person: Listener) -> None:
    operator.server.blocked = True
    operator.etl("sync")
    assert titles(person) == ["could not be synced"]


def test_a_person_hears_of_a_refusal_once(operator: Operator, person: Listener) -> None:
    operator.etl("sync")
    operator.serve_well(count=1)
    assert [operator.etl("sync").code for _ in range(2)] == [65, 65]
    assert titles(person) == ["sent a snapshot that was refused"]
    assert f"--accept-removals {LIVE - 1}" in person.bodies[0]


def test_a_replay_that_brings_a_source_back_is_told_as_any_other_run(operator: Operator, person: Listener) -> None:
    operator.sections += '[archive]\ndirectory = "archive"\n'
    operator.etl("sync")
    operator.server.blocked = True
    operator.etl("sync")
    ended = operator.etl("archive", "replay", "1")
    assert ended.code == 0, ended.stderr
    assert titles(person) == ["could not be synced", "is in sync again"]


def test_a_person_hears_of_new_bad_records_and_not_of_the_same_again(operator: Operator, person: Listener) -> None:
    operator.serve_bad_records(1001, 1002)
    operator.etl("sync")
    assert titles(person) == ["sent bad records"]
    assert "2 records are newly quarantined" in person.bodies[0]
    operator.etl("sync")
    assert len(person.bodies) == 1
    operator.serve_bad_records(1001, 1002, 1003)
    operator.etl("sync")
    assert len(person.bodies) == 2
    assert "1 record is newly quarantined" in person.bodies[1]


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_an_interrupted_run_in_between_hides_no_failure(
    operator: Operator, person: Listener, ending: signal.Signals
) -> None:
    operator.etl("sync")
    operator.server.script(Answer(body=b"[]", delay=20))
    process = operator.start("sync")
    end = time.monotonic() + 20
    while len(operator.server.requests) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(ending)
    assert command.end(process).code in (-signal.SIGKILL, 143)
    assert not person.bodies, "a person has ended it and knows"
    operator.server.blocked = True
    operator.etl("sync")
    assert titles(person) == ["could not be synced"]


def test_a_message_that_cannot_be_delivered_is_a_warning_without_its_address(
    operator: Operator, person: Listener
) -> None:
    operator.sections = (
        f'[notify]\nurls = ["json://me:hidden-path@{person.address}/", "json://127.0.0.1:9/hidden-path"]\n'
    )
    operator.server.blocked = True
    ended = operator.etl("sync")
    assert ended.code == 77
    (warning,) = warnings_of(ended)
    assert "address 2 of notify.urls" in warning
    assert "hidden-path" not in ended.stderr
    assert titles(person) == ["could not be synced"], "the other address is told all the same"


def event(action: Action, run_id: int | None = 1, **details: str | int) -> Event:
    """Make an event of the source `main`."""
    return Event(action, source="main", run_id=run_id, details=dict(details))


@loads_apprise
@pytest.mark.parametrize("stays_up", [True, False])
def test_only_a_process_that_stays_up_tells_of_an_unreachable_database(listener: Listener, *, stays_up: bool) -> None:
    told: list[Event] = []
    config = Config(notify=Notify(urls=(f"json://{listener.address}/",)))
    tell = connect(config, stays_up=stays_up)(told.append)
    unreachable = event(Action.RUN_FAILED, None, exit_code=69, error_code="database_unreachable")
    for _ in range(3):
        tell(unreachable)
    tell(event(Action.RUN_STARTED, previous_outcome="succeeded"))
    tell(event(Action.RUN_SUCCEEDED))
    tell(unreachable)
    assert titles(listener) == (["cannot be synced", "is in sync again", "cannot be synced"] if stays_up else [])
    assert not [each for each in told if each.action is Action.INTEGRATION_FAILED]


def test_a_service_that_never_answers_is_not_waited_for_longer_than_a_run_can_bear(
    operator: Operator, person: Listener
) -> None:
    person.silent = True
    operator.server.blocked = True
    ended = operator.etl("sync")
    assert ended.code == 77
    assert len(warnings_of(ended)) == 1


@loads_apprise
def test_the_sections_are_off_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(environ={})
    assert (config.metrics, config.ping, config.notify) == (Metrics(), Ping(), Notify())
    heard: list[Event] = []
    connect(config)(heard.append)(event(Action.RUN_FAILED, None))
    assert [each.action for each in heard] == [Action.RUN_FAILED]
    with pytest.raises(ConfigError):
        connect(Config(notify=Notify(urls=("nosuchservice://x",))))
