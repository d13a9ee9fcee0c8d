"""The numbers of one vendor account, as its API would list them, and how they change over time."""

import json
import marshal
import zlib
from collections.abc import Iterable
from typing import Self

from etl.sandbox.filters import OUTGOING, Filter
from etl.sandbox.generator import CITY, MOBILE, NumberGenerator, NumberRecord

_INSIDE_PER_OUTSIDE = 8
_MEMBERSHIP_SHARE = 0.3  # of the changes of a churn: numbers that come or go
_OUTGOING = Filter(OUTGOING)


class Account:
    """One account's numbers: dicts with the twenty fields of the API's answer.

    `seed` and `app_id` are for the numbers that `churn()` adds. Edit `records` freely, but not while a request is being
    answered.
    """

    _records: list[NumberRecord]
    _size: int  # how many numbers should be inside the filter, whatever changes
    _handed_out: bool  # whether others hold the records and may edit them

    def __init__(self, records: Iterable[NumberRecord] = (), *, seed: int = 1, app_id: int = 1200054) -> None:
        self._generator = NumberGenerator(seed, app_id)
        self._cached: tuple[object, bytes] | None = None
        self._revision = 0
        self._replace(list(records))

    @classmethod
    def generate(cls, numbers: int, seed: int = 1, app_id: int = 1200054) -> Self:
        """Generate an account; the same arguments give the same numbers on every version of Python.

        `numbers` is how many may be used in outgoing scenarios, that is, pass the filter of Data API, «Получить список
        номеров для исходящих сценариев». One for every eight of them comes in addition that does not pass.
        """
        account = cls(seed=seed, app_id=app_id)
        records: list[NumberRecord] = []
        for position in range(1, numbers + 1):
            records.append(account._generator.inside())
            if position % _INSIDE_PER_OUTSIDE == _INSIDE_PER_OUTSIDE // 2:
                records.append(account._generator.outside())
        account._replace(records)
        account._handed_out = False
        return account

    @property
    def records(self) -> list[NumberRecord]:
        """All numbers of the account, those outside the filter included."""
        self._handed_out = True
        return self._records

    @records.setter
    def records(self, records: list[NumberRecord]) -> None:
        self._replace(records)

    def select(self, filters: Iterable[tuple[str, str]]) -> list[NumberRecord]:
        """List the numbers that pass a filter, given as the (name, value) pairs of a query string.

        `field=value`, repeated, means any of the values; `field__ne=value` excludes; booleans are `true` and `false`,
        no value is `null`. Raises `FilterError` for a field that does not exist.
        """
        self._handed_out = True
        return self._select(filters)

    def outgoing(self) -> list[NumberRecord]:
        """List the numbers that may be used in outgoing scenarios: what the vendor's page asks for."""
        return self.select(OUTGOING)

    def json(self, filters: Iterable[tuple[str, str]]) -> bytes:
        """Write what `select()` lists as UTF-8 JSON; the text is kept until the numbers or the filter change."""
        conditions = tuple(filters)
        key = (conditions, self._fingerprint())
        if self._cached is None or self._cached[0] != key:
            text = json.dumps(self._select(conditions), ensure_ascii=False, separators=(",", ":"))
            self._cached = (key, text.encode())
        return self._cached[1]

    def churn(self, fraction: float) -> None:
        """Change about this share (0 to 1) of the numbers for outgoing scenarios, at least one unless it is 0.

        Comments, scenarios and redirects change; numbers are frozen, lose their purpose, come back, are released or
        appear. The account stays about as large as it was. Changed numbers are new dicts: lists taken before keep the
        old ones.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"a fraction is between 0 and 1, not {fraction}")
        if not fraction or not (self._records or self._size):
            return
        self._generator.reserve(self._records)
        churn = _Churn(self._records, self._generator, self._size)
        self._records = churn.apply(fraction)
        self._revision += 1

    def _replace(self, records: list[NumberRecord]) -> None:
        self._records = records
        self._size = sum(map(_OUTGOING.accepts, records))
        self._revision += 1
        self._handed_out = True

    def _select(self, filters: Iterable[tuple[str, str]]) -> list[NumberRecord]:
        accepts = Filter(filters).accepts
        return [record for record in self._records if accepts(record)]

    def _fingerprint(self) -> tuple[int, int]:
        """Return a value that differs when the records do.

        Whoever was handed the records may have edited them in place, so these are read through every time; that is
        cheap beside JSON, yet not free for 100,000 numbers, and needless for records nobody else has seen.
        """
        # Format 2 of marshal is the last whose output depends on values alone, not on which objects are shared.
        return self._revision, zlib.crc32(marshal.dumps(self._records, 2)) if self._handed_out else 0


class _Churn:
    """One round of changes to an account's records."""

    def __init__(self, records: list[NumberRecord], generator: NumberGenerator, size: int) -> None:
        self._records = list(records)
        self._generator = generator
        self._size = size
        self._inside = [position for position, record in enumerate(records) if _OUTGOING.accepts(record)]
        self._returnable = [
            position
            for position, record in enumerate(records)
            if record["type"] in {MOBILE, CITY} and not _OUTGOING.accepts(record)
        ]
        self._now_inside = len(self._inside)
        self._now_outside = len(records) - len(self._inside)
        self._released: set[int] = set()

    def apply(self, fraction: float) -> list[NumberRecord]:
        """Make the changes; returns all records."""
        if not self._inside:
            self._arrive()
        count = max(1, round(fraction * len(self._inside)))
        for position in self._generator.sample(self._inside, min(count, len(self._inside))):
            if not self._generator.chance(_MEMBERSHIP_SHARE):
                self._records[position] = self._generator.edited(self._records[position])
            elif self._is_too_large():
                self._depart(position)
            else:
                self._arrive()
        return [record for position, record in enumerate(self._records) if position not in self._released]

    def _is_too_large(self) -> bool:
        """Tell whether a number should rather go than come, so that the account keeps its size."""
        return self._now_inside > self._size or (self._now_inside == self._size and self._generator.chance(0.5))

    def _many_outside(self) -> bool:
        """Draw whether to empty the pool outside the filter rather than to fill it, so that it keeps its size too."""
        full = self._now_outside * _INSIDE_PER_OUTSIDE > self._size
        return self._generator.chance(0.75 if full else 0.25)

    def _depart(self, position: int) -> None:
        """Take a number out of the filter, or out of the account."""
        self._now_inside -= 1
        if self._many_outside():
            self._released.add(position)
        else:
            self._records[position] = self._generator.withdrawn(self._records[position])
            self._now_outside += 1

    def _arrive(self) -> None:
        """Bring a number back into the filter, or a new one into the account."""
        self._now_inside += 1
        if self._returnable and self._many_outside():
            position = self._returnable.pop(self._generator.below(len(self._returnable)))
            self._records[position] = self._generator.restored(self._records[position])
            self._now_outside -= 1
        else:
            self._records.append(self._generator.inside())
