"""A limit on how long sockets may be in use, whatever the code that uses them is waiting for.

A timeout of a socket counts from each byte anew, so a peer that sends one now and then is never late. Shutting the
socket down from a timer ends every wait at once.
"""

import os
import signal
import socket
import threading
import time
from types import TracebackType


class _Timer(threading.Timer):
    """Leaves signals to the main thread: two at once may otherwise both be taken here, and end no wait there."""

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        super().run()


class Deadline:
    """From its start on, counts down; when it has passed, shuts down all sockets that were put under watch."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._watched: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = _Timer(seconds, self._shut_down)
        self._timer.daemon = True

    def __enter__(self) -> "Deadline":
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self.release()

    @property
    def remaining(self) -> float:
        """Seconds left; never below zero."""
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether time is up."""
        return time.monotonic() >= self._end

    def watch(self, descriptor: int) -> None:
        """Put a connected socket under watch. Its owner may wrap, replace or close its own object as it likes."""
        twin = socket.socket(fileno=os.dup(descriptor))
        with self._lock:
            self._watched.append(twin)
        if self.passed:
            self._shut_down()

    def release(self) -> None:
        """Let go of all sockets under watch: until then, the connection stays open even if its owner closes it."""
        with self._lock:
            for twin in self._watched:
                twin.close()
            self._watched.clear()

    def _shut_down(self) -> None:
        with self._lock:
            for twin in self._watched:
                try:
                    twin.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the peer was faster
