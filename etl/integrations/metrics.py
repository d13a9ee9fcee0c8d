"""Figures for Prometheus, left where node exporter's textfile collector finds them.

The job is gone by the time somebody scrapes, so the file is its memory: a run replaces the figures of its own source
and leaves those of the others as they are. Names follow https://prometheus.io/docs/practices/naming/.
"""

import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from etl.errors import BusyError, ConfigError, StorageError, UnavailableError
from etl.events import RUN_OUTCOMES, Event

_PREFIX = "virtual_numbers_"
_LOCK_SECONDS = 3.0

METRICS = {
    "last_run_timestamp_seconds": "When the last run ended, in seconds since 1970",
    "last_run_duration_seconds": "How long the last run took",
    "last_run_outcome": "1 for the outcome of the last run (succeeded, refused, failed), 0 for the others",
    "last_run_exit_code": "What the last run would end a command of its own with; 0 is in sync",
    "last_run_attempts": "Requests the last run sent to the source",
    "last_run_body_bytes": "Size of the last run's response body after decompression",
    "last_run_records_quarantined": "Records of the last run's snapshot that were not loaded",
    "last_run_numbers_added": "Numbers the last run added",
    "last_run_numbers_changed": "Numbers the last run changed",
    "last_run_numbers_removed": "Numbers the last run removed",
    "last_success_timestamp_seconds": "When the last run that brought the tables in sync ended, in seconds since 1970",
    "live": "Numbers that are live",
}
"""Every gauge, without its prefix, and what it means. All have the label `source`."""

_Labels = tuple[tuple[str, str], ...]
_Samples = dict[tuple[str, _Labels], float]


class Textfile:
    """Observer that writes the file after each run."""

    def __init__(self, path: str, sources: Collection[str]) -> None:
        """Take the file's path and all configured sources; raises ConfigError when the library is missing."""
        if find_spec("prometheus_client") is None:
            raise ConfigError(
                "metrics.textfile needs the package prometheus-client: install virtual-numbers-etl[metrics], "
                "or take [metrics] out of the configuration"
            )
        self._path = Path(path)
        self._sources = sources

    def __call__(self, event: Event) -> None:
        """Write the figures of a run that has ended; raises StorageError when the file cannot be written."""
        outcome = RUN_OUTCOMES.get(event.action)
        # A run that found another one in progress has nothing to tell: that one will.
        if outcome is None or event.source is None or event.details.get("exit_code") == BusyError.exit_code:
            return
        try:
            with _alone(self._path.parent):
                known = {key: value for key, value in _read(self._path).items() if self._is_configured(key)}
                _write(self._path, _updated(known, event.source, outcome, event.details.get))
        except OSError as error:
            raise StorageError(
                f"{self._path} cannot be written ({error.strerror}): check metrics.textfile and this user's rights"
            ) from None

    def _is_configured(self, key: tuple[str, _Labels]) -> bool:
        return dict(key[1]).get("source") in self._sources


def _updated(known: _Samples, source: str, outcome: str, detail: Callable[[str], object]) -> _Samples:
    """Replace the figures of one source; those of its last success stay until the next one."""
    label = ("source", source)

    def number(name: str) -> float:
        value = detail(name)
        return float(value) if isinstance(value, int | float) else 0.0

    now = time.time()
    succeeded = outcome == "succeeded"
    fresh = {
        "last_run_timestamp_seconds": now,
        "last_run_duration_seconds": number("seconds"),
        "last_run_exit_code": number("exit_code"),
        "last_run_attempts": number("attempts"),
        "last_run_body_bytes": number("body_bytes"),
        "last_run_records_quarantined": number("records_quarantined"),
    }
    for name in ("numbers_added", "numbers_changed", "numbers_removed"):
        # A run that did not succeed has changed nothing, whatever its snapshot would have done.
        fresh[f"last_run_{name}"] = number(name) if succeeded else 0.0
    if succeeded:
        fresh["last_success_timestamp_seconds"] = now
        fresh["live"] = number("numbers_added") + number("numbers_changed") + number("numbers_unchanged")
    samples = known | {(name, (label,)): value for name, value in fresh.items()}
    for each in RUN_OUTCOMES.values():
        samples["last_run_outcome", (("outcome", each), label)] = float(each == outcome)
    return samples


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep out other runs that would read the file while this one replaces it: sources may be synced side by side."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        end = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise UnavailableError(f"{folder} is locked by another process", code="metrics_locked") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> _Samples:
    """Read the figures of earlier runs; none where there is no such file, or one that is damaged."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 - only when there is news

    try:
        families = list(text_string_to_metric_families(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}
    return {
        (sample.name.removeprefix(_PREFIX), tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if sample.name.removeprefix(_PREFIX) in METRICS
    }


def _write(path: Path, samples: _Samples) -> None:
    from prometheus_client import CollectorRegistry, Gauge, generate_latest  # noqa: PLC0415 - as above

    registry = CollectorRegistry()
    for name, meaning in METRICS.items():
        labels = ("outcome", "source") if name == "last_run_outcome" else ("source",)
        gauge = Gauge(_PREFIX + name, meaning, labels, registry=registry)
        for (sample, values), value in samples.items():
            if sample == name:
                gauge.labels(**dict(values)).set(value)
    _replace(path, generate_latest(registry))


def _replace(path: Path, text: bytes) -> None:
    """Let readers see the old file or the new one. It may be read by all: node exporter is another user."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(text)
        draft.chmod(0o644)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
