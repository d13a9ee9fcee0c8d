"""A dead-man's switch, as healthchecks.io and its kin offer them: it raises the alarm when it hears nothing.

One sync of all its sources is one beat: `URL/start` when it begins; when it ends, `URL` if every source is in sync,
else `URL/<exit code>`. (https://healthchecks.io/docs/http_api/: start, success and exit status endpoints.)
"""

import requests

from etl import __version__
from etl.config import Http
from etl.deadline import Deadline
from etl.errors import BusyError, UnavailableError
from etl.events import RUN_OUTCOMES, Action, Event
from etl.extract.connection import WatchedAdapter

_ATTEMPTS = 2
_SECONDS = 4.0
"""For one ping with all its attempts, whatever the server does."""


class Switch:
    """Observer that sends the beats."""

    def __init__(self, url: str, http: Http) -> None:
        self._url = url.rstrip("/")
        self._http = http
        self._codes: list[int] = []

    def __call__(self, event: Event) -> None:
        """Send what the event asks for; raises UnavailableError when the switch cannot be reached."""
        if event.action is Action.SYNC_STARTED:
            self._codes.clear()
            self._send("/start")
        elif event.action in RUN_OUTCOMES:
            self._codes.append(int(event.details.get("exit_code") or 0))
        elif event.action is Action.SYNC_FINISHED:
            self._finish()

    def _finish(self) -> None:
        failed = [code for code in self._codes if code not in (0, BusyError.exit_code)]
        if failed:
            self._send(f"/{failed[0]}")
        elif BusyError.exit_code not in self._codes:
            self._send("")
        # Else the run in whose way this one would have been reports for both; should it hang, the silence tells.

    def _send(self, suffix: str) -> None:
        problem = "it could not be reached"
        with Deadline(_SECONDS) as deadline:
            for _ in range(_ATTEMPTS):
                try:
                    status = self._get(self._url + suffix, deadline)
                except (requests.exceptions.RequestException, OSError, ValueError):
                    # Its own text would show the address.
                    if deadline.passed:
                        problem = f"it did not answer within {_SECONDS:g} s"
                        break
                    continue
                if 200 <= status <= 299:
                    return
                problem = f"it answered with status {status}"
                if status < 500:
                    break
        raise UnavailableError(f"the switch was not told ({problem}): check ping.url", code="ping_failed")

    def _get(self, url: str, deadline: Deadline) -> int:
        with requests.Session() as session:
            # Like the source, the switch is reached through what is configured and nothing else.
            session.trust_env = False
            session.verify = self._http.ca_bundle or True
            if self._http.proxy:
                session.proxies = {"http": self._http.proxy, "https": self._http.proxy}
            session.mount("https://", WatchedAdapter(deadline))
            session.mount("http://", WatchedAdapter(deadline))
            headers = {"User-Agent": f"virtual-numbers-etl/{__version__}"}
            wait = max(deadline.remaining, 0.001)
            with session.get(url, headers=headers, timeout=wait, allow_redirects=False, stream=True) as response:
                return response.status_code
