"""HTTP connections whose sockets a deadline watches."""

import socket
from http.client import HTTPResponse, IncompleteRead
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from etl.deadline import Deadline


class _BoundedResponse(HTTPResponse):
    """Takes a chunk of negative size for the nonsense it is; the base class would read to the end, all at once."""

    def _safe_read(self, amt: int) -> bytes:
        if amt < 0:
            raise IncompleteRead(b"")
        data: bytes = super()._safe_read(amt)  # type: ignore[misc] # not in typeshed, as it is private to the class
        return data


class WatchedAdapter(HTTPAdapter):
    """Puts every socket it opens, that to a proxy included, under watch from before the first byte is sent."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pool manager of direct connections."""
        super().init_poolmanager(*args, **kwargs)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        """Make the pool manager of connections through a proxy."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        self._watch(manager)
        return manager

    def _watch(self, manager: PoolManager) -> None:
        deadline = self._deadline

        class WatchedConnection(HTTPConnection):
            response_class = _BoundedResponse

            def _new_conn(self) -> socket.socket:
                return _watched(super()._new_conn(), deadline)

        class WatchedTlsConnection(HTTPSConnection):
            response_class = _BoundedResponse

            def _new_conn(self) -> socket.socket:
                return _watched(super()._new_conn(), deadline)

        class WatchedPool(HTTPConnectionPool):
            ConnectionCls = WatchedConnection

        class WatchedTlsPool(HTTPSConnectionPool):
            ConnectionCls = WatchedTlsConnection

        manager.pool_classes_by_scheme = {"http": WatchedPool, "https": WatchedTlsPool}


def _watched(connected: socket.socket, deadline: Deadline) -> socket.socket:
    deadline.watch(connected.fileno())
    return connected
