"""A response body on disk, out of reach of others, measured while it is written and hashed while it is read."""

import hashlib
import mmap
import signal
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from types import TracebackType
from typing import BinaryIO, Self

import msgspec

from etl.errors import DataRefusedError, StorageError

CHUNK_BYTES = 1 << 18
_BYTES_WORTH_A_THREAD = 1 << 21


class _Hash:
    """SHA-256 of bytes; of many, made by a thread of its own: hashlib lets others run meanwhile, on another core."""

    def __init__(self, data: memoryview) -> None:
        self._hash = hashlib.sha256()
        self._thread: Thread | None = None
        if len(data) < _BYTES_WORTH_A_THREAD:
            self._hash.update(data)
        else:
            self._thread = Thread(target=self._work, args=(data,))
            self._thread.start()

    def _work(self, data: memoryview) -> None:
        # Signals are for the main thread: one that is taken here would end no wait there.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        self._hash.update(data)

    def hexdigest(self) -> str:
        if self._thread:
            self._thread.join()
        return self._hash.hexdigest()


class Body(msgspec.Struct, frozen=True):
    """A complete body, decompressed."""

    file: BinaryIO
    view: memoryview
    """The bytes; they stay on disk as far as the system sees fit, and stay valid when the body is closed."""
    hash: _Hash
    http_status: int | None = None
    attempts: int | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.view.nbytes

    @property
    def sha256(self) -> str:
        """Hexadecimal; whoever asks for it early waits for it."""
        return self.hash.hexdigest()

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()


class BodyWriter:
    """Writes a body into a file that has no name, and so is gone with the process however that ends."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.size = 0
        with storage_failures("temporary folder"):
            self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - it outlives this method, and goes with its Body

    def write(self, data: bytes) -> None:
        """Append decompressed bytes; raises DataRefusedError past the limit and StorageError when the disk is full."""
        self.size += len(data)
        if self.size > self._limit:
            raise DataRefusedError(
                f"the body is larger than http.max_body_bytes = {self._limit}; nothing was changed: "
                "raise the limit if the account is really that large",
                code="body_too_large",
            )
        with storage_failures("temporary folder"):
            self._file.write(data)

    def finish(self, http_status: int | None = None, attempts: int | None = None) -> Body:
        """Return the body, of which no more will come."""
        with storage_failures("temporary folder"):
            self._file.flush()
            # There is no mapping of nothing.
            mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) if self.size else b""
        view = memoryview(mapped)
        return Body(self._file, view, _Hash(view), http_status, attempts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop what was written if the body did not come to its end."""
        if error is not None:
            self._file.close()


@contextmanager
def storage_failures(where: str) -> Iterator[None]:
    """Turn an OSError of the block into a StorageError that names the place and what to do."""
    try:
        yield
    except OSError as error:
        what = error.strerror or type(error).__name__
        code = "disk_full" if error.errno in _NO_SPACE else "io_error"
        way_out = "make room there" if code == "disk_full" else "check that it exists and this user may use it"
        raise StorageError(f"{where}: {what}; {way_out}", code=code) from None


_NO_SPACE = (28, 27, 122)  # ENOSPC, EFBIG, EDQUOT


class CorruptStreamError(Exception):
    """A compressed stream is damaged, or ends before its end."""


_GZIP_FRAME, _ZLIB_FRAME, _NO_FRAME = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS


class Decompressor:
    """Undoes one content coding, in pieces of bounded size, and knows whether the stream has come to its end."""

    def __init__(self, coding: str) -> None:
        self._is_gzip = coding == "gzip"
        self._head = b""
        self._inflate = zlib.decompressobj(_GZIP_FRAME if self._is_gzip else _ZLIB_FRAME)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what the data decompresses to, a bounded piece at a time: a small body may expand to gigabytes."""
        try:
            yield from self._feed(data)
        except zlib.error:
            raise CorruptStreamError from None

    def _feed(self, data: bytes) -> Iterator[bytes]:
        piece = b""
        if len(self._head) < 2:
            data = self._first(data)
        # A full piece may have left some of its output behind, after all input was taken.
        while data or len(piece) == CHUNK_BYTES:
            if data and self._ended:
                data = self._next_member(data)
                continue
            piece = self._inflate.decompress(data, CHUNK_BYTES)
            if piece:
                yield piece
            data = self._inflate.unused_data if self._ended else self._inflate.unconsumed_tail

    @property
    def _ended(self) -> bool:
        return self._inflate.eof

    def _first(self, data: bytes) -> bytes:
        """Collect the two bytes that tell how the stream is framed; return what can be decompressed already."""
        self._head += data
        if len(self._head) < 2:
            return b""
        first, second = self._head[:2]
        # Some servers mean the bare stream by "deflate", without zlib's frame (RFC 9110, section 8.4.1.2). The check of
        # the frame's header is from RFC 1950, section 2.2.
        if not self._is_gzip and ((first << 8 | second) % 31 or first & 15 != 8):
            self._inflate = zlib.decompressobj(_NO_FRAME)
        return self._head

    def _next_member(self, data: bytes) -> bytes:
        # A gzip stream may have several members (RFC 1952, section 2.2), and padding of zeros after the last.
        if not self._is_gzip or ((stripped := data.lstrip(b"\0")) and not b"\x1f\x8b".startswith(stripped[:2])):
            raise CorruptStreamError
        if stripped:
            self._inflate = zlib.decompressobj(_GZIP_FRAME)
        return stripped

    def finish(self) -> None:
        """Raise CorruptStreamError unless the stream is complete and its checksum was right."""
        if not self._ended:
            raise CorruptStreamError
