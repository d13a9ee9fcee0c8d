"""The configuration: what it takes, where from, and what it says to anything else."""

from pathlib import Path

import pytest

from etl.config import PRODUCTION_URL, load_config, parse_duration, read_token
from etl.errors import ConfigError


def write(folder: Path, text: str) -> str:
    file = folder / "config.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_nothing_at_all_means_one_source_with_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(None, {})

    assert config.database.url == "sqlite:///numbers.db"
    assert [(source.name, source.base_url) for source in config.sources] == [("main", PRODUCTION_URL)]
    assert (config.http.connect_timeout, config.http.read_timeout, config.http.deadline) == (10, 60, 600)
    assert (config.http.max_attempts, config.http.max_body_bytes) == (5, 2_000_000_000)
    assert (config.guard.max_removed_fraction, config.guard.max_quarantined_fraction) == (0.5, 0.25)
    assert not config.guard.allow_empty
    assert (config.schedule.cron, config.schedule.timezone, config.schedule.jitter) == ("*/15 * * * *", "UTC", 0)


def test_the_file_is_looked_for_in_three_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("argument", "variable", "config"):
        (tmp_path / f"{name}.toml").write_text(f'[database]\nurl = "sqlite:///{name}.db"\n')
    monkeypatch.chdir(tmp_path)

    assert load_config("argument.toml", {"ETL_CONFIG": "variable.toml"}).database.url == "sqlite:///argument.db"
    assert load_config(None, {"ETL_CONFIG": "variable.toml"}).database.url == "sqlite:///variable.db"
    assert load_config(None, {}).database.url == "sqlite:///config.db"


def test_the_environment_wins_for_the_database_and_serves_a_lone_source(tmp_path: Path) -> None:
    variables = {"ETL_DATABASE_URL": "sqlite:///other.db", "ETL_BASE_URL": "https://api.example", "ETL_TOKEN": "t-1"}
    config = load_config(write(tmp_path, '[database]\nurl = "sqlite:///numbers.db"\n'), variables)

    assert config.database.url == "sqlite:///other.db"
    assert config.sources[0].base_url == "https://api.example"
    assert read_token(config.sources[0], variables) == "t-1"


def test_the_environment_does_not_touch_sources_of_the_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, '[[sources]]\nname = "msk"\n'), {"ETL_BASE_URL": "https://api.example"})

    assert [(source.name, source.base_url) for source in config.sources] == [("msk", PRODUCTION_URL)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("30s", 30), ("15m", 900), ("2h", 7200), ("7d", 604800), ("1.5h", 5400), ("5ms", 0.005)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5 weeks", "-5s", "1e3", "٣s"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[http]\nmax_atempts = 3", r'unknown key "http\.max_atempts"; did you mean .max_attempts.'),
        ("[htp]\nmax_attempts = 3", r'unknown key "htp"; did you mean .http.'),
        ('[[sources]]\nnam = "x"', r'unknown key "sources\.nam"; did you mean .name.'),
        ("[guard]\nzzzzzz = 1", r'unknown key "guard\.zzzzzz"; known here: max_removed_fraction'),
        ('[http]\nmax_attempts = "3"', r"http\.max_attempts: expected int, got str"),
        ("[http]\nmax_attempts = 0", r"http\.max_attempts: expected int >= 1"),
        ('[http]\ndeadline = "soon"', r"http\.deadline: 'soon' is not a duration"),
        ("[http]\ndeadline = 0", r"http\.deadline: expected float > 0"),
        ("[http]\ndeadline = inf", r"http\.deadline: expected float <= "),
        ("[guard]\nmax_removed_fraction = 1.5", r"guard\.max_removed_fraction: expected float <= 1"),
        ("[guard]\nmax_removed_fraction = nan", r"guard\.max_removed_fraction"),
        ("[http]\nmax_body_bytes = 1.5", r"http\.max_body_bytes: expected int, got float"),
        ('[database]\nmigrate = "never"', r'database\.migrate: expected "auto" or "check", got .never.'),
        ('[[sources]]\nname = "Main"', r"sources\.name: 'Main' must be"),
        ('[[sources]]\nname = ""', r"sources\.name"),
        ('[[sources]]\n[[sources]]\nname = "main"', r"two sources are named 'main'"),
        ('[[sources]]\ntoken = "a"\ntoken_env = "B"', r"give only one of token, token_env and token_file"),
        ('[[sources]]\nbase_url = "ftp://x"', r"base_url must look like"),
        ('[[sources]]\nbase_url = "https://u:p@x"', r"base_url must hold no user name"),
        ('[[sources]]\nbase_url = "https://x/?a=1"', r"base_url must hold no user name, query"),
        ('[[sources]]\nbase_url = "http://api.example"', r"plain http.*allow_plain_http"),
        ('[[sources]]\nbase_url = "http://127.0.0.1.evil.example"', r"plain http"),
        ('[[sources]]\nbase_url = "https://x:99999"', r"base_url"),
        ('[[sources]]\nbase_url = "https://.example"', r"base_url"),
        (f'[[sources]]\nbase_url = "https://{"x" * 64}.example"', r"base_url"),
        ('[http]\nca_bundle = "nowhere.pem"', r"http\.ca_bundle: .?nowhere\.pem.? is not a file"),
        ('[http]\nproxy = "socks5://x"', r"http\.proxy must look like"),
        ('[schedule]\ncron = "* * *"', r"schedule\.cron: expected five fields"),
        ('[schedule]\ntimezone = "Mars/Base"', r"schedule\.timezone: 'Mars/Base' is not a known time zone"),
        ('[schedule]\ntimezone = "../etc/passwd"', r"schedule\.timezone"),
        ("[archive]\nkeep = 0", r"archive\.keep: expected int >= 1"),
        ("not toml", r"not valid TOML"),
        ("database = 5", r"database: expected object, got int"),
        ("sources = 5", r"sources: expected array, got int"),
    ],
)
def test_anything_wrong_is_refused_in_one_line_that_names_it(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        load_config(write(tmp_path, text), {})

    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 78


def test_a_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--config names .*absent\.toml, which is not a file"):
        load_config(str(tmp_path / "absent.toml"), {})
    with pytest.raises(ConfigError, match=r"\$ETL_CONFIG names absent\.toml"):
        load_config(None, {"ETL_CONFIG": "absent.toml"})


def test_bytes_that_are_not_utf8_are_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match="not valid UTF-8"):
        load_config(str(tmp_path / "config.toml"), {})


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:1", "http://127.9.9.9"])
def test_plain_http_is_for_loopback(tmp_path: Path, url: str) -> None:
    assert load_config(write(tmp_path, f'[[sources]]\nbase_url = "{url}"'), {}).sources[0].base_url == url


def test_plain_http_elsewhere_has_to_be_allowed(tmp_path: Path) -> None:
    text = '[http]\nallow_plain_http = true\n[[sources]]\nbase_url = "http://api.example"'

    assert load_config(write(tmp_path, text), {}).http.allow_plain_http


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"\$ETL_TOKEN is empty"),
        ('token_env = "OTHER"', r"\$OTHER is empty"),
        ('token = ""', r"token is empty"),
        ('token_file = "absent"', r"token_file absent: there is no such file"),
        ('token = "two\\nlines"', r"holds line breaks"),
        ('token = "пароль"', r"outside ASCII"),
    ],
)
def test_a_token_that_cannot_be_sent_is_refused_without_being_shown(tmp_path: Path, text: str, complaint: str) -> None:
    source = load_config(write(tmp_path, f"[[sources]]\n{text}"), {}).sources[0]

    with pytest.raises(ConfigError, match=complaint) as caught:
        read_token(source, {})

    assert "two" not in str(caught.value)
    assert "пароль" not in str(caught.value)


def test_a_token_file_may_end_in_a_new_line(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t-1\n")
    source = load_config(write(tmp_path, f'[[sources]]\ntoken_file = "{tmp_path / "token"}"'), {}).sources[0]

    assert read_token(source, {}) == "t-1"


def test_a_source_is_shown_without_its_token(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, '[[sources]]\ntoken = "t-1"'), {})

    assert "t-1" not in repr(config)
