"""Decide whether a snapshot may be loaded without a person's word: plain arithmetic on what it would do."""

import msgspec

from etl.config import Guard
from etl.errors import DataRefusedError
from etl.records import Changes, Snapshot


class Refusal(msgspec.Struct, frozen=True):
    """Why a snapshot is not loaded."""

    code: str
    message: str

    def error(self) -> DataRefusedError:
        """Return the refusal as the error that a command ends with."""
        return DataRefusedError(self.message, code=self.code)


def judge(
    source: str, changes: Changes, snapshot: Snapshot, policy: Guard, accept_removals: int | None = None
) -> Refusal | None:
    """Return why the snapshot is refused, or None when it may be loaded.

    `accept_removals` is the number of removals a person has agreed to for this run.
    """
    return _too_many_bad(snapshot, policy) or _too_many_removed(source, changes, snapshot, policy, accept_removals)


def _too_many_bad(snapshot: Snapshot, policy: Guard) -> Refusal | None:
    bad = len(snapshot.rejections)
    # A quotient, not a product: 0.29 * 100 is less than 29.
    if not bad or bad / snapshot.received <= policy.max_quarantined_fraction:
        return None
    return Refusal(
        "too_many_bad_records",
        f"{bad} of {snapshot.received} records break the rules, more than guard.max_quarantined_fraction = "
        f"{policy.max_quarantined_fraction:g} allows; nothing was changed: see `etl quarantine` for the reasons",
    )


def _too_many_removed(
    source: str, changes: Changes, snapshot: Snapshot, policy: Guard, accept_removals: int | None
) -> Refusal | None:
    removed, live = len(changes.removed), changes.live_before
    if not removed or (accept_removals is not None and removed <= accept_removals):
        return None
    agreed = "" if accept_removals is None else f", more than the {accept_removals} accepted"
    way_out = f"if they are really gone, run `etl sync --source {source} --accept-removals {removed}`"
    if not snapshot.recognised and not snapshot.candidates and not policy.allow_empty:
        return Refusal(
            "empty_snapshot",
            f"the source sent no number at all while {live} are live{agreed}; nothing was changed: {way_out}",
        )
    if removed / live <= policy.max_removed_fraction:
        return None
    return Refusal(
        "too_many_removed",
        f"the snapshot would remove {removed} of {live} live numbers{agreed}, more than guard.max_removed_fraction = "
        f"{policy.max_removed_fraction:g} allows; nothing was changed: {way_out}",
    )
