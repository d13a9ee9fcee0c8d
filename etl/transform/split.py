"""Cut a response body into the JSON texts of its records, refusing the body whole where it is no JSON array.

msgspec does it in one pass, and refuses some bodies that are JSON: a lone surrogate escape and very deep nesting are
the fault of one record, which the contract quarantines. A slower reader cuts those.
"""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from mmap import MADV_DONTNEED, mmap
from typing import NamedTuple, NoReturn

import msgspec

from etl.errors import DataRefusedError

_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_NUL = re.compile(rb"\\u0000")
_ELEMENTS_PER_SLICE = 10_000


class Elements(msgspec.Struct, frozen=True):
    """The elements of a body's array, as received."""

    texts: Sequence[msgspec.Raw]
    may_hold_nul: bool
    """JSON has one way to spell NUL: where the body does not have it, no element has to be searched for it."""
    body: bytes | mmap

    def slices(self) -> Iterator[Sequence[msgspec.Raw]]:
        """Yield all elements in order, some at a time, so that no more of a body on disk is kept in memory."""
        for start in range(0, len(self.texts), _ELEMENTS_PER_SLICE):
            yield self.texts[start : start + _ELEMENTS_PER_SLICE]
            self.let_go()

    def let_go(self) -> None:
        """Give the body's memory back; the pages of a file come back by themselves when they are needed again."""
        if isinstance(self.body, mmap):
            self.body.madvise(MADV_DONTNEED)


def split(body: memoryview) -> Elements:
    """Return the elements of the body's array.

    Raises DataRefusedError when the body is not JSON, not one array, or has text after it. Whether the elements' own
    text is valid UTF-8 shows when it is read: `text_of()` does so.
    """
    whole: bytes | mmap = body.obj  # type: ignore[assignment] # these two are what a body is made of
    if bytes(body[: len(BOM_UTF8)]) == BOM_UTF8:
        body = body[len(BOM_UTF8) :]
    # A pattern is found twice as fast as by the `find` of what is mapped into memory.
    elements = Elements(_split(body), _NUL.search(body) is not None, whole)
    elements.let_go()
    return elements


def _split(body: memoryview) -> Sequence[msgspec.Raw]:
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        got = str(error).rpartition("got ")[2].strip("`")
        raise DataRefusedError(
            f"the source answered with a JSON {got} instead of an array; nothing was changed: "
            "check base_url, and ask the vendor if it stays so",
            code="not_an_array",
        ) from None
    except (msgspec.DecodeError, RecursionError):
        return [msgspec.Raw(text.encode()) for text in _split_slowly(text_of(body))]


def text_of(data: memoryview) -> str:
    """Decode a piece of the body; raises DataRefusedError when it is not valid UTF-8."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise DataRefusedError(
            "the body is not valid UTF-8; nothing was changed: ask the vendor if it stays so", code="not_utf8"
        ) from None


def _not_json(where: int) -> DataRefusedError:
    return DataRefusedError(
        f"the body is not valid JSON (at character {where}); nothing was changed: "
        "check base_url for a proxy or login page in between, and ask the vendor if it stays so",
        code="not_json",
    )


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError


_BLANKS = re.compile(r"[ \t\n\r]*")
# Numbers stay text: Python refuses to convert thousands of digits, and nobody needs their value here.
_decode_value = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=str, parse_float=str).raw_decode


def _split_slowly(text: str) -> Iterator[str]:
    position = _skip(text, _skip(text, 0, "["))
    if text[position : position + 1] != "]":
        while True:
            end = _end_of_value(text, position)
            yield text[position:end]
            position = _skip(text, end)
            if text[position : position + 1] == "]":
                break
            position = _skip(text, _skip(text, position, ","))
    if _skip(text, position + 1) != len(text):
        raise _not_json(position + 1)


def _skip(text: str, position: int, expected: str = "") -> int:
    blanks = _BLANKS.match(text, position)
    position = blanks.end() if blanks else position
    if not expected:
        return position
    if text[position : position + 1] != expected:
        raise _not_json(position)
    return position + 1


def _end_of_value(text: str, position: int) -> int:
    try:
        return _decode_value(text, position)[1]
    except RecursionError:
        end = position
        for token in tokens(text, position):
            end = token.end
        return end
    except ValueError:
        raise _not_json(position) from None


class Token(NamedTuple):
    """A piece of JSON: where it stands, how deep, and whether it names a member."""

    text: str
    end: int
    depth: int
    is_key: bool


_PIECE = (
    r'[ \t\n\r]*("[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"'
    r"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
    r"|true|false|null|[\[\]{},:])"
)
_OPENING, _CLOSING = {"[": 0, "{": 1}, {"]": 0, "}": 1}


def tokens(text: str, position: int = 0) -> Iterator[Token]:
    """Yield the tokens of the one value that starts at `position`, however deep it is nested.

    Raises DataRefusedError where the text is not JSON.
    """
    pattern = re.compile(_PIECE)
    open_objects = bytearray()  # one byte per level, 1 for an object: nesting is bounded by the body's size only
    expected = "value"
    while True:
        match = pattern.match(text, position)
        if not match:
            raise _not_json(position)
        piece, position = match[1], match.end()
        is_key = piece[0] == '"' and expected in ("key", "key or }")
        if piece in _OPENING and expected in ("value", "value or ]"):
            yield Token(piece, position, len(open_objects), is_key=False)
            open_objects.append(_OPENING[piece])
            expected = "key or }" if piece == "{" else "value or ]"
            continue
        if not (following := _following(piece, expected, open_objects)):
            raise _not_json(position)
        expected = following
        yield Token(piece, position, len(open_objects), is_key)
        if not open_objects:
            return


def _following(piece: str, expected: str, open_objects: bytearray) -> str | None:
    """Return what has to follow a piece, None where the piece itself is out of place."""
    if piece in _CLOSING:
        if expected not in (f"value or {piece}", f"key or {piece}", "comma") or open_objects[-1] != _CLOSING[piece]:
            return None
        open_objects.pop()
        return "comma"
    if piece == ":":
        return "value" if expected == ":" else None
    if piece == ",":
        return ("key" if open_objects[-1] else "value") if expected == "comma" else None
    if expected in ("key", "key or }"):
        return ":" if piece[0] == '"' else None
    return "comma" if expected in ("value", "value or ]") and piece not in _OPENING else None
