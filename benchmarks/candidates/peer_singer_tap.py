"""A minimal Singer tap, to be piped into `target-postgres`: two streams, redirects with the id of their number.

Usage: peer_singer_tap.py BASE_URL | target-postgres --config FILE

It replicates the full table, as the source allows nothing else, and says so with versions, so that the target can
delete what a snapshot no longer holds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from typing import Any

import requests
from columns import BOOLEANS, INTEGERS, PATH, REDIRECTS, TEXTS, WORDS

Record = dict[str, Any]

NUMBER_PROPERTIES = {
    "id": {"type": "integer"},
    **{name: {"type": ["null", "string"]} for name in (*WORDS, *TEXTS)},
    **{name: {"type": ["null", "integer"]} for name in INTEGERS},
    **{name: {"type": ["null", "boolean"]} for name in BOOLEANS},
}
REDIRECT_PROPERTIES = {
    "virtual_number_id": {"type": "integer"},
    "id": {"type": "integer"},
    "number": {"type": "string"},
}


def say(message: Record) -> None:
    sys.stdout.write(json.dumps(message, ensure_ascii=False) + "\n")


def emit(stream: str, properties: Record, keys: list[str], records: Iterable[Record]) -> None:
    """Write one stream: its schema, its records, and that they are all there is."""
    version = time.time_ns() // 1_000_000
    say({"type": "SCHEMA", "stream": stream, "schema": {"properties": properties}, "key_properties": keys})
    for record in records:
        say({"type": "RECORD", "stream": stream, "record": record, "version": version})
    say({"type": "ACTIVATE_VERSION", "stream": stream, "version": version})


def main() -> None:
    numbers = requests.get(sys.argv[1] + PATH, headers={"Authorization": "token"}, timeout=60).json()
    redirects = [
        {"virtual_number_id": number["id"], **redirect} for number in numbers for redirect in number.pop(REDIRECTS)
    ]
    emit("virtual_numbers", NUMBER_PROPERTIES, ["id"], numbers)
    emit("redirect_numbers", REDIRECT_PROPERTIES, ["virtual_number_id", "id"], redirects)
    say({"type": "STATE", "value": {}})


if __name__ == "__main__":
    main()
