"""A server of raw bytes: it answers exactly what a script says, when it says so, however wrong that is as HTTP."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Peer:
    """The server's end of one connection."""

    def __init__(self, connection: socket.socket, closing: Event) -> None:
        self._connection = connection
        self._closing = closing

    def read_request(self) -> bytes:
        """Read up to the blank line that ends a request's headers."""
        received = b""
        while b"\r\n\r\n" not in received:
            piece = self._connection.recv(65536)
            if not piece:
                break
            received += piece
        return received

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def drip(self, data: bytes, pause: float) -> None:
        """Send byte by byte."""
        for byte in data:
            if self._closing.wait(pause):
                return
            self._connection.sendall(bytes((byte,)))

    def send_for_ever(self, data: bytes, pause: float = 0) -> None:
        """Repeat the data until the client has had enough."""
        while not self._closing.wait(pause):
            self._connection.sendall(data)

    def stall(self) -> None:
        """Say nothing more, and hold the connection open until the client gives it up."""
        while not self._closing.is_set():
            self._connection.settimeout(0.05)
            with suppress(TimeoutError):
                if not self._connection.recv(65536):
                    return

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._connection.close()


Script = Callable[[Peer], None]
"""What to do with one connection, which is closed when it returns."""


class RawServer:
    """Treats the first connections by the scripts given, one each, and all later ones by the last of them."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.connections = 0
        self._closing = Event()
        self._lock = Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.base_url = f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while not self._closing.is_set():
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self.connections += 1
                    script = self.scripts[min(self.connections, len(self.scripts)) - 1]
                    self._open.add(connection)
                Thread(target=self._serve, args=(connection, script), daemon=True).start()

    def _serve(self, connection: socket.socket, script: Script) -> None:
        try:
            with suppress(OSError):  # the client has gone
                script(Peer(connection, self._closing))
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()


def answers(*pieces: bytes) -> Script:
    """Read the request, send these bytes and close the connection."""

    def script(peer: Peer) -> None:
        peer.read_request()
        for piece in pieces:
            peer.send(piece)

    return script


def response(body: bytes = b"", *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """Return an HTTP answer; `length` is what Content-Length claims, -1 leaves it out."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length != -1:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@contextmanager
def full_backlog() -> Iterator[str]:
    """Yield the address of a server that is too busy to accept: its queue is full, so further clients hear nothing."""
    with socket.create_server((HOST, 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = []
        try:
            for _ in range(4):
                client = socket.socket()
                client.setblocking(False)
                waiting.append(client)
                with suppress(BlockingIOError):
                    client.connect((HOST, port))
            yield f"http://{HOST}:{port}"
        finally:
            for client in waiting:
                client.close()


def closed_port() -> int:
    """Return a port of loopback on which nobody listens."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
