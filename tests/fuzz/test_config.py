import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl.config import Config, Source, load_config, read_token
from etl.errors import ConfigError, EtlError, StorageError
from etl.report.text import printable

bounded = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "300")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# Whatever sections and keys the product has.
KEYS = {
    name: list((Source if name == "sources" else type(getattr(Config(), name))).__struct_fields__)
    for name in Config.__struct_fields__
}
VALUES = st.sampled_from(
    [
        "0", "-1", "1", "0.5", "nan", "inf", "-inf", "1e999", "9223372036854775808", "true", "[]", "{}", '""', '" "',
        "[[1]]", '"30s"', '"1e5s"', '"99999999999999999999d"', '"\\u0000"', '"auto"', '"main"', '"http://["',
        '"https://example.test"', '"http://127.0.0.1:99999"', '"http://127.0.0.1:x"', '"https://user@example.test"',
        '"https://[::1]:443"', '"/"', '"../.."', '"Europe/Moscow"', '"@daily"', '"* * * * *"', "1979-05-27T07:32:00Z",
        "1979-05-27", "07:32:00", '"{}"', '"sqlite:///x"', f'"{"x" * 5_000}"',
        "'''\n'''", "[" * 40 + "]" * 40, '"\U0001f4de"', '"\\u202e"',
    ]
)  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> str:
    """TOML that has most names right and most values wrong."""
    lines = []
    for section in draw(st.lists(st.sampled_from(list(KEYS)), max_size=4, unique=True)):
        if draw(st.integers(0, 9)) == 0:
            lines.append(f"{section} = {draw(VALUES)}")
            continue
        lines.append(f"[[{section}]]" if (section == "sources") != (draw(st.integers(0, 9)) == 0) else f"[{section}]")
        lines += [
            f"{key} = {draw(VALUES)}" for key in draw(st.lists(st.sampled_from(KEYS[section]), max_size=3, unique=True))
        ]
    return "\n".join(lines)


def outcome_of(file: Path) -> Any:
    """Load the file and ask for tokens, as a run would; a refusal is returned, anything else is a bug."""
    try:
        config = load_config(str(file), {})
        for source in config.sources:
            read_token(source, {})
    except (ConfigError, StorageError) as error:
        return error
    return config


def assert_loaded_or_refused_in_one_line(file: Path) -> None:
    outcome = outcome_of(file)
    assert isinstance(outcome, Config) or (outcome.exit_code in (74, 78) and len(printable(outcome).splitlines()) == 1)


@bounded
@given(documents())
def test_no_document_makes_the_loader_fail_but_by_refusing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text, encoding="utf-8")
    assert_loaded_or_refused_in_one_line(file)


@bounded
@given(st.binary(max_size=80))
def test_no_bytes_make_the_loader_fail_but_by_refusing(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(data)
    assert_loaded_or_refused_in_one_line(file)


@bounded
@given(documents())
def test_what_is_accepted_holds_only_values_that_make_sense(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text, encoding="utf-8")
    config = outcome_of(file)
    if isinstance(config, Config):
        assert 0 < config.http.deadline < 10**9
        assert 0 < config.http.connect_timeout < 10**9
        assert 0 < config.http.read_timeout < 10**9
        assert 0 <= config.guard.max_removed_fraction <= 1
        assert 0 <= config.guard.max_quarantined_fraction <= 1
        assert 0 <= config.schedule.jitter <= 86_400


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a = " + "[" * 100_000, id="very deep"),
        pytest.param("a = " + "9" * 5_000, id="integer of 5,000 digits"),
        pytest.param('[http]\nproxy = "http://["', id="proxy that is half an address"),
        pytest.param('[http]\nca_bundle = "' + "x" * 5_000 + '"', id="file name too long for the system"),
        pytest.param('[[sources]]\ntoken_file = "\\u0000"', id="file name with NUL"),
        pytest.param('[[sources]]\ntoken_file = "/"', id="folder in place of a file"),
        pytest.param("[http]\ndeadline = nan", id="a time that is no number"),
        pytest.param("[guard]\nmax_removed_fraction = nan", id="a fraction that is no number"),
        pytest.param("[schedule]\njitter = nan", id="jitter that is no number"),
    ],
)
def test_a_configuration_that_once_got_through_or_crashed_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    assert isinstance(outcome_of(file), EtlError)
