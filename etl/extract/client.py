"""Ask the source for its whole list, patiently, and accept an answer only when it is complete.

Facts about the API are from the vendor's public documentation of the Data API.
"""

import random
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import NoReturn

import msgspec
import requests
from urllib3.exceptions import HTTPError

from etl import __version__
from etl.config import Http, Source
from etl.deadline import Deadline
from etl.errors import DataRefusedError, EtlError, NotPermittedError, ProtocolError, UnavailableError
from etl.events import Action, Event, Level, Observer
from etl.extract.body import CHUNK_BYTES, Body, BodyWriter, CorruptStreamError, Decompressor
from etl.extract.connection import WatchedAdapter

LIST_PATH = "/numbers/virtual-number?purpose__ne=not_specified&state=active&type=def&type=abc"
"""«Получить список номеров для исходящих сценариев»."""

_RETRIED_STATUSES = (408, 425, 429)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0
_LONGEST_SANE_WAIT_SECONDS = 86_400
_BEGINNING_BYTES = 64


class _AttemptFailedError(Exception):
    """One attempt failed in a way that another may not."""

    def __init__(self, code: str, what: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.status = status
        self.retry_after = retry_after


def fetch(
    source: Source, token: str, http: Http, observer: Observer, sleep: Callable[[float], None] = time.sleep
) -> Body:
    """Return one complete response body of the source.

    Raises UnavailableError when attempts or the deadline ran out, NotPermittedError for 401 and 403, ProtocolError for
    any other status that is not worth another attempt, DataRefusedError for a body past the size limit.
    """
    with Deadline(http.deadline) as deadline, _session(http, deadline) as session:
        attempt = 0
        while True:
            attempt += 1
            try:
                return _attempt(session, source, token, http, deadline, observer, attempt)
            except _AttemptFailedError as failure:
                pause = _pause(failure, attempt, http, deadline)
                observer(_failed(source, failure, attempt, pause))
                sleep(pause)
            except EtlError as error:
                error.attempts = attempt
                raise
            finally:
                deadline.release()


def _session(http: Http, deadline: Deadline) -> requests.Session:
    session = requests.Session()
    # A .netrc would replace the token, and proxy variables would send it elsewhere.
    session.trust_env = False
    session.mount("https://", WatchedAdapter(deadline))
    session.mount("http://", WatchedAdapter(deadline))
    session.headers.clear()
    session.headers.update(
        {
            "User-Agent": f"virtual-numbers-etl/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "Content-Type": "application/json; charset=UTF-8",
        }
    )
    session.verify = http.ca_bundle or True
    if http.proxy:
        session.proxies = {"http": http.proxy, "https": http.proxy}
    return session


def _attempt(
    session: requests.Session,
    source: Source,
    token: str,
    http: Http,
    deadline: Deadline,
    observer: Observer,
    attempt: int,
) -> Body:
    with _answer(session, source, token, http, deadline) as response, BodyWriter(http.max_body_bytes) as writer:
        _receive(response, writer, source, observer)
        # A socket that the deadline shut down looks like one that the peer has closed in good order.
        if deadline.passed:
            raise _AttemptFailedError("deadline", "the deadline passed while the body was coming", response.status_code)
        return writer.finish(response.status_code, attempt)


@contextmanager
def _answer(
    session: requests.Session, source: Source, token: str, http: Http, deadline: Deadline
) -> Iterator[requests.Response]:
    """Ask for the list and yield the answer, its body still to come; whatever goes wrong is classified."""
    status: int | None = None
    try:
        with session.get(
            source.base_url.rstrip("/") + LIST_PATH,
            headers={"Authorization": token},
            stream=True,
            allow_redirects=False,
            timeout=(min(http.connect_timeout, deadline.remaining + 0.001), http.read_timeout),
        ) as response:
            status = response.status_code
            _check_status(response)
            yield response
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, requests.exceptions.InvalidProxyURL):
        raise UnavailableError(
            "base_url or http.proxy is not an address that can be asked: correct it", code="bad_url"
        ) from None
    except CorruptStreamError:
        raise _AttemptFailedError("body_corrupt", "the compressed body is damaged or was cut", status) from None
    except (requests.exceptions.RequestException, HTTPError, HTTPException, OSError, ValueError) as error:
        _raise_classified(error, status)


class Greeting(msgspec.Struct, frozen=True):
    """The beginning of an answer, as far as it tells that this is the source."""

    date: datetime | None
    """The server's clock, if it told."""
    is_list: bool
    """Whether the body begins as a JSON array does."""


def probe(source: Source, token: str, http: Http) -> Greeting:
    """Ask once, as a run does, and read no more than the beginning of the answer. Raises what `fetch` raises."""
    patience = min(http.deadline, http.connect_timeout + http.read_timeout)
    with Deadline(patience) as deadline, _session(http, deadline) as session:
        try:
            with _answer(session, source, token, http, deadline) as response:
                beginning = response.raw.read(_BEGINNING_BYTES, decode_content=True)
                date = _http_date(response.headers.get("Date", ""))
        except _AttemptFailedError as failure:
            message = f"{failure.what}; a run would try again, up to http.max_attempts"
            raise UnavailableError(message, code=failure.code, http_status=failure.status) from None
    return Greeting(date, beginning.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["))


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    if status == 200:
        return
    if status == 401:
        raise NotPermittedError(
            "the source refuses the token (401): making a new one in the web cabinet (Интеграции → API → Настройка API "
            "→ Сгенерировать) kills the old one at once; put the newest one into the configuration",
            code="bad_token",
            http_status=status,
        )
    if status == 403:
        raise NotPermittedError(
            "the source refuses this machine (403): the vendor denies every IP until it is on the allow-list; add this "
            "machine's public IP in the web cabinet (Интеграции → API → Настройка API)",
            code="ip_not_allowed",
            http_status=status,
        )
    if status in _RETRIED_STATUSES or 500 <= status <= 599:
        wait = _retry_after(response.headers.get("Retry-After"))
        raise _AttemptFailedError("http_status", f"the source answered with status {status}", status, wait)
    where = " (a redirect, which is not followed)" if 300 <= status <= 399 else ""
    raise ProtocolError(
        f"the source answered with status {status}{where}, which can never be the list of numbers: check base_url",
        http_status=status,
    )


def _retry_after(value: str | None) -> float | None:
    """Seconds in a Retry-After header (RFC 9110, section 10.2.3); None where there is none that makes sense."""
    if value is None:
        return None
    text = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        seconds = float(text)
    else:
        moment = _http_date(text)
        if moment is None:
            return None
        seconds = max((moment - datetime.now(UTC)).total_seconds(), 0.0)
    return seconds if seconds <= _LONGEST_SANE_WAIT_SECONDS else None


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC)
    except (ValueError, OverflowError, TypeError):
        return None


def _receive(response: requests.Response, writer: BodyWriter, source: Source, observer: Observer) -> None:
    decompressor = _decompressor(response.headers.get("Content-Encoding", ""))
    while chunk := response.raw.read(CHUNK_BYTES, decode_content=False):
        for piece in decompressor.feed(chunk) if decompressor else (chunk,):
            writer.write(piece)
        observer(Event(Action.BODY_PROGRESS, Level.DEBUG, source.name, details={"bytes": writer.size}))
    if decompressor:
        decompressor.finish()


def _decompressor(header: str) -> Decompressor | None:
    coding = header.strip().lower().removeprefix("x-")
    if coding in ("", "identity"):
        return None
    if coding not in ("gzip", "deflate"):
        raise DataRefusedError(
            "the body has a content encoding that was not asked for; nothing was changed: check what stands between "
            "here and the source",
            code="unknown_encoding",
        )
    return Decompressor(coding)


def _raise_classified(error: Exception, status: int | None) -> NoReturn:
    """Raise what a failed connection means; its own text is not shown, for it may quote the request."""
    causes = list(_causes(error))
    if certificate := next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None):
        raise UnavailableError(
            f"the source's certificate is not to be trusted ({certificate.verify_message or 'not verified'}), so the "
            "token was not sent: check base_url and the clock, or name your company's CA in http.ca_bundle",
            code="tls_untrusted",
        ) from None
    for kinds, code, what in _CONNECTION_FAILURES:
        if any(isinstance(cause, kinds) for cause in causes):
            raise _AttemptFailedError(code, what, status) from None
    raise _AttemptFailedError("connection_broken", "the answer broke off or is not proper HTTP", status) from None


_CONNECTION_FAILURES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str, str], ...] = (
    (socket.gaierror, "unknown_host", "the source's host name is not known: check base_url and DNS"),
    (ConnectionRefusedError, "connection_refused", "the source refused the connection"),
    ((TimeoutError, requests.exceptions.Timeout), "timeout", "the source did not answer in time"),
    (ssl.SSLError, "tls_failed", "no TLS connection could be made"),
    (requests.exceptions.ProxyError, "proxy_failed", "the proxy in http.proxy did not let the request through"),
    ((ConnectionResetError, BrokenPipeError), "connection_reset", "the connection was reset"),
)


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    queue = [error]
    while queue:
        cause = queue.pop()
        if isinstance(cause, BaseException) and cause not in found:
            found.append(cause)
            queue += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
    return found


def _pause(failure: _AttemptFailedError, attempt: int, http: Http, deadline: Deadline) -> float:
    """Seconds to wait before the next attempt; raises UnavailableError when there can be none."""
    if deadline.passed:
        _give_up(failure, attempt, f"http.deadline = {http.deadline:g} s passed")
    if attempt >= http.max_attempts:
        _give_up(failure, attempt, "after 1 attempt" if attempt == 1 else f"after {attempt} attempts")
    # Noise keeps many clients from coming back all at once.
    backoff = min(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), _LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
    pause = backoff if failure.retry_after is None else failure.retry_after
    if pause > deadline.remaining:
        _give_up(failure, attempt, f"the next attempt would come {pause:.0f} s from now, past http.deadline")
    return pause


def _give_up(failure: _AttemptFailedError, attempts: int, why: str) -> NoReturn:
    message = f"{failure.what} ({why}); nothing was changed: the next run tries again"
    error = UnavailableError(message, code=failure.code, http_status=failure.status)
    error.attempts = attempts
    raise error from None


def _failed(source: Source, failure: _AttemptFailedError, attempt: int, pause: float) -> Event:
    return Event(
        Action.ATTEMPT_FAILED,
        Level.WARNING,
        source.name,
        message=f"{failure.what}; trying again in {pause:.1f} s",
        details={
            "attempt": attempt,
            "error_code": failure.code,
            "http_status": failure.status,
            "pause": round(pause, 1),
        },
    )
