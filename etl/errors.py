"""Everything that can go wrong, classified by what the caller does next.

The class decides the exit code (after BSD's sysexits.h), the `code` is a stable word for `sync_runs.error_code` and for
monitoring, and the message is one line that says what happened and what to do about it. A message never holds a token,
a phone number or a comment: it is printed, logged and stored.
"""

from typing import ClassVar


class EtlError(Exception):
    """Base of all errors that a person is told about in one line."""

    exit_code: ClassVar[int] = 70
    default_code: ClassVar[str] = "bug"

    def __init__(self, message: str, *, code: str | None = None, http_status: int | None = None) -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.http_status = http_status
        """Status of the source's last answer, if one came."""
        self.attempts: int | None = None
        """Requests sent before giving up."""


class UsageError(EtlError):
    """The command line asks for something that cannot be done: correct it and call again."""

    exit_code = 2
    default_code = "usage"


class DataRefusedError(EtlError):
    """The snapshot arrived but must not be loaded: look at the source, or accept what the guard refused."""

    exit_code = 65
    default_code = "data_refused"


class UnavailableError(EtlError):
    """The source or the database cannot be reached, or kept failing: try again later."""

    exit_code = 69
    default_code = "unavailable"


class StorageError(EtlError):
    """A disk is full, a file cannot be read or written, or the database file is damaged: make room or repair."""

    exit_code = 74
    default_code = "io_error"


class BusyError(EtlError):
    """Another run of this source is in progress: nothing to do, it will bring the tables up to date."""

    exit_code = 75
    default_code = "busy"


class ProtocolError(EtlError):
    """The source answered with a status that can never be a snapshot: check the address."""

    exit_code = 76
    default_code = "unexpected_status"


class NotPermittedError(EtlError):
    """The source or the database refuses these credentials: renew them or have the rights granted."""

    exit_code = 77
    default_code = "not_permitted"


class ConfigError(EtlError):
    """The configuration, the token or the schema revision is not what this version needs: fix it, then call again."""

    exit_code = 78
    default_code = "configuration"


# Like KeyboardInterrupt it is no error, and must pass every `except Exception`.
class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; what is open is rolled back on the way out."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number
