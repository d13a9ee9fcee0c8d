"""The configuration: one TOML file, a few environment variables, and defaults that need neither.

`load_config()` returns frozen structs that are known to be right; every other module trusts them.
"""

import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from etl.crontab import CrontabError
from etl.crontab import parse as parse_crontab
from etl.errors import ConfigError, StorageError

PRODUCTION_URL = "https://simple-api.cp.megafon.ru"
"""Base URL of the vendor's Data API."""

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=10 * 365 * 86_400)]
Age = Annotated[float, msgspec.Meta(gt=0, le=100 * 365 * 86_400)]

_DURATION = r"\s*([0-9]+(?:[.][0-9]+)?)\s*(ms|s|m|h|d)?\s*"
_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, None: 1}
_DURATION_KEYS = {
    "http": ("connect_timeout", "read_timeout", "deadline"),
    "schedule": ("jitter",),
    "retention": ("runs", "quarantine", "history"),
}
_CREDENTIALS = "$CREDENTIALS_DIRECTORY"
"""Where systemd puts what a unit's LoadCredential= names; each unit has a folder of its own (systemd.exec(5))."""
_LOOPBACK_HOSTS = ("localhost", "::1")


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Database(_Section, frozen=True):
    """Where the tables are, and who brings their schema up to date."""

    url: str = "sqlite:///numbers.db"
    migrate: str = "auto"


class Source(_Section, frozen=True):
    """One vendor account (личный кабинет)."""

    name: str = "main"
    base_url: str = PRODUCTION_URL
    token_env: str | None = None
    token_file: str | None = None
    token: str | None = None

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("name", self.name), ("base_url", self.base_url)]

    def __repr__(self) -> str:
        """Without the token: a repr ends up in logs and failed assertions."""
        return f"Source(name={self.name!r}, base_url={self.base_url!r})"


class Http(_Section, frozen=True):
    """How patiently the source is asked. Times in seconds."""

    connect_timeout: Seconds = 10.0
    read_timeout: Seconds = 60.0
    deadline: Seconds = 600.0
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 5
    max_body_bytes: Annotated[int, msgspec.Meta(ge=2)] = 2_000_000_000
    allow_plain_http: bool = False
    proxy: str | None = None
    ca_bundle: str | None = None


class Guard(_Section, frozen=True):
    """What a snapshot may do before a person has to agree."""

    max_removed_fraction: Fraction = 0.5
    allow_empty: bool = False
    max_quarantined_fraction: Fraction = 0.25


class Archive(_Section, frozen=True):
    """Where response bodies are kept, if anywhere."""

    directory: str = ""
    keep: Annotated[int, msgspec.Meta(ge=1)] = 30


class Retention(_Section, frozen=True):
    """Ages, in seconds, at which `etl prune` deletes; None keeps for ever."""

    runs: Age | None = None
    quarantine: Age | None = None
    history: Age | None = None


class Schedule(_Section, frozen=True):
    """When `etl schedule` runs. Jitter in seconds."""

    cron: str = "*/15 * * * *"
    timezone: str = "UTC"
    jitter: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0.0


class Metrics(_Section, frozen=True):
    """Where figures for Prometheus' node exporter are left, if anywhere."""

    textfile: str = ""


class Ping(_Section, frozen=True):
    """The dead-man's switch that is told when a sync begins and ends, if any."""

    url: str = ""

    def __repr__(self) -> str:
        """Without the address: whoever knows it can silence the switch."""
        return f"Ping(url={'…' if self.url else ''!r})"


class Notify(_Section, frozen=True):
    """Who is told when a person is needed: addresses as Apprise spells them."""

    urls: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Without the addresses, for they hold passwords."""
        return f"Notify(urls={len(self.urls)})"


class Config(_Section, frozen=True):
    """Everything the job can be told."""

    database: Database = Database()
    sources: tuple[Source, ...] = ()
    http: Http = Http()
    guard: Guard = Guard()
    archive: Archive = Archive()
    retention: Retention = Retention()
    schedule: Schedule = Schedule()
    metrics: Metrics = Metrics()
    ping: Ping = Ping()
    notify: Notify = Notify()

    def source(self, name: str) -> Source:
        """Return the source of this name; raises ConfigError that lists the known ones."""
        for source in self.sources:
            if source.name == name:
                return source
        known = ", ".join(source.name for source in self.sources)
        msg = f"there is no source {name!r}{_did_you_mean(name, [s.name for s in self.sources])}; configured: {known}"
        raise ConfigError(msg, code="unknown_source")

    def chosen(self, names: Sequence[str]) -> list[Source]:
        """Return the sources of these names in the order of the file, all when none is named; raises as `source()`."""
        wanted = {self.source(name).name for name in names}
        return [source for source in self.sources if not names or source.name in wanted]


def load_config(path: str | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration from `path`, else $ETL_CONFIG, else ./config.toml, else use the defaults.

    Raises ConfigError for a file that is named but absent, an unknown key or a bad value.
    """
    file = find_config(path, environ)
    where = str(file) if file else "environment"
    document = _read_toml(file) if file else {}
    _convert_durations(document, where)
    _refuse_unknown_keys(document, where)
    try:
        config = msgspec.convert(document, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_plain(str(error))}") from None
    return _check(_apply_environment(config, environ), where)


def find_config(path: str | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the file that `load_config` reads, None for none. Raises ConfigError for one that is named but absent."""
    for origin, name in (("--config", path), ("$ETL_CONFIG", environ.get("ETL_CONFIG"))):
        if name:
            if not Path(name).is_file():
                raise ConfigError(f"{origin} names {name}, which is not a file; copy config.example.toml there")
            return Path(name)
    default = Path("config.toml")
    return default if default.is_file() else None


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not valid UTF-8; save the file as UTF-8") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{file}: not usable TOML: an integer is too long, or a value is nested too deep") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None


def parse_duration(text: str) -> float:
    """Seconds in `90`, `"30s"`, `"15m"`, `"2h"` or `"7d"`; raises ValueError for anything else."""
    match = re.fullmatch(_DURATION, text)
    if not match:
        raise ValueError(f'{text!r} is not a duration; write seconds or "30s", "15m", "2h"')
    return float(match[1]) * _UNIT_SECONDS[match[2]]


def _convert_durations(document: dict[str, Any], where: str) -> None:
    for section, keys in _DURATION_KEYS.items():
        table = document.get(section)
        if not isinstance(table, dict):
            continue
        for key in keys:
            value = table.get(key)
            if section == "retention" and value == "":
                del table[key]  # for ever
            elif isinstance(value, str):
                try:
                    table[key] = parse_duration(value)
                except ValueError as error:
                    raise ConfigError(f"{where}: {section}.{key}: {error}") from None


def _refuse_unknown_keys(document: dict[str, Any], where: str) -> None:
    sections: dict[str, type[_Section]] = {
        "database": Database, "sources": Source, "http": Http, "guard": Guard, "archive": Archive, "schedule": Schedule,
        "retention": Retention, "metrics": Metrics, "ping": Ping, "notify": Notify,
    }  # fmt: skip
    _refuse_unknown(document, sections, where, "")
    for name, section in sections.items():
        tables = document.get(name, {})
        for table in tables if isinstance(tables, list) else [tables]:
            if isinstance(table, dict):
                _refuse_unknown(table, section.__struct_fields__, where, f"{name}.")


def _refuse_unknown(table: dict[str, Any], known: Iterable[str], where: str, prefix: str) -> None:
    known = list(known)
    for key in table:
        if key not in known:
            hint = _did_you_mean(key, known) or f"; known here: {', '.join(known)}"
            raise ConfigError(f'{where}: unknown key "{prefix}{key}"{hint}', code="unknown_key")


def _did_you_mean(word: str, known: list[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - needed for a typo only

    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _plain(message: str) -> str:
    """Turn msgspec's "Expected `int`, got `str` - at `$.http.max_attempts`" around."""
    what, _, place = message.partition(" - at `$.")
    what = what.replace("`", "").replace("Expected", "expected")
    return f"{place.rstrip('`')}: {what}" if place else what


def _apply_environment(config: Config, environ: Mapping[str, str]) -> Config:
    replace = msgspec.structs.replace
    if url := environ.get("ETL_DATABASE_URL"):
        config = replace(config, database=replace(config.database, url=url))
    if not config.sources:
        main = Source(base_url=environ.get("ETL_BASE_URL") or PRODUCTION_URL)
        config = replace(config, sources=(main,))
    if folder := environ.get("CREDENTIALS_DIRECTORY"):
        sources = tuple(
            replace(source, token_file=folder + source.token_file.removeprefix(_CREDENTIALS))
            if source.token_file and source.token_file.startswith(f"{_CREDENTIALS}/")
            else source
            for source in config.sources
        )
        config = replace(config, sources=sources)
    return config


def _check(config: Config, where: str) -> Config:
    if config.database.migrate not in ("auto", "check"):
        raise ConfigError(f'{where}: database.migrate: expected "auto" or "check", got {config.database.migrate!r}')
    names = [source.name for source in config.sources]
    for source in config.sources:
        _check_source(source, config.http, where)
        if names.count(source.name) > 1:
            raise ConfigError(f"{where}: two sources are named {source.name!r}; names must differ")
    _check_http(config.http, where)
    _check_schedule(config.schedule, where)
    _check_integrations(config, where)
    return config


def _check_source(source: Source, http: Http, where: str) -> None:
    if not re.fullmatch(r"[a-z0-9_-]{1,64}", source.name):
        raise ConfigError(
            f"{where}: sources.name: {source.name[:80]!r} must be 1 to 64 of the characters a-z, 0-9, _ and -"
        )
    if sum(value is not None for value in (source.token, source.token_env, source.token_file)) > 1:
        raise ConfigError(f"{where}: source {source.name}: give only one of token, token_env and token_file")
    _check_url(source, http, where)


def _check_url(source: Source, http: Http, where: str) -> None:
    complaint = f"{where}: source {source.name}: base_url"
    try:
        parts = urlsplit(source.base_url)
        host = parts.hostname
        _ = parts.port
        (host or "").encode("idna")
    except ValueError as error:
        raise ConfigError(f"{complaint}: {error}") from None
    if parts.scheme not in ("https", "http") or not host:
        raise ConfigError(f"{complaint} must look like {PRODUCTION_URL}")
    if parts.username is not None or parts.query or parts.fragment or re.search(r"[\s\x00-\x1f]", source.base_url):
        raise ConfigError(f"{complaint} must hold no user name, query, fragment or white space")
    loopback = host in _LOOPBACK_HOSTS or re.fullmatch(r"127(\.\d{1,3}){3}", host)
    if parts.scheme == "http" and not loopback and not http.allow_plain_http:
        raise ConfigError(
            f"{complaint} is plain http, which would send the token in the clear; use https, "
            "or set http.allow_plain_http = true"
        )


def _check_http(http: Http, where: str) -> None:
    if http.ca_bundle is not None and not _is_file(http.ca_bundle):
        raise ConfigError(f"{where}: http.ca_bundle: {http.ca_bundle[:200]!r} is not a file")
    if http.proxy is not None and not _is_http_address(http.proxy):
        raise ConfigError(f'{where}: http.proxy must look like "http://proxy.example:3128"')


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError:  # too long a name, say
        return False


def _is_http_address(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("http", "https")
    except ValueError:  # half an IPv6 address, say
        return False


def _check_schedule(schedule: Schedule, where: str) -> None:
    try:
        parse_crontab(schedule.cron)
    except CrontabError as error:
        raise ConfigError(f"{where}: schedule.cron: {error}") from None
    if schedule.timezone == "UTC":
        return
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - costs start-up time that UTC does not need

    try:
        ZoneInfo(schedule.timezone)
    except (ValueError, OSError, KeyError):
        raise ConfigError(
            f"{where}: schedule.timezone: {schedule.timezone!r} is not a known time zone, such as Europe/Moscow"
        ) from None


def _check_integrations(config: Config, where: str) -> None:
    textfile, ping = config.metrics.textfile, config.ping.url
    if textfile and not textfile.endswith(".prom"):
        raise ConfigError(f"{where}: metrics.textfile must end in .prom: node exporter reads no other file")
    # The addresses are secrets and are not repeated.
    if ping and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", ping):
        raise ConfigError(
            f'{where}: ping.url must look like "https://hc.example/uuid", without a query: /start and exit codes are '
            "put behind it"
        )
    for position, address in enumerate(config.notify.urls, start=1):
        if not re.match(r"[a-z][a-z0-9+.-]*://\S", address, re.IGNORECASE):
            raise ConfigError(f'{where}: notify.urls: address {position} must look like "mailto://…" or "tgram://…"')


def read_token(source: Source, environ: Mapping[str, str] = os.environ) -> str:
    """Return the source's token from the configuration, its file or the environment.

    Raises ConfigError when there is none or when it could not be sent in a header; never shows the token.
    """
    if source.token is not None:
        origin, token = "token", source.token
    elif source.token_file is not None:
        origin, token = f"token_file {source.token_file}", _read_token_file(source.token_file)
    else:
        variable = source.token_env or "ETL_TOKEN"
        origin, token = f"${variable}", environ.get(variable, "")
    token = token.strip()
    if not token:
        raise ConfigError(
            f"no token: {origin} is empty; make one in the web cabinet "
            "(Интеграции → API → Настройка API → Сгенерировать) and put it there",
            code="no_token",
        )
    # Anything else would be refused by the HTTP client in an exception that quotes the token.
    if not re.fullmatch(r"[\x20-\x7e]+", token):
        raise ConfigError(
            f"the token in {origin} holds line breaks or characters outside ASCII; copy it again",
            code="bad_token",
        )
    return token


def _read_token_file(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"token_file {name}: not text; copy the token again", code="bad_token") from None
    except FileNotFoundError:
        hint = "; systemd sets that variable for a unit with LoadCredential=" if name.startswith(_CREDENTIALS) else ""
        raise ConfigError(f"token_file {name}: there is no such file{hint}", code="no_token") from None
    except ValueError:
        raise ConfigError("token_file holds a NUL character, which no file name can", code="no_token") from None
    except OSError as error:
        raise StorageError(f"token_file {name}: cannot be read: {error.strerror}") from None


def exposed_token_file(source: Source) -> str | None:
    """Name of the token file when others than its owner may read it, else None."""
    if source.token_file is None or not Path(source.token_file).is_file():
        return None
    mode = Path(source.token_file).stat().st_mode
    return source.token_file if mode & (stat.S_IRGRP | stat.S_IROTH) else None
