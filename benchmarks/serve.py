"""Serves one prepared response body on loopback, in a process of its own: its CPU must not count as a client's.

It prints its port, answers `GET …/numbers/virtual-number` with the file and a `Content-Length`, and lives until its
standard input is closed, so that it cannot outlive the benchmark that started it. By hand:

    python -m benchmarks.serve /tmp/bodies/first-1000.json
"""

from __future__ import annotations

import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar
from urllib.parse import urlsplit

PATH = "/numbers/virtual-number"


class BodyHandler(BaseHTTPRequestHandler):
    """Answers every request for the list of numbers with the same file, whatever its filter and token."""

    protocol_version = "HTTP/1.1"
    body: ClassVar[Path]

    def do_GET(self) -> None:
        """Send the body."""
        if urlsplit(self.path).path != PATH:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with self.body.open("rb") as file:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(self.body.stat().st_size))
            self.end_headers()
            self.wfile.flush()
            # sendfile: the server must not become the bottleneck of what it helps to measure.
            self.connection.sendfile(file)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the standard library
        """Stay silent."""


def main() -> None:
    BodyHandler.body = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), BodyHandler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
