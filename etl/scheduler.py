"""Stay up and sync on time.

APScheduler decides when a run is due, in a thread of its own, and runs take place in the main thread. Only there does
Python raise what a signal handler raises, and only outside APScheduler is it not caught: all its executors swallow
every exception of a job, an interruption included.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from threading import Event as Flag
from typing import NoReturn

from apscheduler.executors.debug import DebugExecutor
from apscheduler.job import Job as ScheduledJob
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from etl.config import Config, Source, read_token
from etl.crontab import Crontab
from etl.crontab import parse as parse_crontab
from etl.db.engine import open_engine
from etl.db.reading import reading
from etl.duetimes import last_due, next_due, time_zone
from etl.errors import ConfigError, EtlError, StorageError
from etl.events import Action, Detail, Event, Level, Observer
from etl.health.status import last_successes
from etl.pipeline import api_job, sync_all
from etl.records import RunResult
from etl.report.run_events import tell_end
from etl.unforeseen import unforeseen

_JOB = "sync"
_LOOK_AT_CLOCK_SECONDS = 20.0
_CLOCK_TOLERANCE = timedelta(seconds=1)

Observing = Callable[[], AbstractContextManager[Observer]]
Report = Callable[[Sequence[RunResult], datetime | None], None]


class CrontabTrigger(BaseTrigger):  # type: ignore[misc] # APScheduler has no type hints
    """Due times of a crontab in a time zone, each put off by a random part of `jitter` seconds.

    APScheduler's own cron trigger reads weekdays from Monday, wants both day fields to match, and fires twice at a
    time that occurs twice.
    """

    def __init__(self, crontab: Crontab, zone: tzinfo, jitter: float = 0.0) -> None:
        self.crontab = crontab
        self.zone = zone
        self.jitter = jitter

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Return the next due moment, in UTC: between local times of one zone, Python compares what the clock shows."""
        due = next_due(self.crontab, self.zone, previous_fire_time or now)
        return due and due + timedelta(seconds=random.uniform(0, self.jitter))  # noqa: S311 - no secret


def keep_syncing(
    config: Config,
    sources: Sequence[Source],
    observing: Observing,
    *,
    report: Report = lambda results, next_run: None,  # noqa: ARG005 - a caller that does not want to know
    trigger: BaseTrigger | None = None,
) -> NoReturn:
    """Run these sources whenever they are due, until a signal handler raises an exception in this thread.

    Due times that pass during a run are made good by one run right after it. A run that fails, whatever the reason, is
    followed by the next. `report` hears of every run and the time of the next; `trigger` replaces the configured
    schedule. Raises ConfigError at once when no run could succeed as things are configured.
    """
    schedule = config.schedule
    crontab, zone = parse_crontab(schedule.cron), time_zone(schedule.timezone)
    overdue = _is_overdue(config, sources, last_due(crontab, zone, datetime.now(UTC)))
    due = Flag()
    scheduler = BackgroundScheduler(
        timezone=UTC, executors={"default": DebugExecutor()}, jobstores={"default": MemoryJobStore()}
    )
    job = scheduler.add_job(
        due.set,
        trigger or CrontabTrigger(crontab, zone, schedule.jitter),
        id=_JOB,
        coalesce=True,
        max_instances=1,
        misfire_grace_time=None,  # however late: a run that is late is still wanted
    )
    scheduler.start()
    if overdue:
        due.set()
    try:
        _tell_start(observing, job, zone, overdue=overdue)
        while True:
            # The wait is short so that it ends soon after the clock was set or the machine has slept.
            if due.wait(_LOOK_AT_CLOCK_SECONDS):
                due.clear()
                report(_run(config, sources, observing), job.next_run_time)
            follow_clock(scheduler, job)
    finally:
        scheduler.shutdown(wait=False)
        # Whoever read the log may have been ended by the same signal.
        with suppress(OSError), observing() as observer:
            observer(Event(Action.SCHEDULE_STOPPED, message="the schedule has ended"))


def follow_clock(scheduler: BackgroundScheduler, job: ScheduledJob) -> None:
    """Plan the next run anew where the clock was put back, and let the scheduler see where it was put forward.

    A thread that waits for a moment waits for a number of seconds, whatever becomes of the clock meanwhile.
    """
    now = datetime.now(UTC)
    soonest: datetime | None = job.trigger.get_next_fire_time(None, now)
    latest = soonest and soonest + timedelta(seconds=getattr(job.trigger, "jitter", None) or 0) + _CLOCK_TOLERANCE
    if latest and job.next_run_time and job.next_run_time > latest:
        job.modify(next_run_time=soonest)
    scheduler.wakeup()


def _is_overdue(config: Config, sources: Sequence[Source], last: datetime | None) -> bool:
    """Whether a source has no success since the schedule's last due time; raises ConfigError where none is possible."""
    for source in sources:
        try:
            read_token(source)
        except StorageError:
            continue  # the run will say so, and the next may find it mended
    open_engine(config.database.url)
    migrates = config.database.migrate == "auto"
    try:
        with reading(config.database.url) as connection:
            if connection is None:
                return _without_schema(migrates=migrates)
            successes = last_successes(connection)
    except ConfigError as error:
        if migrates and error.code == "schema_old":
            return True
        raise
    except EtlError:
        # A database that cannot be asked now may be back when the run begins.
        return True
    return any(
        (success := successes.get(source.name)) is None or (last is not None and success.started_at < last)
        for source in sources
    )


def _without_schema(*, migrates: bool) -> bool:
    if not migrates:
        raise ConfigError("the database has no tables yet: run `etl db upgrade`", code="schema_old")
    return True


def _run(config: Config, sources: Sequence[Source], observing: Observing) -> list[RunResult]:
    try:
        with observing() as observer:
            # Jobs are made anew every time, and with them the token is read again: it may have been renewed.
            jobs = [(source, partial(api_job, config, source, observer)) for source in sources]
            return sync_all(jobs, observer)
    except Exception as error:  # noqa: BLE001 - whatever it was, the next run comes
        described = error if isinstance(error, EtlError) else unforeseen(error)
        results = [RunResult(source=source.name, outcome="failed", error=described) for source in sources]
        # It may be the log itself that is broken.
        with suppress(Exception), observing() as observer:
            for result in results:
                tell_end(result, observer)
        return results


def _tell_start(observing: Observing, job: ScheduledJob, zone: tzinfo, *, overdue: bool) -> None:
    next_run: datetime = job.next_run_time
    message = f"next run at {next_run.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"
    if overdue:
        message = f"a run is overdue and starts now; {message}"
    details: dict[str, Detail] = {"next_run": next_run.isoformat(timespec="seconds"), "overdue": overdue}
    with observing() as observer:
        observer(Event(Action.SCHEDULE_STARTED, Level.INFO, message=message, details=details))
