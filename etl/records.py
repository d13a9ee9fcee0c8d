"""The values that travel from the response body to the database: records, rejections and changes.

Nothing here does I/O. The source of all field facts is the vendor's page «Получить список номеров для исходящих
сценариев» of the Data API and its sample response.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from hashlib import blake2b
from typing import Annotated

import msgspec

from etl.errors import EtlError

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1

Identity = Annotated[int, msgspec.Meta(ge=1, le=INTEGER_MAX)]
Integer = Annotated[int, msgspec.Meta(ge=INTEGER_MIN, le=INTEGER_MAX)]
Number = Annotated[str, msgspec.Meta(min_length=1)]


class ExtraFields(str):
    """Canonical JSON text of an object that holds the fields this version does not know."""

    __slots__ = ()


# `extra` is ours, not the API's. Whatever key a body holds, the typed decoder cannot fill it: it has no way to make
# ExtraFields, nor UNSET, from JSON, and refuses; the slower validation then treats the key like any unknown one.
_NOT_ON_THE_WIRE = "\ue000extra"


class RedirectRecord(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A number that is redirected to a virtual number (перенаправленный номер)."""

    id: Identity
    number: Number
    extra: ExtraFields | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name=_NOT_ON_THE_WIRE)


class NumberRecord(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A virtual number as the API describes it, in the order of the page's sample response."""

    number: Number
    comment: str | None = None
    type: str | None = None
    purpose: str | None = None
    scenario_id: Integer | None = None
    group_scenario_id: Integer | None = None
    group_id: Integer | None = None
    is_scenario_active: bool | None = None
    is_group_scenario_active: bool | None = None
    id: Identity
    state: str | None = None
    reason: str | None = None
    from_redirect_numbers: list[RedirectRecord] | None
    """Sorted by `id`, each id once, never None: `normalise()` saw to that."""
    employee_id: Integer | None = None
    dgn_number: str | None = None
    region_name: str | None = None
    sip_uri: str | None = None
    nc_type: str | None = None
    redirect_number: str | None = None
    app_id: Integer | None = None
    extra: ExtraFields | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name=_NOT_ON_THE_WIRE)

    @property
    def redirects(self) -> list[RedirectRecord]:
        """The redirects; an empty list where the API sent null."""
        return self.from_redirect_numbers or []


REDIRECT_FIELDS = ("id", "number", "extra")
NUMBER_FIELDS = tuple(name for name in NumberRecord.__struct_fields__ if name != "from_redirect_numbers")

DIGEST_VERSION = b"\x01"
"""First byte of every digest. It grows when equal records would no longer have equal digests or would be stored
differently; rows with another version are then compared by value instead of being rewritten wholesale."""

_encode = msgspec.json.Encoder(enc_hook=str).encode


def fingerprint(text: bytes | msgspec.Raw) -> bytes:
    """Digest of a record's text exactly as received: 16 bytes, equal only for equal bytes."""
    return DIGEST_VERSION + blake2b(text, digest_size=15).digest()


def digest(record: NumberRecord) -> bytes:
    """Digest of a record's values: 16 bytes, whatever order its keys and redirects came in."""
    return DIGEST_VERSION + blake2b(_encode(record), digest_size=15).digest()


class Rejection(msgspec.Struct, frozen=True):
    """A record that breaks a rule of the contract, on its way into quarantine."""

    position: int
    """0-based, in the array."""
    number_id: int | None
    """None when no id can be read."""
    reason_code: str
    reason: str
    """What is wrong, without the record's values."""
    record: str
    """Its JSON text as received."""
    identity: bytes
    """Equal for the same bad record of another snapshot, in any order of its keys and redirects."""


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """An accepted record that is not known to be live as it is.

    It holds the record's text and decodes it on demand: a first load of a million numbers would otherwise keep a
    million decoded records in memory while it needs a few at a time.
    """

    text: msgspec.Raw
    fingerprint: bytes
    digest: bytes | None
    """None where nothing is live to compare it with: then it is made when the rows are, and not before."""
    redirect_count: int
    decode: Callable[[msgspec.Raw], NumberRecord]

    def record(self) -> NumberRecord:
        """Decode the record; its values are known to obey the contract."""
        return self.decode(self.text)


class Snapshot(msgspec.Struct, frozen=True):
    """What one complete answer of the API says, judged record by record."""

    received: int
    """Elements of the array."""
    recognised: Set[int]
    """Ids of records that came exactly as they were received when they became live."""
    candidates: Mapping[int, Candidate]
    """All other records that belong to the snapshot, by id."""
    outside_filter: int
    """Good records that the request's filter excludes: not part of the snapshot."""
    unknown_purposes: int
    """Records of the snapshot whose purpose is none that the vendor documents."""
    rejections: Sequence[Rejection]
    let_go: Callable[[], None] = lambda: None
    """Gives the memory that the body takes back to the system; what is read again comes back by itself."""

    @property
    def quarantined_ids(self) -> Set[int]:
        """Ids that keep their live version because their record cannot be trusted."""
        return {rejection.number_id for rejection in self.rejections if rejection.number_id is not None}

    @property
    def hides_ids(self) -> bool:
        """Whether some record's id could not be read: then any number may be among those, and none is removed."""
        return any(rejection.number_id is None for rejection in self.rejections)


class NumberChange(msgspec.Struct, frozen=True):
    """A live number whose record, or whose redirects, differ from the snapshot's."""

    before: NumberRecord
    after: NumberRecord
    fingerprint: bytes
    digest: bytes

    @property
    def number_differs(self) -> bool:
        """Whether the number itself changed, and not only its redirects."""
        return any(getattr(self.before, name) != getattr(self.after, name) for name in NUMBER_FIELDS)

    @property
    def redirects_added(self) -> list[RedirectRecord]:
        """Redirects that were not there before."""
        old = {redirect.id for redirect in self.before.redirects}
        return [redirect for redirect in self.after.redirects if redirect.id not in old]

    @property
    def redirects_changed(self) -> list[tuple[RedirectRecord, RedirectRecord]]:
        """Redirects of the same id with other values: before and after."""
        old = {redirect.id: redirect for redirect in self.before.redirects}
        pairs = ((old.get(redirect.id), redirect) for redirect in self.after.redirects)
        return [(before, after) for before, after in pairs if before is not None and before != after]

    @property
    def redirects_removed(self) -> list[RedirectRecord]:
        """Redirects that are there no longer."""
        new = {redirect.id for redirect in self.after.redirects}
        return [redirect for redirect in self.before.redirects if redirect.id not in new]


class Changes(msgspec.Struct, frozen=True):
    """All that has to happen to bring one source's live tables to one snapshot."""

    live_before: int
    """Live numbers before the run."""
    added: Sequence[Candidate] = ()
    changed: Sequence[NumberChange] = ()
    removed: Sequence[NumberRecord] = ()
    refreshed: Sequence[tuple[int, bytes, bytes]] = ()
    """Id, fingerprint and digest of numbers that are live already though their stored digest did not say so."""
    let_go: Callable[[], None] = lambda: None
    """To be called now and then while candidates are decoded: see Snapshot."""

    def counts(self) -> "Counts":
        """Count rows as `sync_runs` does."""
        numbers_changed = sum(change.number_differs for change in self.changed)
        return Counts(
            numbers_added=len(self.added),
            numbers_changed=numbers_changed,
            numbers_removed=len(self.removed),
            numbers_unchanged=self.live_before - numbers_changed - len(self.removed),
            redirects_added=sum(candidate.redirect_count for candidate in self.added)
            + sum(len(change.redirects_added) for change in self.changed),
            redirects_changed=sum(len(change.redirects_changed) for change in self.changed),
            redirects_removed=sum(len(record.redirects) for record in self.removed)
            + sum(len(change.redirects_removed) for change in self.changed),
        )


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that a run adds, changes, removes and leaves, under the names of `sync_runs`."""

    numbers_added: int
    numbers_changed: int
    numbers_removed: int
    numbers_unchanged: int
    redirects_added: int
    redirects_changed: int
    redirects_removed: int

    @property
    def any(self) -> bool:
        """Whether there is any change at all."""
        return any(
            (self.numbers_added, self.numbers_changed, self.numbers_removed,
             self.redirects_added, self.redirects_changed, self.redirects_removed)
        )  # fmt: skip


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt to bring a source's tables to a snapshot ended."""

    source: str
    outcome: str
    """succeeded, refused or failed."""
    run_id: int | None = None
    """None for a dry run, and for an attempt that ended before it could open a run."""
    error: EtlError | None = None
    counts: Counts | None = None
    """None when it ended before the snapshot was compared."""
    facts: Mapping[str, int | str | None] = msgspec.field(default_factory=dict)
    """What is known of the answer, under the names of `sync_runs`."""
    seconds: float = 0.0
    changes: Changes | None = None
    """Of a dry run only."""
    rejections: Sequence[Rejection] = ()
    """Of a dry run only."""

    @property
    def exit_code(self) -> int:
        """Exit code of a command that did this alone."""
        return self.error.exit_code if self.error else 0
