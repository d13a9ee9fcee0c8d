"""Expressions as crontab(5) reads them."""

from datetime import date

import pytest

from etl.crontab import CrontabError, parse

SUNDAY, MONDAY, FRIDAY = date(2026, 11, 22), date(2026, 11, 23), date(2026, 11, 27)


@pytest.mark.parametrize("name", ["0", "7", "sun", "SUN"])
def test_sunday_has_two_numbers_and_a_name(name: str) -> None:
    crontab = parse(f"0 0 * * {name}")

    assert [day for day in (SUNDAY, MONDAY, FRIDAY) if crontab.matches_day(day)] == [SUNDAY]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("*", set(range(60))),
        ("*/15", {0, 15, 30, 45}),
        ("5", {5}),
        ("1,3-5,50", {1, 3, 4, 5, 50}),
        ("10-20/5", {10, 15, 20}),
        ("40/10", {40, 50}),
        ("007", {7}),
    ],
)
def test_values_ranges_lists_and_steps(field: str, values: set[int]) -> None:
    assert parse(f"{field} * * * *").minutes == values


def test_names_count_from_their_own_start() -> None:
    crontab = parse("0 0 1 jan,Dec fri-sun")

    assert crontab.months == {1, 12}
    assert crontab.weekdays == {5, 6, 0}


def test_both_day_fields_given_mean_either() -> None:
    crontab = parse("0 0 27 * mon")

    assert crontab.matches_day(MONDAY)
    assert crontab.matches_day(FRIDAY)
    assert not crontab.matches_day(SUNDAY)


@pytest.mark.parametrize("expression", ["0 0 */1 * mon", "0 0 * * mon"])
def test_a_day_field_that_begins_with_a_star_does_not_widen_the_other(expression: str) -> None:
    assert not parse(expression).matches_day(FRIDAY)


def test_abbreviations() -> None:
    assert parse("@hourly") == parse("0 * * * *")
    assert parse(" @Weekly ") == parse("0 0 * * 0")


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("* * * * * *", "five fields"),
        ("60 * * * *", "minute: 60 is not in 0-59"),
        ("* 24 * * *", "hour: 24 is not in 0-23"),
        ("* * 0 * *", "day of month: 0 is not in 1-31"),
        ("* * * 13 *", "month: 13 is not in 1-12"),
        ("* * * * 8", "day of week: 8 is not in 0-7"),
        ("5-1 * * * *", "runs backwards"),
        ("*/0 * * * *", "minute: 0 is not in 1-59"),
        ("1, * * * *", "is not a number"),
        ("-5 * * * *", "is not a number"),
        ("² * * * *", "is not a number"),
        ("* * * foo *", "is not a number or a name"),
        ("0 0 31 feb,apr *", "no month it names has such a day"),
        ("9999999999999999 * * * *", "minute: 999999999 is not in 0-59"),
        ("@reboot", "five fields"),
    ],
)
def test_anything_else_is_refused_with_the_field_and_the_reason(expression: str, complaint: str) -> None:
    with pytest.raises(CrontabError, match=complaint):
        parse(expression)


def test_a_leap_day_is_possible() -> None:
    assert parse("0 0 29 2 *").matches_day(date(2028, 2, 29))
