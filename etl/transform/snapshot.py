"""Judge every record of a body: recognised, a candidate for loading, outside the filter, or quarantined.

The order of the rules is the contract's: a record is validated, then duplicates are judged, then the filter.
"""

from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b
from itertools import chain

import msgspec

from etl.records import Candidate, NumberRecord, Rejection, Snapshot, digest, fingerprint
from etl.transform.decode import RepeatedRedirectError, decode
from etl.transform.split import Elements, split, text_of
from etl.transform.validate import BadRecord, validate

_DOCUMENTED_PURPOSES = ("company", "employee")
_LOADED_TYPES = ("def", "abc")


def read_snapshot(body: memoryview, known: Mapping[bytes, int]) -> Snapshot:
    """Split a whole response body and judge its records."""
    return judge_records(split(body), known)


def judge_records(elements: Elements, known: Mapping[bytes, int]) -> Snapshot:
    """Judge the records of a body.

    `known` maps the fingerprint of each live record to its id: text that is known needs no second look.
    Raises DataRefusedError when the body is not valid UTF-8.
    """
    reader = _Reader(elements, known)
    reader.read()
    reader.settle_duplicates()
    return reader.snapshot()


def decode_strictly(text: msgspec.Raw) -> NumberRecord:
    """Decode a record by the contract's rules one by one; raises ValueError when it breaks one."""
    record = validate(text_of(memoryview(text)))
    if isinstance(record, BadRecord):
        raise ValueError(record.reason_code)  # noqa: TRY004 - the value breaks a rule; its Python type is as it should be
    return record


class _Reader:
    """What is known of a body's records while they are judged."""

    def __init__(self, elements: Elements, known: Mapping[bytes, int]) -> None:
        self._elements = elements
        self._known = known
        self._texts = elements.texts
        self._decode_fast = decode_strictly if elements.may_hold_nul else decode
        self._first: dict[int, int] = {}
        """Position of the first good record of each id."""
        self._others: dict[int, list[int]] = {}
        """Positions of further good records of an id."""
        self._candidates: dict[int, Candidate] = {}
        self._outside: set[int] = set()
        self._unknown_purposes: set[int] = set()
        self._bad: list[tuple[int, BadRecord]] = []

    def read(self) -> None:
        known, first = self._known, self._first
        for position, text in enumerate(chain.from_iterable(self._elements.slices())):
            mark = fingerprint(text)
            identity = known.get(mark)
            if identity is None:
                self._judge(position, text, mark)
            elif identity not in first:
                first[identity] = position
            else:
                self._others.setdefault(identity, []).append(position)

    def _judge(self, position: int, text: msgspec.Raw, mark: bytes) -> None:
        decoder = self._decode_fast
        try:
            record = decoder(text)
        except (msgspec.DecodeError, RecursionError, RepeatedRedirectError, ValueError):
            decoder = decode_strictly
            verdict = validate(text_of(memoryview(text)))
            if isinstance(verdict, BadRecord):
                self._bad.append((position, verdict))
                return
            record = verdict
        if record.id in self._first:
            self._others.setdefault(record.id, []).append(position)
            return
        self._first[record.id] = position
        if _in_filter(record):
            values = digest(record) if self._known else None
            self._candidates[record.id] = Candidate(text, mark, values, len(record.redirects), decoder)
            if record.purpose not in _DOCUMENTED_PURPOSES:
                self._unknown_purposes.add(record.id)
        else:
            self._outside.add(record.id)

    def settle_duplicates(self) -> None:
        """Quarantine all good records of an id that contradict each other or stand beside a bad one."""
        spoilt = {verdict.number_id for _, verdict in self._bad if verdict.number_id is not None}
        for identity in self._others.keys() | (spoilt & self._first.keys()):
            positions = [self._first[identity], *self._others.get(identity, ())]
            distinct = {digest(decode_strictly(self._texts[position])): position for position in reversed(positions)}
            if len(distinct) > 1 or identity in spoilt:
                self._drop(identity)
                reason = "another record of the snapshot has the same id and other values"
                # Known again by its values: which of several spellings comes first is no difference.
                self._bad.extend(
                    (position, BadRecord(identity, "duplicate_id", reason, values))
                    for values, position in distinct.items()
                )

    def _drop(self, identity: int) -> None:
        del self._first[identity]
        self._candidates.pop(identity, None)
        self._outside.discard(identity)
        self._unknown_purposes.discard(identity)

    def _text(self, position: int) -> str:
        return text_of(memoryview(self._texts[position]))

    def snapshot(self) -> Snapshot:
        decided = self._candidates.keys() | self._outside
        return Snapshot(
            received=len(self._texts),
            recognised=self._first.keys() - decided if decided else self._first.keys(),
            candidates=self._candidates,
            outside_filter=len(self._outside),
            unknown_purposes=len(self._unknown_purposes),
            rejections=self._rejections(),
            let_go=self._elements.let_go,
        )

    def _rejections(self) -> list[Rejection]:
        rejections = []
        met: Counter[tuple[int | None, bytes]] = Counter()
        for position, verdict in sorted(self._bad, key=lambda item: item[0]):
            occurrence = met[verdict.number_id, verdict.identity]
            met[verdict.number_id, verdict.identity] += 1
            # Identical records with one id count once; records without a readable id may well be different numbers.
            if occurrence and verdict.number_id is not None:
                continue
            rejections.append(
                Rejection(
                    position=position,
                    number_id=verdict.number_id,
                    reason_code=verdict.reason_code,
                    reason=verdict.reason,
                    record=self._text(position),
                    identity=_nth(verdict.identity, occurrence),
                )
            )
        return rejections


def _nth(identity: bytes, occurrence: int) -> bytes:
    if not occurrence:
        return identity
    return blake2b(identity + occurrence.to_bytes(8, "big"), digest_size=16).digest()


def _in_filter(record: NumberRecord) -> bool:
    """Whether the request's own filter admits the record, whatever made the source send it."""
    return record.state == "active" and record.type in _LOADED_TYPES and record.purpose != "not_specified"
