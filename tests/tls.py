"""A TLS server for tests, with certificates of a CA of its own, that keeps all it was told after a handshake."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import trustme

HOST = "127.0.0.1"
_CLIENT_SECONDS = 10


@dataclass
class TlsServer:
    """What clients came and what they said."""

    port: int
    connections: int = 0
    received: bytes = b""
    handshakes_failed: list[str] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"https://{HOST}:{self.port}"


@contextmanager
def serving_tls(certificate: trustme.LeafCert, body: bytes = b"[]") -> Iterator[TlsServer]:
    """Answer every request over TLS with one body."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    with socket.create_server((HOST, 0)) as listener:
        server = TlsServer(listener.getsockname()[1])
        thread = Thread(target=_accept, args=(listener, context, server, body), daemon=True)
        thread.start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(_CLIENT_SECONDS)


def _accept(listener: socket.socket, context: ssl.SSLContext, server: TlsServer, body: bytes) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        server.connections += 1
        connection.settimeout(_CLIENT_SECONDS)
        with connection:
            try:
                secured = context.wrap_socket(connection, server_side=True)
            except OSError as error:
                server.handshakes_failed.append(str(error))
                continue
            with secured, suppress(OSError):
                _answer(secured, server, body)


def _answer(secured: ssl.SSLSocket, server: TlsServer, body: bytes) -> None:
    while b"\r\n\r\n" not in server.received:
        piece = secured.recv(65_536)
        if not piece:
            return
        server.received += piece
    secured.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def save_ca(ca: trustme.CA, file: Path) -> Path:
    """Write the CA's certificate where `http.ca_bundle` may name it."""
    ca.cert_pem.write_to_path(str(file))
    return file
