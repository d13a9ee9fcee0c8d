"""Nasty inputs and what must come of them, one file each in `tests/records`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).with_name("records")
VENDOR_SAMPLE = RECORDS / "vendor_sample.json"
"""The sample response of the vendor's page «Получить список номеров для исходящих сценариев», byte for byte."""

_decoder = json.JSONDecoder()


@dataclass(frozen=True)
class Vector:
    """A body that is served, perhaps after another one, and what must be in the tables then.

    The bodies are text as it stands in the file: numbers, escapes and keys that come twice would not outlive a parser.
    """

    name: str
    before: list[str]
    """Texts of the records that were loaded first; empty where the source is new."""
    body: list[str]
    loaded: dict[int, dict[str, Any]]
    """All live numbers afterwards, with those of their fields that matter here; numbers in `extra` as text."""
    quarantined: list[tuple[int, int | None, str]]
    """Position, id and reason code."""
    outside: int


def read_vectors() -> list[Vector]:
    """Return all vectors, by name."""
    return [_read(file) for file in sorted(RECORDS.glob("*.json")) if file != VENDOR_SAMPLE]


def _read(file: Path) -> Vector:
    text = file.read_text(encoding="utf-8")
    document = json.loads(text)
    exact = json.loads(text, parse_int=str, parse_float=str)
    loaded = {int(identity): fields for identity, fields in document["loaded"].items()}
    for identity, fields in loaded.items():
        spelled = exact["loaded"][str(identity)]
        if "extra" in fields:
            fields["extra"] = spelled["extra"]
        if "redirects" in fields:
            fields["redirects"] = {
                int(key): {"number": values["number"], "extra": spelled["redirects"][key]["extra"]}
                for key, values in fields["redirects"].items()
            }
    return Vector(
        name=file.stem,
        before=_elements(text, "before") if "before" in document else [],
        body=_elements(text, "body"),
        loaded=loaded,
        quarantined=[tuple(row) for row in document["quarantined"]],
        outside=document["outside"],
    )


def _elements(text: str, key: str) -> list[str]:
    """Cut the array under a key of the file into the texts of its elements."""
    position = text.index(f'\n  "{key}": [') + len(f'\n  "{key}": [')
    found: list[str] = []
    while True:
        position = _skip(text, position, " \n,")
        if text[position] == "]":
            return found
        end = _decoder.raw_decode(text, position)[1]
        found.append(text[position:end])
        position = end


def _skip(text: str, position: int, blanks: str) -> int:
    while text[position] in blanks:
        position += 1
    return position
