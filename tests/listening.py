"""A loopback server that hears what integrations send, and answers as it is told."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from types import TracebackType
from typing import Self


class Listener:
    """Remembers each request as its method, path, headers and body."""

    def __init__(self) -> None:
        self.status = 200
        self.silent = False
        """Take the request and never answer it."""
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[str] = []
        self._closing = Event()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listener.paths.append(self.path)
                listener.headers.append({name.lower(): value for name, value in self.headers.items()})
                listener.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
                if listener.silent:
                    listener._closing.wait(30)
                    return
                self.send_response(listener.status)
                if 300 <= listener.status <= 399:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_GET  # noqa: N815 - the base class's name

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
