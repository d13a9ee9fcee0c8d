import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from etl.config import Config, Http, Schedule, Source
from etl.config import Database as DatabaseSection
from etl.crontab import parse
from etl.duetimes import last_due, next_due, time_zone
from etl.errors import ConfigError
from etl.events import Action, Event, Observer
from etl.records import RunResult
from etl.sandbox import Answer, SandboxServer
from etl.scheduler import CrontabTrigger, follow_clock, keep_syncing
from tests import command
from tests.databases import Database
from tests.snapshots import body, record

TOKEN = "8f1c2d3e-token"
MINUTE = timedelta(minutes=1)
NEVER_SOON = "0 0 29 2 *"
FAST = Http(connect_timeout=2, read_timeout=5, deadline=10, max_attempts=1)


# When it is due -------------------------------------------------------------------------------------------------------

CHANGES_OF_CLOCKS = [
    ("Europe/Helsinki", 2026),
    ("America/New_York", 2026),
    ("Europe/Moscow", 2026),  # none at all
    ("Europe/Moscow", 2011),  # put forward for good
    ("Europe/Moscow", 2014),  # put back for good
    ("Australia/Lord_Howe", 2026),  # by half an hour
    ("Africa/Cairo", 2026),  # forward at midnight, back over midnight
]
EXPRESSIONS = [
    "*/15 * * * *",
    "30 * * * *",
    "30 3 * * *",
    "*/10 1,2,3 * * *",
    "0 */2 * * *",
    "15 0,23 1,15 * fri",
    "0 2 * 3,10,11 sun",
    "@monthly",
]


@cache
def minutes_of(zone_name: str, year: int) -> list[tuple[datetime, datetime]]:
    """All minutes of a year, as the moment in UTC and what clocks show."""
    zone = time_zone(zone_name)
    first = datetime(year, 1, 1, tzinfo=UTC)
    count = (datetime(year + 1, 1, 1, tzinfo=UTC) - first) // MINUTE
    moments = (first + MINUTE * number for number in range(count))
    return [(moment, moment.astimezone(zone).replace(tzinfo=None)) for moment in moments]


@cache
def cron_daemon(expression: str, zone_name: str, year: int) -> list[datetime]:
    """Wake up every minute of a year and look at the clock, as a daemon would, remembering what was run.

    A second opinion on due times, which knows nothing of how the first is come by.
    """
    crontab = parse(expression)

    def matches(local: datetime) -> bool:
        return local.minute in crontab.minutes and local.hour in crontab.hours and crontab.matches_day(local.date())

    every_hour = len(crontab.hours) == 24
    done: set[datetime] = set()
    runs = []
    minutes = minutes_of(zone_name, year)
    before = minutes[0][1] - MINUTE
    for moment, local in minutes:
        is_due = matches(local) and (every_hour or local not in done)
        if local - before > MINUTE and not every_hour:
            missed = [before + MINUTE * number for number in range(1, (local - before) // MINUTE)]
            is_due = is_due or any(map(matches, missed))
        if is_due:
            runs.append(moment)
            done.add(local)
        before = local
    return runs


@pytest.mark.parametrize(("zone_name", "year"), CHANGES_OF_CLOCKS)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_year_of_due_times_is_what_a_daemon_that_watches_the_clock_runs(
    expression: str, zone_name: str, year: int
) -> None:
    crontab, zone = parse(expression), time_zone(zone_name)
    minutes = minutes_of(zone_name, year)
    expected = cron_daemon(expression, zone_name, year)
    found = []
    due = next_due(crontab, zone, minutes[0][0] - timedelta(microseconds=1))
    while due is not None and due <= minutes[-1][0]:
        found.append(due)
        due = next_due(crontab, zone, due)
    assert found == expected
    assert expected


@pytest.mark.parametrize(("zone_name", "year"), CHANGES_OF_CLOCKS)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_last_due_time_is_the_one_before_the_next(expression: str, zone_name: str, year: int) -> None:
    crontab, zone = parse(expression), time_zone(zone_name)
    expected = cron_daemon(expression, zone_name, year)
    # The year's middle and ends would not show more than the days around the changes, but some of all do.
    for earlier, later in list(pairwise(expected))[:: max(1, len(expected) // 200)]:
        for until in (earlier, earlier + timedelta(seconds=30), later - timedelta(microseconds=1)):
            assert last_due(crontab, zone, until) == earlier


def local_times(expression: str, zone_name: str, start: str, count: int) -> list[str]:
    zone = time_zone(zone_name)
    moment: datetime | None = datetime.fromisoformat(start).replace(tzinfo=zone)
    found = []
    for _ in range(count):
        assert moment is not None
        moment = next_due(parse(expression), zone, moment)
        assert moment is not None
        found.append(f"{moment.astimezone(zone):%d %H:%M %Z}")
    return found


def test_a_named_time_that_never_occurs_is_made_good_when_the_clock_jumps() -> None:
    assert local_times("30 3 * * *", "Europe/Helsinki", "2026-03-28T12:00", 2) == ["29 04:00 EEST", "30 03:30 EEST"]


def test_a_named_time_that_occurs_twice_is_kept_once() -> None:
    assert local_times("30 1 * * *", "America/New_York", "2026-10-31T12:00", 2) == ["01 01:30 EDT", "02 01:30 EST"]


def test_a_schedule_for_every_hour_keeps_its_rhythm_through_a_change() -> None:
    spring = ["29 02:30 EET", "29 04:30 EEST", "29 05:30 EEST"]
    autumn = ["25 02:30 EEST", "25 03:30 EEST", "25 03:30 EET", "25 04:30 EET"]
    assert local_times("30 * * * *", "Europe/Helsinki", "2026-03-29T02:00", 3) == spring
    assert local_times("30 * * * *", "Europe/Helsinki", "2026-10-25T02:00", 4) == autumn


def test_a_day_that_is_rare_is_found_decades_away() -> None:
    crontab = parse("0 0 29 2 */7")
    due = next_due(crontab, UTC, datetime(2096, 3, 1, tzinfo=UTC))
    assert due is not None
    assert (due.year, due.month, due.day, due.isoweekday()) == (2128, 2, 29, 7)


def test_jitter_puts_a_run_off_and_never_brings_it_forward() -> None:
    trigger = CrontabTrigger(parse("0 * * * *"), UTC, jitter=600)
    now = datetime(2026, 5, 5, 10, 30, tzinfo=UTC)
    planned = [trigger.get_next_fire_time(None, now) for _ in range(200)]
    offsets = [moment - datetime(2026, 5, 5, 11, tzinfo=UTC) for moment in planned if moment]
    assert len(offsets) == 200
    assert timedelta(0) <= min(offsets)
    assert max(offsets) <= timedelta(minutes=10)
    assert len(set(offsets)) > 100


def test_after_a_run_that_was_put_off_no_due_time_is_left_out() -> None:
    trigger = CrontabTrigger(parse("0 * * * *"), UTC, jitter=600)
    fired = datetime(2026, 5, 5, 10, 9, tzinfo=UTC)
    following = trigger.get_next_fire_time(fired, fired)
    assert following is not None
    assert following.hour == 11


@pytest.mark.parametrize("planned", ["2126-01-01", "2026-01-01"])
def test_a_clock_that_was_set_does_not_leave_the_schedule_waiting(planned: str) -> None:
    scheduler = BackgroundScheduler(timezone=UTC)
    job = scheduler.add_job(lambda: None, CrontabTrigger(parse("* * * * *"), UTC), misfire_grace_time=None)
    scheduler.start(paused=True)
    try:
        job.modify(next_run_time=datetime.fromisoformat(planned).replace(tzinfo=UTC))
        follow_clock(scheduler, job)
        # One that is already due is left for the scheduler to see; one in a future that was called off is planned anew.
        assert job.next_run_time <= datetime.now(UTC) + MINUTE
    finally:
        scheduler.shutdown(wait=False)


# What is run when it is -----------------------------------------------------------------------------------------------


class Enough(BaseException):
    """Ends the scheduler from inside, as a signal does."""


class Watch:
    """Hears what the scheduler does, and ends it after a number of runs of all its sources."""

    def __init__(self, runs: int) -> None:
        self.left = runs
        self.events: list[Event] = []
        self.results: list[RunResult] = []
        self.next_run: datetime | None = None
        self.after_run: Callable[[], None] = lambda: None

    @contextmanager
    def observing(self) -> Iterator[Observer]:
        yield self.hear

    def hear(self, event: Event) -> None:
        self.events.append(event)
        if event.action is Action.SCHEDULE_STARTED and not self.left:
            raise Enough

    def report(self, results: Sequence[RunResult], next_run: datetime | None) -> None:
        self.results += results
        self.next_run = next_run
        self.after_run()
        self.left -= 1
        if self.left <= 0:
            raise Enough

    @property
    def started(self) -> Event:
        return next(event for event in self.events if event.action is Action.SCHEDULE_STARTED)


class Times(BaseTrigger):  # type: ignore[misc] # APScheduler has no type hints
    """Fires so many seconds after it is first asked, and then no more for a long time."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = (*seconds, 1_000_000)
        self.times: list[datetime] = []

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        self.times = self.times or [now + timedelta(seconds=number) for number in self.seconds]
        return next((moment for moment in self.times if moment > (previous_fire_time or now)), None)


def often() -> BaseTrigger:
    return IntervalTrigger(seconds=0.2, timezone=UTC)


def config_for(
    url: str, server: SandboxServer | None, *, migrate: str = "auto", cron: str = NEVER_SOON, **source: Any
) -> Config:
    base_url = server.base_url if server else "http://127.0.0.1:1"
    settings: Mapping[str, Any] = source or {"token": TOKEN}
    return Config(
        database=DatabaseSection(url=url, migrate=migrate),
        sources=(Source(base_url=base_url, **settings),),
        http=FAST,
        schedule=Schedule(cron=cron),
    )


def keep(config: Config, watch: Watch, trigger: BaseTrigger | None = None) -> None:
    with pytest.raises(Enough):
        keep_syncing(config, config.sources, watch.observing, report=watch.report, trigger=trigger)
    assert watch.events[-1].action is Action.SCHEDULE_STOPPED


@pytest.fixture
def server() -> Iterator[SandboxServer]:
    with SandboxServer(token=TOKEN) as server:
        server.serve_body(body([record(1), record(2)]))
        yield server


def test_a_source_that_never_succeeded_is_synced_at_once(database: Database, server: SandboxServer) -> None:
    watch = Watch(runs=1)
    keep(config_for(database.url, server), watch)
    assert [result.outcome for result in watch.results] == ["succeeded"]
    assert watch.started.details["overdue"] is True
    assert database.scalar("SELECT count(*) FROM virtual_numbers") == 2


def test_a_success_since_the_last_due_time_is_waited_for_in_peace(database: Database, server: SandboxServer) -> None:
    config = config_for(database.url, server)
    keep(config, Watch(runs=1))
    watch = Watch(runs=0)
    keep(config, watch)
    assert watch.started.details["overdue"] is False
    assert database.scalar("SELECT count(*) FROM sync_runs") == 1


def test_a_success_before_the_last_due_time_is_overdue(database: Database, server: SandboxServer) -> None:
    config = config_for(database.url, server)
    keep(config, Watch(runs=1))
    database.execute("UPDATE sync_runs SET started_at = '2001-01-01 00:00:00.000000'")
    watch = Watch(runs=1)
    keep(config, watch)
    assert watch.started.details["overdue"] is True


def test_failures_of_every_kind_are_followed_by_the_next_run(sqlite_database: Database, server: SandboxServer) -> None:
    server.script(Answer(status=404), Answer(body=b"{}"), Answer(reset=True), Answer(status=401), Answer(status=503))
    watch = Watch(runs=6)
    keep(config_for(sqlite_database.url, server), watch, often())
    assert [result.exit_code for result in watch.results] == [76, 65, 69, 77, 69, 0]


def test_a_bug_is_followed_by_the_next_run(sqlite_database: Database, server: SandboxServer) -> None:
    watch = Watch(runs=2)
    bugs = iter([RuntimeError("7920 1234567")])

    def hear(event: Event) -> None:
        if event.action is Action.SYNC_STARTED and (bug := next(bugs, None)):
            raise bug
        watch.events.append(event)

    watch.hear = hear  # type: ignore[method-assign] # an observer that breaks once
    keep(config_for(sqlite_database.url, server), watch, often())
    assert [result.exit_code for result in watch.results] == [70, 0]
    assert "7920" not in str(watch.results[0].error)
    told = next(event for event in watch.events if event.action is Action.RUN_FAILED)
    assert told.details["error_code"] == "bug"
    assert "7920" not in told.message


def test_a_database_that_cannot_be_reached_at_the_start_ends_nothing(server: SandboxServer) -> None:
    watch = Watch(runs=1)
    keep(config_for("postgresql://nobody@127.0.0.1:1/nothing", server), watch)
    assert [result.exit_code for result in watch.results] == [69]


def test_times_that_pass_during_a_run_are_made_good_by_one_run(
    sqlite_database: Database, server: SandboxServer
) -> None:
    config = config_for(sqlite_database.url, server)
    keep(config, Watch(runs=1))
    server.script(Answer(body=body([record(1), record(2)]), delay=1.5))
    watch = Watch(runs=2)
    trigger = Times(0.3, 0.6, 0.9, 1.2)
    keep(config, watch, trigger)
    assert [result.outcome for result in watch.results] == ["succeeded", "succeeded"]
    assert watch.next_run == trigger.times[-1]
    assert len(server.requests) == 3


def test_a_token_file_is_read_again_for_every_run(
    sqlite_database: Database, server: SandboxServer, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(TOKEN)
    watch = Watch(runs=2)

    def renew() -> None:
        server.token = "a-new-token"
        file.write_text("a-new-token")

    watch.after_run = renew
    keep(config_for(sqlite_database.url, server, token_file=str(file)), watch, often())
    assert [result.exit_code for result in watch.results] == [0, 0]


def test_a_configuration_that_cannot_work_ends_the_scheduler_at_once(sqlite_database: Database, tmp_path: Path) -> None:
    url = sqlite_database.url
    for config, code in (
        (config_for(url, None, token_file=str(tmp_path / "none")), "no_token"),
        (config_for(url, None, migrate="check"), "schema_old"),
        (config_for("oracle://host/name", None), "bad_url"),
    ):
        with pytest.raises(ConfigError) as raised:
            keep_syncing(config, config.sources, Watch(0).observing, trigger=DateTrigger(timezone=UTC))
        assert raised.value.code == code


# The command ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_the_middle_of_a_download_rolls_back_and_ends_the_command(
    migrated_database: Database, server: SandboxServer, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[schedule]\ncron = "* * * * *"\ntimezone = "Europe/Helsinki"\n')
    server.script(Answer(body=body([record(1)]), drip=0.5))
    variables = {"ETL_DATABASE_URL": migrated_database.url, "ETL_TOKEN": TOKEN, "ETL_BASE_URL": server.base_url}
    process = command.start("schedule", cwd=tmp_path, variables=variables)
    give_up = time.monotonic() + 30
    while not server.requests and time.monotonic() < give_up:
        time.sleep(0.02)
    assert migrated_database.rows("SELECT outcome FROM sync_runs") == [("running",)]
    process.send_signal(number)
    signalled = time.monotonic()
    ended = command.end(process)
    assert ended.code == code, ended.stderr
    assert time.monotonic() - signalled < 10  # the download alone would go on for minutes
    assert migrated_database.rows("SELECT outcome, error_code FROM sync_runs") == [("failed", "interrupted")]
    assert migrated_database.scalar("SELECT count(*) FROM virtual_numbers") == 0
    actions = [line["action"] for line in ended.logged]
    assert actions[0] == "schedule_started"
    assert actions[-1] == "schedule_stopped"
    assert not ended.stdout


def test_a_signal_while_it_waits_ends_the_command(
    sqlite_database: Database, server: SandboxServer, tmp_path: Path
) -> None:
    variables = {"ETL_DATABASE_URL": sqlite_database.url, "ETL_TOKEN": TOKEN, "ETL_BASE_URL": server.base_url}
    (tmp_path / "config.toml").write_text(f'[schedule]\ncron = "{NEVER_SOON}"\n')
    process = command.start("schedule", cwd=tmp_path, variables=variables)
    assert process.stderr is not None
    for line in process.stderr:
        if '"sync_finished"' in line:
            break
    process.send_signal(signal.SIGTERM)
    ended = command.end(process)
    assert ended.code == 143
    assert [line["action"] for line in ended.logged] == ["schedule_stopped"]


def test_a_source_that_is_not_configured_is_refused_at_the_start(tmp_path: Path) -> None:
    ended = command.run("schedule", "--source", "mian", cwd=tmp_path, variables={"ETL_TOKEN": TOKEN})
    assert ended.code == 78
    assert "'main'" in ended.error
