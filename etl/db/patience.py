"""A PostgreSQL connection that neither waits for ever nor stays behind a signal.

psycopg bounds the making of a connection but no wait after it, and TCP notices only a peer that acknowledges nothing: a
server, or something in between, that stays silent while its machine lives would be waited for without an end.
Imported only with the driver.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.abc import PQGen
from psycopg.waiting import Wait

SILENCE_SECONDS = 300.0
"""How long the server may keep silent within one statement. The same limit holds on MariaDB and MySQL."""


class PatientConnection(psycopg.Connection[Any]):
    """Gives up a statement on which nothing happens for `silence_seconds`, and is closed with that."""

    silence_seconds = SILENCE_SECONDS
    meanwhile: Callable[[], None] | None = None
    """Called, and forgotten, the next time that the server has all it was sent and an answer is waited for."""

    def wait(self, gen: PQGen[Any], *arguments: Any, **options: Any) -> Any:
        """Wait for the server; psycopg calls this for all that happens after the connection is made.

        Raises psycopg.OperationalError when the server was silent for too long.
        """
        try:
            return super().wait(self._impatient(gen), *arguments, **options)
        except _SilenceError:
            self.close()
            raise psycopg.OperationalError("the server stays silent") from None
        except psycopg.Error:
            raise
        except BaseException:
            # A signal: a connection with a statement under way can do nothing more, and its session holds locks.
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                with suppress(Exception):
                    self.cancel_safe(timeout=2.0)
                self.close()
            raise

    def _impatient(self, gen: PQGen[Any]) -> PQGen[Any]:
        """Pass on what a generator of psycopg waits for, until nothing has come of it for too long."""
        last = time.monotonic()
        failed: Exception | None = None
        try:
            wanted = next(gen)
            while True:
                if self.meanwhile and wanted == Wait.R:
                    work, self.meanwhile = self.meanwhile, None
                    try:
                        work()
                    except Exception as error:  # noqa: BLE001 - raised below: the connection has an answer to take first
                        failed = error
                    last = time.monotonic()
                # The driver looks for signals several times a second, and then sends a zero.
                ready = yield wanted
                now = time.monotonic()
                if ready:
                    last = now
                elif now - last > self.silence_seconds:
                    raise _SilenceError
                wanted = gen.send(ready)
        except StopIteration as end:
            if failed:
                raise failed from None
            return end.value


class _SilenceError(Exception):
    """The server was silent for too long."""
