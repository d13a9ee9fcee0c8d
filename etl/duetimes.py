"""The moments at which a crontab is due in a time zone, clock changes included.

A schedule that names hours (`30 2 * * *`, `0 */6 * * *`) is a list of appointments, and each local time is kept once:
one that occurs twice is due the first time, and those that a clock skips are due together, at the moment of the jump.
A schedule for every hour (`*/15 * * * *`) follows the clock and keeps its rhythm through a change: an hour that occurs
twice is worked through twice, and one that never occurs needs nothing, for the next due time comes as soon as ever.
Vixie cron draws the line in the same place, by the stars in the fields.
"""

from bisect import bisect_right
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache

from etl.crontab import Crontab

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_FARTHEST_DAYS = 366 * 41
"""29 February on a certain weekday may be forty years away, where a century's year is no leap year."""


def time_zone(name: str) -> tzinfo:
    """Return the time zone of this name, which `load_config` has checked; UTC needs no database of zones."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - see above

    return ZoneInfo(name)


def next_due(crontab: Crontab, zone: tzinfo, after: datetime) -> datetime | None:
    """Return the first due moment later than `after`, in UTC; None if there is none in the next forty years."""
    day = after.astimezone(zone).date() - _DAY
    for _ in range(_FARTHEST_DAYS):
        # Where a clock is put back over midnight, moments of the next day may lie before the last of this one.
        both = (_moments(crontab, zone, day), _moments(crontab, zone, day + _DAY))
        if later := [moments[at] for moments in both if (at := bisect_right(moments, after)) < len(moments)]:
            return min(later)
        day += _DAY
    return None


def last_due(crontab: Crontab, zone: tzinfo, until: datetime) -> datetime | None:
    """Return the last due moment not later than `until`, in UTC; None if there was none in the last forty years."""
    day = until.astimezone(zone).date() + _DAY
    for _ in range(_FARTHEST_DAYS):
        both = (_moments(crontab, zone, day), _moments(crontab, zone, day - _DAY))
        if earlier := [moments[at - 1] for moments in both if (at := bisect_right(moments, until)) > 0]:
            return max(earlier)
        day -= _DAY
    return None


@lru_cache(maxsize=16)
def _moments(crontab: Crontab, zone: tzinfo, day: date) -> tuple[datetime, ...]:
    """Return the moments, in UTC, at which the local times of this date are due."""
    if not crontab.matches_day(day):
        return ()
    follows_clock = len(crontab.hours) == 24
    found: set[datetime] = set()
    for hour in crontab.hours:
        for minute in crontab.minutes:
            local = datetime.combine(day, time(hour, minute, tzinfo=zone))
            found.update(_occurrences(local) if follows_clock else [_appointment(local)])
    return tuple(sorted(found))


def _occurrences(local: datetime) -> list[datetime]:
    """Return the moments at which clocks show this local time: one, or two, or none."""
    both = {local.replace(fold=0).astimezone(UTC), local.replace(fold=1).astimezone(UTC)}
    return [moment for moment in both if _shows(moment, local)]


def _appointment(local: datetime) -> datetime:
    """Return the moment at which this local time is due once: when it first occurs, or else when it is jumped over."""
    moment = local.replace(fold=0).astimezone(UTC)
    if _shows(moment, local):
        return moment
    # PEP 495: in a gap, fold 0 counts by the offset before the jump, fold 1 by that after it: the jump is between them.
    low, high = local.replace(fold=1).astimezone(UTC), moment
    before = low.astimezone(local.tzinfo).utcoffset()
    while high - low > _SECOND:
        middle = low + (high - low) // 2
        if middle.astimezone(local.tzinfo).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)


def _shows(moment: datetime, local: datetime) -> bool:
    return moment.astimezone(local.tzinfo).replace(tzinfo=None) == local.replace(tzinfo=None)
