"""The HTTP side of the sandbox: reads requests, sends answers as faultily as they want to be, and stops at once."""

import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import Event, Lock
from typing import Any

from etl.sandbox.messages import CONTENT_TYPE, Answer, ReceivedRequest

_MAX_REQUEST_BODY = 1 << 20
_LINGER_ZERO = struct.pack("ii", 1, 0)


class Listener(ThreadingHTTPServer):
    """A listening socket with one daemon thread per connection; `reply` decides what is answered."""

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_port = False  # two sandboxes on one port would share its connections at random

    def __init__(self, host: str, port: int, reply: Callable[[ReceivedRequest], Answer]) -> None:
        self.reply = reply
        self.stopping = Event()
        self._connections: set[socket.socket] = set()
        self._lock = Lock()
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind without the base class's look-up of the host's name, which may wait for a name server."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def hang_up(self) -> None:
        """Stop listening, and end every connection whatever it is doing; nothing may be accepting any more."""
        self.stopping.set()
        self.server_close()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):  # it ended by itself
                    connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, so that it can be ended from outside its thread."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close the connection and forget it."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's signature
        """Keep quiet about clients that hang up; anything else is a bug and shows as one."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            raise error


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a small body must not wait for the acknowledgement of its headers

    def do_GET(self) -> None:
        """Answer one request, whatever its method."""
        at = time.monotonic()
        self._skip_body()
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            key = name.lower()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        # `self.path` is not quite what was received: the base class folds leading slashes.
        self._send(self.server.reply(ReceivedRequest(self.command, self.requestline.split()[1], headers, at)))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that could not be parsed; the base class also reports methods without a `do_…` here."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self.do_GET()
            return
        self.close_connection = True
        self.request_version = self.protocol_version  # or else the base class may send no status line
        self._send(Answer.json(code, {"error": "bad_request", "message": message or explain or ""}))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's signature
        """Write nothing: the sandbox's `on_request` is its log."""

    def _skip_body(self) -> None:
        """Read the request's body away, or give up the connection, so that it is not taken for the next request."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal() or int(length) > _MAX_REQUEST_BODY:
            self.close_connection = True
        else:
            self.rfile.read(int(length))

    def _send(self, answer: Answer) -> None:
        if answer.delay and self.server.stopping.wait(answer.delay):
            self.close_connection = True
        elif answer.reset:
            self._reset()
        else:
            self._send_headers(answer)
            if self.command != "HEAD":
                self._send_body(answer)
            self.close_connection = self.close_connection or answer.ends_connection

    def _send_headers(self, answer: Answer) -> None:
        headers = {"Date": self.date_time_string(), "Content-Type": CONTENT_TYPE, **answer.framing()}
        given = {name.lower() for name in answer.headers}
        self.send_response_only(answer.status)
        for name, value in headers.items():
            if name.lower() not in given:
                self.send_header(name, value)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_body(self, answer: Answer) -> None:
        for piece in answer.pieces():
            if not answer.drip:
                self.wfile.write(piece)
                continue
            for byte in piece:
                if self.server.stopping.wait(answer.drip):
                    return
                self.wfile.write(bytes((byte,)))

    def _reset(self) -> None:
        """Close the socket so that the system sends a reset: without lingering, and before anyone shuts it down."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self.rfile.close()  # it holds the socket open
        self.connection.close()
