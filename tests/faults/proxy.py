"""A TCP proxy between the job and its database, which cuts, stalls or drops a reply when it sees a statement pass."""

import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Literal, Self

from sqlalchemy import make_url

HOST = "127.0.0.1"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_LONGEST_PATTERN = 64

OPENING = (b"INSERT INTO sync_runs", b"COMMIT")
"""Statements that commit the row of a run that begins."""
LOADING = (b"INSERT INTO sync_runs", b"UPDATE sync_runs", b"COMMIT")
"""Statements up to the commit that makes a snapshot live."""


class Link:
    """One connection of the job's, and its continuation to the server."""

    def __init__(self, client: socket.socket, server: socket.socket, closing: Event) -> None:
        self.client = client
        self.server = server
        self._closing = closing
        self.asked = False
        self.on_reply: Callable[[Link], None] | None = None
        """Called in place of passing on the server's next words."""

    def cut(self) -> None:
        """Break both ends off."""
        self.cut_client()
        with suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)

    def cut_client(self) -> None:
        """Break the job's end off without a word to the server, as a router that loses its tables does."""
        with suppress(OSError):
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.client.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Pass nothing on any more, and keep both ends open."""
        self._closing.wait()


Action = Callable[[Link], None]


@dataclass
class Rule:
    """Do something when these texts have passed, one after the other, on their way to the server."""

    texts: Sequence[bytes]
    action: Action
    moment: Literal["request", "reply"] = "request"
    """Before the last of them is passed on, or when the server has carried it out: its reply is then lost."""
    seen: int = 0


class Proxy:
    """Listens on loopback and passes on to a server, save where its rule says otherwise."""

    def __init__(self, port: int, rule: Rule | None = None) -> None:
        self.rule = rule
        self.fired = Event()
        self.round_trips = 0
        """Times that the job waited for an answer; pieces of one question or answer do not count."""
        self._upstream = port
        self._closing = Event()
        self._lock = Lock()
        self._links: list[Link] = []
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self._links:
            link.cut()

    def url(self, database_url: str, **query: str) -> str:
        """Return the URL that leads to the database through this proxy."""
        url = make_url(database_url).set(port=self.port).update_query_dict(query)
        return url.render_as_string(hide_password=False)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while not self._closing.is_set():
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection((HOST, self._upstream))
                except OSError:
                    client.close()
                    continue
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                link = Link(client, server, self._closing)
                self._links.append(link)
                Thread(target=self._pass_requests, args=(link,), daemon=True).start()
                Thread(target=self._pass_replies, args=(link,), daemon=True).start()

    def _pass_requests(self, link: Link) -> None:
        tail = b""
        with suppress(OSError):
            while data := link.client.recv(65536):
                completed, tail = self._look(tail + data)
                if completed and completed.moment == "reply":
                    link.on_reply = completed.action
                elif completed:
                    self.fired.set()
                    completed.action(link)
                    if self._closing.is_set():
                        break  # it stalled, and what it held back is never to arrive
                link.asked = True
                link.server.sendall(data)
        with suppress(OSError):
            link.server.shutdown(socket.SHUT_WR)

    def _pass_replies(self, link: Link) -> None:
        with suppress(OSError):
            while data := link.server.recv(65536):
                self.round_trips += link.asked
                link.asked = False
                if action := link.on_reply:
                    link.on_reply = None
                    self.fired.set()
                    action(link)
                else:
                    link.client.sendall(data)
        for end in (link.client, link.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _look(self, window: bytes) -> tuple[Rule | None, bytes]:
        """Return the rule if its last text is in the window, and what of it the next window must begin with."""
        position = 0
        with self._lock:
            rule = self.rule
            while rule and (found := window.find(rule.texts[rule.seen], position)) >= 0:
                position = found + len(rule.texts[rule.seen])
                rule.seen += 1
                if rule.seen == len(rule.texts):
                    self.rule = None
                    return rule, b""
        return None, window[max(position, len(window) - _LONGEST_PATTERN) :]
