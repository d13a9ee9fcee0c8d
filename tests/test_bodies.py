"""Bodies as a whole: what is one JSON array in UTF-8 and what is not, and that what is not changes nothing."""

import gzip
import zlib
from collections.abc import Iterator

import msgspec
import pytest

from etl.config import Http
from etl.sandbox import Answer
from tests import stored
from tests.databases import Databases
from tests.loading import Loader, loading
from tests.snapshots import bad, body, record

GOOD = [record(1, {5: "7"}), record(2), bad(3)]
LIMIT = 20_000

NOT_UTF8 = {
    "windows-1251": '["Заметка"]'.encode("cp1251"),
    "utf-16": "[1]".encode("utf-16"),
    "overlong": b'["\xc0\x80"]',
    "surrogate": b'["\xed\xa0\x80"]',
    "above unicode": b'["\xf4\x90\x80\x80"]',
    "cut in a character": '["Ж'.encode()[:-1],
    "after the array": b"[1]\xff",
    "outside strings": b"[1, \xe9]",
}
NOT_JSON = {
    "nothing": b"",
    "blanks": b" \r\n\t ",
    "byte order mark alone": b"\xef\xbb\xbf",
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf[]",
    "html": b"<!DOCTYPE html><html><body>502</body></html>",
    "not closed": b'[{"id": 1}',
    "closed twice": b"[]]",
    "two arrays": b"[] []",
    "text after it": b"[] OK",
    "a NUL after it": b"[]\0",
    "comma at the end": b"[1, ]",
    "comma at the beginning": b"[, 1]",
    "no comma": b"[1 2]",
    "NaN": b"[NaN]",
    "Infinity": b'[{"unknown": -Infinity}]',
    "leading zero": b"[01]",
    "no digit after the point": b"[1.]",
    "no digit before the point": b"[.5]",
    "plus": b"[+1]",
    "single quotes": b"['x']",
    "no quotes": b"[{id: 1}]",
    "key without a value": b'[{"id"}]',
    "value without a key": b"[{1: 2}]",
    "comma in an object": b'[{"id": 1,}]',
    "wrong bracket": b"[1}",
    "comment": b"[/* none */]",
    "line break in a string": b'["a\nb"]',
    "NUL in a string": b'["a\0b"]',
    "unknown escape": b'["\\x41"]',
    "short escape": b'["\\u041"]',
    "half an escape": b'["\\',
    "deep and not closed": b"[" * 100_000,
    "not closed after half a surrogate pair": b'["\\ud800"',
    "NaN after half a surrogate pair": b'["\\ud800", NaN]',
    "text after half a surrogate pair": b'["\\ud800"] OK',
    "comma after half a surrogate pair": b'["\\ud800", ]',
    "wrong bracket after half a surrogate pair": b'["\\ud800", [1}, 2]',
    "wrong deep down": b"[" * 50_000 + b"1 2" + b"]" * 50_000,
}
NOT_AN_ARRAY = {
    "object": b'{"error": "forbidden"}',
    "object around it": b'{"data": []}',
    "JSON lines": b'{"id": 1}\n{"id": 2}\n',
    "null": b"null",
    "string": b'"[]"',
    "number": b" 42 ",
    "true": b"true",
    "byte order mark before an object": b"\xef\xbb\xbf{}",
}
REFUSED = [
    pytest.param(text, code, id=name)
    for code, texts in (("not_utf8", NOT_UTF8), ("not_json", NOT_JSON), ("not_an_array", NOT_AN_ARRAY))
    for name, text in texts.items()
]


@pytest.fixture(scope="module")
def loaded(sqlite_databases: Databases) -> Iterator[Loader]:
    """Give one database for all bodies that are refused, since they leave it as it is."""
    with sqlite_databases.migrated() as database, loading(database) as loader:
        loader.load(GOOD)
        yield loader


@pytest.mark.parametrize(("text", "code"), REFUSED)
def test_what_is_no_array_is_refused_at_once_and_changes_nothing(loaded: Loader, text: bytes, code: str) -> None:
    before = stored.dump(loaded.database)
    requests = len(loaded.server.requests)
    result = loaded.sync(text)

    assert result.outcome == "refused"
    assert result.error is not None
    assert (result.error.exit_code, result.error.code) == (65, code)
    assert len(loaded.server.requests) == requests + 1
    after = stored.dump(loaded.database)
    assert len(after.pop("sync_runs")) == len(before.pop("sync_runs")) + 1
    assert after == before


@pytest.mark.parametrize(
    ("text", "received"),
    [
        (b"[]", 0),
        (b"\xef\xbb\xbf[]", 0),
        (b"\r\n\t [ \n ] \n", 0),
        (b'\xef\xbb\xbf\n[{}, "\\ud800",\t[]]\n', 3),
        (b"[1e400, -0, 0.1E-9, " + b"9" * 5_000 + b"]", 4),
        (b"[" + b"[" * 3_000 + b"]" * 3_000 + b", 1]", 2),
    ],
    ids=["empty", "byte order mark", "blanks", "all of it", "numbers", "deep"],
)
def test_what_is_an_array_is_read(loaded: Loader, text: bytes, received: int) -> None:
    result = loaded.sync(text, dry_run=True)

    assert result.error is None
    assert result.facts["records_received"] == received


BOMB = gzip.compress(b"[" + b" " * 50_000_000 + b"]")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(body=b"[" + b" " * LIMIT + b"]"), "body_too_large"),
        (Answer(body=b"[" + b" " * LIMIT + b"]", chunked=True), "body_too_large"),
        (Answer(body=BOMB, headers={"Content-Encoding": "gzip"}), "body_too_large"),
        (Answer(body=zlib.compress(b" " * 50_000_000), headers={"Content-Encoding": "deflate"}), "body_too_large"),
        (Answer(body=b"[]", headers={"Content-Encoding": "br"}), "unknown_encoding"),
        (Answer(body=b'["\xff"]'), "not_utf8"),
        (Answer(body=b"<html>", headers={"Content-Type": "text/html"}), "not_json"),
        (Answer(body=b"{}"), "not_an_array"),
    ],
    ids=["size", "size-chunked", "gzip-bomb", "deflate-bomb", "encoding", "utf8", "json", "array"],
)
def test_a_refused_answer_is_not_asked_for_again_on_any_database(loader: Loader, answer: Answer, code: str) -> None:
    loader.load(GOOD)
    live, kept = stored.live(loader.database), stored.quarantined(loader.database)
    loader.config = msgspec.structs.replace(loader.config, http=Http(max_body_bytes=LIMIT))
    loader.server.script(answer)
    result = loader.sync_as_served()

    assert result.error is not None
    assert (result.error.exit_code, result.error.code) == (65, code)
    assert len(loader.server.requests) == 2
    assert stored.live(loader.database) == live
    assert stored.quarantined(loader.database) == kept
    row = stored.last_run(loader.database)
    assert (row["outcome"], row["error_code"], row["attempts"], row["numbers_added"]) == ("refused", code, 1, None)


def test_a_body_of_exactly_the_limit_is_no_larger(loader: Loader) -> None:
    text = body(GOOD)
    loader.config = msgspec.structs.replace(loader.config, http=Http(max_body_bytes=len(text)))

    assert loader.sync(text).outcome == "succeeded"
    assert loader.sync(text + b"\n").outcome == "refused"
