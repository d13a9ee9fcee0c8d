"""Compare a snapshot with what is live, and say what has to change."""

from collections.abc import Callable, Collection, Mapping, Set

from etl.records import Changes, NumberChange, NumberRecord, Snapshot, digest

_SUSPECTS_PER_SLICE = 100
"""They may be far apart in the body, and each brings its surroundings into memory."""


def compare(
    known: Mapping[bytes, int],
    snapshot: Snapshot,
    read_digests: Callable[[Collection[int]], Mapping[int, bytes | None]],
    read_live: Callable[[Collection[int]], Mapping[int, NumberRecord]],
) -> Changes:
    """Return the changes that turn the live numbers into the snapshot.

    `known` maps the fingerprint of each live number to its id. `read_digests` and `read_live` return the digests and
    the full records of some live ids; they are asked only for those that seem to differ.
    """
    candidates = snapshot.candidates
    live = frozenset(known.values())
    suspects = [identity for identity in candidates if identity in live]
    if suspects:
        digests = read_digests(suspects)
        suspects = [identity for identity in suspects if digests[identity] != candidates[identity].digest]
    missing = _missing(live, snapshot)
    before = read_live([*suspects, *missing]) if suspects or missing else {}
    changed, refreshed = [], []
    for position, identity in enumerate(suspects):
        if position % _SUSPECTS_PER_SLICE == 0:
            snapshot.let_go()
        candidate = candidates[identity]
        record = candidate.record()
        values = candidate.digest or digest(record)
        if record == before[identity]:
            refreshed.append((identity, candidate.fingerprint, values))
        else:
            changed.append(NumberChange(before[identity], record, candidate.fingerprint, values))
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
    if snapshot.hides_ids or len(snapshot.recognised) == len(live):
        return []
    return sorted(live - snapshot.recognised - snapshot.candidates.keys() - snapshot.quarantined_ids)
