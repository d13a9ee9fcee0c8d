"""What tells the outside how the job fares: figures for Prometheus, a dead-man's switch, messages to people.

Each is an observer that is there only when it is configured, and none may ever change how a run ends.
"""

from collections.abc import Callable
from functools import partial

from etl.config import Config
from etl.errors import EtlError
from etl.events import Action, Event, Level, Observer, fan_out


def connect(config: Config, *, stays_up: bool = False) -> Callable[[Observer], Observer]:
    """Return a function that joins a log and all configured integrations into one observer.

    stays_up: the process lives through many syncs, so the integrations can remember what they have told.
    Raises ConfigError when a section is wrong or the package it needs is not installed.
    """
    integrations = observers(config, stays_up=stays_up)

    def join(log: Observer) -> Observer:
        return fan_out([log, *(partial(_tell, name, tell, log) for name, tell in integrations.items())])

    return join


def observers(config: Config, *, stays_up: bool = False) -> dict[str, Observer]:
    """Return the configured integrations by name. They raise an error when they are broken; `connect()` contains it."""
    found: dict[str, Observer] = {}
    if config.metrics.textfile:
        from etl.integrations.metrics import Textfile  # noqa: PLC0415 - whoever has not configured it does not pay for it

        found["metrics"] = Textfile(config.metrics.textfile, [source.name for source in config.sources])
    if config.ping.url:
        from etl.integrations.ping import Switch  # noqa: PLC0415 - as above

        found["ping"] = Switch(config.ping.url, config.http)
    if config.notify.urls:
        from etl.integrations.notify import Notifier  # noqa: PLC0415 - as above

        found["notify"] = Notifier(config.notify.urls, stays_up=stays_up)
    return found


def _tell(name: str, tell: Observer, log: Observer, event: Event) -> None:
    """Pass an event on; whatever is wrong with the integration becomes a warning, and the run goes on."""
    try:
        tell(event)
    except EtlError as error:
        _warn(name, str(error), log, event)
    except Exception as error:  # noqa: BLE001 - a bug in a messenger must not be one of the job
        from etl.unforeseen import unforeseen  # noqa: PLC0415 - needed for a bug only

        _warn(name, str(unforeseen(error)), log, event)


def _warn(name: str, message: str, log: Observer, event: Event) -> None:
    message = f"{name}: {message}; the run itself is not affected"
    log(Event(Action.INTEGRATION_FAILED, Level.WARNING, event.source, event.run_id, message, {"integration": name}))
