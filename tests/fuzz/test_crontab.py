import os
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from etl.crontab import CrontabError, parse

bounded = settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "300")), deadline=None)

LIMITS = {"minutes": (0, 59), "hours": (0, 23), "days": (1, 31), "months": (1, 12), "weekdays": (0, 7)}
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]


@st.composite
def parts(draw: st.DrawFn, low: int, high: int, names: list[str]) -> tuple[str, set[int]]:
    """Make one part of a field and the values it means, counted out one by one."""

    def spelled(value: int) -> str:
        if names and value - low < len(names) and draw(st.booleans()):
            return draw(st.sampled_from([str.lower, str.upper, str.title]))(names[value - low])
        return str(value).zfill(draw(st.sampled_from([1, 2, 12])))

    first = draw(st.integers(low, high))
    last = draw(st.integers(first, high))
    step = draw(st.integers(1, high))
    match draw(st.integers(0, 4)):
        case 0:
            return spelled(first), {first}
        case 1:
            return f"{spelled(first)}-{spelled(last)}", {
                value for value in range(low, high + 1) if first <= value <= last
            }
        case 2:
            return f"*/{step}", {value for value in range(low, high + 1) if (value - low) % step == 0}
        case 3:
            meant = {value for value in range(low, high + 1) if first <= value <= last and (value - first) % step == 0}
            return f"{spelled(first)}-{spelled(last)}/{step}", meant
        case _:
            return "*", set(range(low, high + 1))


@st.composite
def expressions(draw: st.DrawFn) -> tuple[str, dict[str, set[int]]]:
    fields, meaning = [], {}
    for name, (low, high) in LIMITS.items():
        names = {"months": MONTHS, "weekdays": WEEKDAYS}.get(name, [])
        chosen = draw(st.lists(parts(low, high, names), min_size=1, max_size=3))
        fields.append(",".join(text for text, _ in chosen))
        meaning[name] = set().union(*(values for _, values in chosen))
    meaning["weekdays"] = {value % 7 for value in meaning["weekdays"]}
    return " ".join(fields), meaning


@bounded
@given(expressions())
def test_a_field_means_the_values_that_counting_gives(case: tuple[str, dict[str, set[int]]]) -> None:
    text, meaning = case
    try:
        crontab = parse(text)
    except CrontabError:
        # Only for dates that do not exist, such as the 31st of February.
        days_of = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
        assert all(day > days_of.get(month, 31) for month in meaning["months"] for day in meaning["days"])
        return
    assert {name: set(getattr(crontab, name)) for name in LIMITS} == meaning


@bounded
@given(st.one_of(st.text(), st.from_regex(r"([-*/,0-9a-z]{1,6} ){4}[-*/,0-9a-z]{1,6}", fullmatch=True)))
def test_no_text_makes_the_parser_fail_but_by_refusing(text: str) -> None:
    with suppress(CrontabError):
        crontab = parse(text)
        for name, (low, high) in LIMITS.items():
            values = getattr(crontab, name)
            assert values
            assert low <= min(values) <= max(values) <= high
