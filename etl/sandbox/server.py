"""Serves an account as the vendor's API does: its one list with filters, token and allow-list, and faults on demand."""

import gzip
import hmac
import ipaddress
from collections import deque
from collections.abc import Callable
from threading import Lock, Thread
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl

from etl.sandbox.account import Account
from etl.sandbox.filters import Filter, FilterError
from etl.sandbox.listener import Listener
from etl.sandbox.messages import Answer, ReceivedRequest

__all__ = ["LIST_PATH", "Answer", "ReceivedRequest", "SandboxServer"]

LIST_PATH = "/numbers/virtual-number"
"""Data API, «Получить список номеров для исходящих сценариев»: the only path the sandbox knows."""

_POLL_SECONDS = 0.02  # how long stopping may wait for the listening thread to notice
_DEFAULT_NUMBERS = 100


class SandboxServer:
    """The vendor's API on a loopback address.

    It listens from its construction on, `port` 0 meaning any free one. Serve with it as a context manager, in a thread
    of its own, or with `serve_forever()`, in the caller's; either closes it in the end. Raises `ValueError` for an
    address that is not loopback, since nothing here is secured, and `OSError` for a port that is taken.

    `account`, `token`, `churn` and `blocked` may be assigned at any time and hold from the next request on.
    """

    requests: list[ReceivedRequest]
    """All requests that could be parsed, in the order of their arrival."""

    def __init__(  # noqa: PLR0913 - keyword-only settings, each with a default
        self,
        account: Account | None = None,
        *,
        token: str | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
        churn: float = 0.0,
        blocked: bool = False,
        gzip: bool = True,
        on_request: Callable[[str], None] | None = None,
    ) -> None:
        """Listen for requests.

        account: the numbers to serve; None generates a hundred.
        token: what `Authorization` must hold, without a scheme; None lets everybody in.
        churn: the share of the numbers that changes between one served list and the next.
        blocked: answer as the vendor does to an address that is not on the account's allow-list.
        gzip: compress the list for clients that accept it.
        on_request: gets one line per request, before its answer is sent and in the thread that sends it.
        """
        if not _is_loopback(host):
            raise ValueError(f"the sandbox has no security and serves on loopback only, not on {host}")
        self.account = Account.generate(_DEFAULT_NUMBERS) if account is None else account
        self.token = token
        self.churn = churn
        self.blocked = blocked
        self.requests = []
        self._gzip = gzip
        self._on_request = on_request
        self._script: deque[Answer] = deque()
        self._body: bytes | None = None
        self._served: Account | None = None
        self._compressed: tuple[bytes, bytes] | None = None
        self._lock = Lock()
        self._thread: Thread | None = None
        self._listener = Listener(host, port, self._reply)
        self.port = self._listener.server_port
        self.base_url = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._listener.serve_forever, args=(_POLL_SECONDS,), name="sandbox", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def serve_forever(self) -> None:
        """Serve in this thread until an exception such as `KeyboardInterrupt` ends it, which is passed on."""
        try:
            if self._thread is None:
                self._listener.serve_forever(_POLL_SECONDS)
            else:
                self._thread.join()
        finally:
            self.close()

    def close(self) -> None:
        """Stop serving and end all connections, at once; closing twice does no harm."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._listener.shutdown()
            thread.join()
        self._listener.hang_up()

    def script(self, *answers: Answer) -> None:
        """Answer the next requests with these, one each and whatever they ask; then normal service resumes."""
        with self._lock:
            self._script.extend(answers)

    def serve_body(self, body: bytes | None) -> None:
        """List exactly these bytes, uncompressed, in place of the account's numbers; None goes back to the numbers."""
        with self._lock:
            self._body = body

    def _reply(self, request: ReceivedRequest) -> Answer:
        with self._lock:
            self.requests.append(request)
            answer = self._script.popleft() if self._script else self._serve(request)
        if self._on_request is not None:
            self._on_request(_log_line(request, answer))
        return answer

    def _serve(self, request: ReceivedRequest) -> Answer:
        path, _, query = request.target.partition("?")
        return self._refusal(request, path) or self._list(query, request.headers.get("accept-encoding", ""))

    def _refusal(self, request: ReceivedRequest, path: str) -> Answer | None:
        """Say why there is no list. The API's documentation does not show its errors; here they are JSON objects."""
        if path != LIST_PATH:
            return _error(404, "not_found", f"the sandbox knows only {LIST_PATH}")
        if request.method != "GET":
            return _error(405, "method_not_allowed", "the sandbox knows only GET", {"Allow": "GET"})
        if self.blocked:
            return _error(403, "forbidden", "the address is not on the account's allow-list")
        if not self._is_authorized(request):
            return _error(401, "unauthorized", "the token is missing or wrong")
        return None

    def _list(self, query: str, accept_encoding: str) -> Answer:
        if self._body is not None:
            return Answer(body=self._body)
        try:
            filters = parse_qsl(query, keep_blank_values=True, errors="strict")
            Filter(filters)  # a request that is refused changes nothing
        except FilterError as error:
            return _error(400, "bad_filter", str(error))
        except UnicodeDecodeError:
            return _error(400, "bad_filter", "the query is not percent-encoded UTF-8")
        if self.churn and self._served is self.account:
            self.account.churn(self.churn)
        self._served = self.account
        body = self.account.json(filters)
        if not (self._gzip and _accepts_gzip(accept_encoding)):
            return Answer(body=body)
        if self._compressed is None or self._compressed[0] is not body:
            self._compressed = body, gzip.compress(body, compresslevel=1, mtime=0)
        return Answer(headers={"Content-Encoding": "gzip"}, body=self._compressed[1])

    def _is_authorized(self, request: ReceivedRequest) -> bool:
        if self.token is None:
            return True
        # Header values are bytes that http.server decodes as Latin-1.
        given = request.headers.get("authorization", "").encode("latin-1")
        return hmac.compare_digest(given, self.token.encode())


def _log_line(request: ReceivedRequest, answer: Answer) -> str:
    """Describe a request and its answer in one printable line, without its headers, which hold the token."""
    target = request.target.encode("unicode_escape").decode("ascii")
    outcome = "reset" if answer.reset else f"{answer.status} {len(answer.body)}"
    return f'"{request.method} {target}" {outcome}'


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _accepts_gzip(accept_encoding: str) -> bool:
    for offer in accept_encoding.lower().split(","):
        coding, _, weight = offer.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Answer:
    return Answer.json(status, {"error": code, "message": message}, headers)
