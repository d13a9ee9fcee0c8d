"""Messages to people, through Apprise: when a source falls out of sync, when it is back, and when it sends bad records.

Never on every run: what the last run came to is in `sync_runs`, and only a difference is news.
"""

import socket
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from threading import Thread
from typing import Any

from etl.errors import BusyError, ConfigError, UnavailableError
from etl.events import RUN_OUTCOMES, Action, Event

_SECONDS = 20.0
"""For all addresses together; mail servers are slow, but a run must end."""


class Notifier:
    """Observer that sends at most one message for a run."""

    def __init__(self, urls: Sequence[str], *, stays_up: bool = False) -> None:
        """Take the addresses; raises ConfigError when the library is missing or does not understand one."""
        self._services = _services(urls)
        self._stays_up = stays_up
        self._previous: dict[str | None, str | None] = {}
        self._newly_quarantined: dict[str | None, int] = {}
        self._told_unrecorded: set[str | None] = set()
        """Sources of which was told that not even a run could be opened."""

    def __call__(self, event: Event) -> None:
        """Send what is news; raises UnavailableError when somebody could not be told."""
        if event.action is Action.RUN_STARTED:
            previous = event.details.get("previous_outcome")
            self._previous[event.source] = str(previous) if previous else None
        elif event.action is Action.RECORDS_NEWLY_QUARANTINED:
            self._newly_quarantined[event.source] = int(event.details.get("records") or 0)
        elif outcome := RUN_OUTCOMES.get(event.action):
            self._end(event, outcome)

    def _end(self, event: Event, outcome: str) -> None:
        fresh = self._newly_quarantined.pop(event.source, 0)
        previous = self._previous.pop(event.source, None)
        code = event.details.get("exit_code")
        if code == BusyError.exit_code or event.details.get("error_code") == "interrupted":
            return
        if event.run_id is None:
            headline = self._unrecorded_news(event)
        else:
            if event.source in self._told_unrecorded:
                self._told_unrecorded.discard(event.source)
                previous = previous if previous in ("refused", "failed") else "failed"
            headline = _news(outcome, previous)
        if not headline and not fresh:
            return
        lines = [event.message] if event.message else []
        if fresh:
            what = "1 record is" if fresh == 1 else f"{fresh} records are"
            lines.append(f"{what} newly quarantined: see `etl quarantine`")
        kind = "success" if headline and outcome == "succeeded" else "warning" if outcome == "succeeded" else "failure"
        title = f"virtual-numbers-etl: source {event.source} {headline or 'sent bad records'}"
        about = f"Run {event.run_id or '-'} on {socket.gethostname()}"
        _send(self._services, title, "\n".join([*lines, f"{about}, exit code {code or 0}."]), kind)

    def _unrecorded_news(self, event: Event) -> str | None:
        """Whether to tell of a failure that left no row for the next run to compare with.

        A process that ends with each sync would tell it every time, so it leaves that to the dead-man's switch.
        """
        if not self._stays_up or event.source in self._told_unrecorded:
            return None
        self._told_unrecorded.add(event.source)
        return "cannot be synced"


def _news(outcome: str, previous: str | None) -> str | None:
    """Say what is new about an outcome, None when nothing is."""
    if outcome == "succeeded":
        return "is in sync again" if previous in ("refused", "failed") else None
    if outcome == "refused":
        return None if previous == "refused" else "sent a snapshot that was refused"
    return None if previous in ("refused", "failed") else "could not be synced"


def _services(urls: Sequence[str]) -> list[Any]:
    if find_spec("apprise") is None:
        raise ConfigError(
            "notify.urls needs the package apprise: install virtual-numbers-etl[notify], "
            "or take [notify] out of the configuration"
        )
    import logging  # noqa: PLC0415 - nothing else here logs through it

    from apprise import Apprise  # noqa: PLC0415 - it takes a third of a second

    # Apprise would tell standard error of its troubles, addresses included, in lines that are no log of ours.
    logging.getLogger("apprise").propagate = False
    services = []
    for position, url in enumerate(urls, start=1):
        service = Apprise.instantiate(url)
        if service is None:
            raise ConfigError(
                f"notify.urls: Apprise does not understand address {position}; its documentation shows how each "
                "service's address is spelled"
            )
        services.append(service)
    return services


def _send(services: Sequence[Any], title: str, body: str, kind: str) -> None:
    untold = set(range(1, len(services) + 1))

    def send() -> None:
        for position, service in enumerate(services, start=1):
            # A service that breaks has not told anybody, and its traceback would show the address.
            with suppress(Exception):
                if service.notify(title=title, body=body, notify_type=kind):
                    untold.discard(position)

    # A service may wait for a server longer than any timeout of its own, so it must not be waited for.
    thread = Thread(target=send, name="notify", daemon=True)
    thread.start()
    thread.join(_SECONDS)
    if untold:
        places = ", ".join(map(str, sorted(untold.copy())))
        raise UnavailableError(
            f"the message could not be delivered to address {places} of notify.urls: check the address and its service",
            code="notify_failed",
        )
