"""Compare a snapshot with what is live, and say what has to change."""

from collections.abc import Callable, Collection, Mapping, Set

from etl.records import Changes, NumberChange, NumberRecord, Snapshot, digest

_SUSPECTS_PER_SLICE = 100
"""They may be far apart in the body, and each brings its surroundings into memory."""


def compare(
    live: Set[int],
    snapshot: Snapshot,
    read_live: Callable[[Collection[int]], Mapping[int, NumberRecord]],
) -> Changes:
    """Return the changes that turn the live numbers into the snapshot.

    `live` are the ids of the live numbers. `read_live` returns the full records of some of them; it is asked only for
    those that seem to differ.
    """
    candidates = snapshot.candidates
    suspects = [identity for identity in candidates if identity in live]
    missing = _missing(live, snapshot)
    before = read_live([*suspects, *missing]) if suspects or missing else {}
    changed, refreshed = [], []
    for position, identity in enumerate(suspects):
        if position % _SUSPECTS_PER_SLICE == 0:
            snapshot.let_go()
        candidate = candidates[identity]
        record = candidate.record()
        if record == before[identity]:
            refreshed.append((identity, candidate.fingerprint, digest(record)))
        else:
            changed.append(NumberChange(before[identity], record, candidate.fingerprint, digest(record)))
    return Changes(
        live_before=len(live),
        # In the order of the body, so that it is read from its beginning to its end.
        added=[candidate for identity, candidate in candidates.items() if identity not in live],
        changed=changed,
        removed=[before[identity] for identity in missing],
        refreshed=refreshed,
        let_go=snapshot.let_go,
    )


def _missing(live: Set[int], snapshot: Snapshot) -> list[int]:
    if snapshot.hides_ids:
        return []
    return sorted(live - snapshot.recognised - snapshot.candidates.keys() - snapshot.quarantined_ids)
