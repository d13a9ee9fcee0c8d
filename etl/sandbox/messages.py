"""What a client sent, and what it is answered, down to how the answer is sent."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

CONTENT_TYPE = "application/json; charset=UTF-8"


@dataclass(frozen=True)
class ReceivedRequest:
    """A request as it arrived."""

    method: str
    target: str
    """Path and query, byte for byte as received."""
    headers: dict[str, str]
    """By lower-case name; values of a repeated header are joined with a comma."""
    at: float
    """When its headers had arrived, in seconds of `time.monotonic()`."""


@dataclass(frozen=True)
class Answer:
    """An answer and the manner of sending it; by default whole, at once, and correct."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to `Date`, `Content-Type` (the API's) and those that frame the body, or sent in their place."""
    body: bytes = b""
    delay: float = 0
    """Seconds before the first byte of the answer."""
    content_length: int | None = None
    """What `Content-Length` claims; None is the truth. The connection is closed after a body of another length."""
    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""
    chunked: bool = False
    """Send the body with `Transfer-Encoding: chunked` instead of a length."""
    chunk_size: int = 65536
    end_chunks: bool = True
    """False: close the connection in place of the empty chunk that ends a body."""
    drip: float = 0
    """Seconds before each single byte after the headers; 0 sends as fast as the client reads."""
    reset: bool = False
    """Send nothing at all but a TCP reset."""

    def __post_init__(self) -> None:
        if self.chunk_size < 1:
            raise ValueError(f"a chunk has at least one byte, not {self.chunk_size}")

    @classmethod
    def json(cls, status: int, value: object, headers: Mapping[str, str] | None = None) -> Self:
        """Make an answer whose body is this value as UTF-8 JSON."""
        return cls(status, headers or {}, json.dumps(value, ensure_ascii=False).encode())

    @property
    def ends_connection(self) -> bool:
        """Whether the client cannot tell where the answer ends but by the end of the connection."""
        if self.chunked:
            return self.cut_after is not None or not self.end_chunks
        return self.cut_after is not None or self.content_length not in {None, len(self.body)}

    def framing(self) -> dict[str, str]:
        """Return the header that tells the client how long the body is."""
        if self.chunked:
            return {"Transfer-Encoding": "chunked"}
        return {"Content-Length": str(len(self.body) if self.content_length is None else self.content_length)}

    def pieces(self) -> Iterator[bytes]:
        """Yield what follows the headers, until the end of the body or the place where it is cut."""
        end = len(self.body) if self.cut_after is None else min(self.cut_after, len(self.body))
        if not self.chunked:
            yield self.body[:end]
            return
        for start in range(0, end, self.chunk_size):
            chunk = self.body[start : start + self.chunk_size]
            yield b"%x\r\n" % len(chunk)
            yield chunk[: end - start]
            if start + len(chunk) > end:
                return  # cut inside this chunk
            yield b"\r\n"
        if self.end_chunks and self.cut_after is None:
            yield b"0\r\n\r\n"
