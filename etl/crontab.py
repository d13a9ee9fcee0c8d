"""Schedules as crontab(5) of Vixie cron reads them.

Kept apart from the scheduler so that a configuration is checked without importing one.
"""

from datetime import date

import msgspec

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_ABBREVIATIONS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# The longest month of each name, February of a leap year included.
_DAYS_IN_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class CrontabError(ValueError):
    """The expression is not one that crontab(5) accepts; the message says which field and why."""


class Crontab(msgspec.Struct, frozen=True):
    """A parsed expression: the values at which each field matches. Weekdays count from Sunday = 0."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day_field: bool
    """Both day fields are restricted, and then a day needs to match only one of them."""

    def matches_day(self, day: date) -> bool:
        """Whether any run falls on this date."""
        if day.month not in self.months:
            return False
        in_month = day.day in self.days
        in_week = day.isoweekday() % 7 in self.weekdays
        return in_month or in_week if self.either_day_field else in_month and in_week


def parse(expression: str) -> Crontab:
    """Read five fields (minute, hour, day of month, month, day of week) or an abbreviation such as `@daily`.

    Raises CrontabError when a field is malformed or out of range, or when no date can ever match.
    """
    fields = _ABBREVIATIONS.get(expression.strip().lower(), expression).split()
    if len(fields) != 5:
        msg = f"expected five fields (minute hour day month weekday), got {len(fields)}"
        raise CrontabError(msg)
    minute, hour, day, month, weekday = fields
    crontab = Crontab(
        minutes=_values("minute", minute, 0, 59),
        hours=_values("hour", hour, 0, 23),
        days=_values("day of month", day, 1, 31),
        months=_values("month", month, 1, 12, _MONTHS, first_name=1),
        # 0 and 7 are both Sunday.
        weekdays=frozenset(value % 7 for value in _values("day of week", weekday, 0, 7, _WEEKDAYS)),
        # Like cron, a field that starts with a star does not restrict, `*/2` included.
        either_day_field=not day.startswith("*") and not weekday.startswith("*"),
    )
    possible = any(day <= _DAYS_IN_MONTH[month - 1] for month in crontab.months for day in crontab.days)
    if not possible and not crontab.either_day_field:
        msg = "no month it names has such a day"
        raise CrontabError(msg)
    return crontab


def _values(
    field: str, text: str, low: int, high: int, names: tuple[str, ...] = (), first_name: int = 0
) -> frozenset[int]:
    values: set[int] = set()
    for part in text.lower().split(","):
        span, slash, step_text = part.partition("/")
        step = _number(field, step_text, 1, high) if slash else 1
        if span == "*":
            start, end = low, high
        else:
            first, dash, last = span.partition("-")
            start = _number(field, first, low, high, names, first_name)
            if dash:
                end = _number(field, last, low, high, names, first_name)
                if end == 0 and low == 0 and high == 7 and start > 0:
                    end = 7  # `fri-sun`: at the end of a range Sunday is the seventh day
            else:
                end = high if slash else start
        if end < start:
            msg = f"{field}: the range {span!r} runs backwards"
            raise CrontabError(msg)
        values.update(range(start, end + 1, step))
    # A star in the weekday field must not add Sunday twice; a set already sees to that.
    return frozenset(values)


def _number(field: str, text: str, low: int, high: int, names: tuple[str, ...] = (), first_name: int = 0) -> int:
    if text in names:
        return names.index(text) + first_name
    if not (text.isascii() and text.isdigit()):
        msg = f"{field}: {text!r} is not a number{' or a name' if names else ''}"
        raise CrontabError(msg)
    # A number longer than this is out of every range and would be slow to convert.
    value = int(text.lstrip("0")[:9] or "0")
    if not low <= value <= high:
        msg = f"{field}: {value} is not in {low}-{high}"
        raise CrontabError(msg)
    return value
