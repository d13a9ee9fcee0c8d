"""Response bodies for the benchmark: a first snapshot and the same with one per cent of its numbers changed.

The same size and seed give the same bytes on every machine, so runs can be compared. To look at a pair of bodies:

    python -m benchmarks.data 1000 /tmp/bodies
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 20_240_229
CHANGED_FRACTION = 0.01

REGIONS = ("Брянская область", "регион Москва", "Санкт-Петербург и Ленинградская область", "Республика Татарстан")
WORDS = (
    *("отдел", "продаж", "бухгалтерия", "склад", "офис", "директор", "приёмная", "доставка", "сервис", "поддержка"),
    *("запасной", "новый", "старый", "филиал", "линия", "горячая", "реклама", "сайт", "визитка", "кабинет", "этаж"),
    *("Ёлкин", "Петрова", "Сидоров"),
)
# Weights give two redirects per number on average, a third of the numbers far from it.
REDIRECT_COUNTS = (0, 1, 2, 3, 4)
REDIRECT_WEIGHTS = (1, 2, 4, 2, 1)

Record = dict[str, Any]


@dataclass(frozen=True)
class Bodies:
    """A pair of response bodies and what is in them."""

    first: Path
    changed: Path
    facts: dict[str, int]


class Generator:
    """Draws records; ids of numbers and redirects come from one sequence, as they do at the source."""

    def __init__(self, seed: int, first_id: int) -> None:
        self._random = random.Random(seed)
        self._last_id = first_id

    def _next_id(self) -> int:
        self._last_id += self._random.randint(1, 9)
        return self._last_id

    def _phone(self) -> str:
        return f"79{self._random.randrange(10**9):09d}"

    def _comment(self) -> str | None:
        words = self._random.choices(WORDS, k=self._random.randint(0, 6))
        return " ".join(words) or None

    def _redirect(self) -> Record:
        return {"id": self._next_id(), "number": self._phone()}

    def record(self) -> Record:
        """Return a new number with all twenty fields of the source's sample."""
        draw = self._random
        number = self._phone()
        city = draw.random() < 0.3
        employee = draw.random() < 0.4
        return {
            "id": self._next_id(),
            "number": number,
            "comment": self._comment(),
            "type": "abc" if city else "def",
            "purpose": "employee" if employee else "company",
            "scenario_id": None if employee else draw.randrange(10**6),
            "group_scenario_id": draw.randrange(10**5) if draw.random() < 0.2 else None,
            "group_id": draw.randrange(10**4) if draw.random() < 0.2 else None,
            "is_scenario_active": draw.random() < 0.5,
            "is_group_scenario_active": draw.choice((True, False, None)),
            "state": "active",
            "reason": None,
            "from_redirect_numbers": [
                self._redirect() for _ in range(draw.choices(REDIRECT_COUNTS, REDIRECT_WEIGHTS)[0])
            ],
            "employee_id": draw.randrange(10**6) if employee else None,
            "dgn_number": f"7495{draw.randrange(10**7):07d}" if city else None,
            "redirect_number": self._phone() if draw.random() < 0.1 else None,
            "region_name": draw.choice(REGIONS),
            "sip_uri": f"{number}@sip.example.invalid" if draw.random() < 0.1 else None,
            "nc_type": "custom+fmc" if draw.random() < 0.2 else "custom",
            "app_id": 1_200_054,
        }

    def with_changed_fields(self, record: Record) -> Record:
        """Return the record with another comment and scenario."""
        return record | {"comment": f"изменён: {self._comment()}", "scenario_id": self._random.randrange(10**6)}

    def with_changed_redirects(self, record: Record) -> Record:
        """Return the record with its first redirect replaced, or with one more where it has none."""
        return record | {"from_redirect_numbers": [self._redirect(), *record["from_redirect_numbers"][1:]]}


class BodyWriter:
    """Writes records as one compact JSON array, without holding them: a million numbers are half a gigabyte."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._separator = "["
        self.numbers = 0
        self.redirects = 0

    def write(self, record: Record) -> None:
        """Append one record."""
        self._file.write(self._separator)
        self._file.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")))
        self._separator = ","
        self.numbers += 1
        self.redirects += len(record["from_redirect_numbers"])

    def close(self) -> None:
        """End the array and the file."""
        self._file.write("]" if self.numbers else "[]")
        self._file.close()


def changes_of(size: int) -> dict[str, int]:
    """Split the changed numbers: four in ten other fields, three other redirects, the rest removed and added."""
    total = max(4, round(size * CHANGED_FRACTION))
    removed = added = max(1, total * 15 // 100)
    redirects = max(1, total * 3 // 10)
    return {"fields": total - removed - added - redirects, "redirects": redirects, "removed": removed, "added": added}


def changed_positions(size: int, changes: dict[str, int]) -> dict[int, str]:
    """Spread the changes evenly at random over the snapshot: position in the array to kind of change."""
    kinds = [kind for kind in ("fields", "redirects", "removed") for _ in range(changes[kind])]
    return dict(zip(random.Random(SEED).sample(range(size), len(kinds)), kinds, strict=True))


def changed_records(generator: Generator, record: Record, kind: str | None) -> Iterator[Record]:
    """Yield what the second snapshot holds in place of a record of the first: itself, its new version, or nothing."""
    if kind is None:
        yield record
    elif kind == "fields":
        yield generator.with_changed_fields(record)
    elif kind == "redirects":
        yield generator.with_changed_redirects(record)


def write_bodies(size: int, directory: Path) -> Bodies:
    """Write both bodies for a number of numbers and tell what is in them."""
    directory.mkdir(parents=True, exist_ok=True)
    first = BodyWriter(directory / f"first-{size}.json")
    changed = BodyWriter(directory / f"changed-{size}.json")
    changes = changes_of(size)
    positions = changed_positions(size, changes)
    generator = Generator(SEED, first_id=1_000_000)
    # Numbers and redirects that are new in the second snapshot have ids above all of the first.
    changer = Generator(SEED + 1, first_id=1_000_000_000)
    for position in range(size):
        record = generator.record()
        first.write(record)
        for other in changed_records(changer, record, positions.get(position)):
            changed.write(other)
    for _ in range(changes["added"]):
        changed.write(changer.record())
    first.close()
    changed.close()
    paths = (directory / f"first-{size}.json", directory / f"changed-{size}.json")
    facts = {
        "first_bytes": paths[0].stat().st_size,
        "first_numbers": first.numbers,
        "first_redirects": first.redirects,
        "changed_bytes": paths[1].stat().st_size,
        "changed_numbers": changed.numbers,
        "changed_redirects": changed.redirects,
        **{f"changes_{kind}": count for kind, count in changes.items()},
    }
    return Bodies(*paths, facts)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the two response bodies of one size.")
    parser.add_argument("size", type=int)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    print(json.dumps(write_bodies(arguments.size, arguments.directory).facts, indent=2))


if __name__ == "__main__":
    main()
