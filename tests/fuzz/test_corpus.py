"""Inputs that once broke something, or that stand at an edge of the contract, beside what must come of them."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.judge import depth, parse_body
from tests.fuzz.oracle import check, read

FOLDER = Path(__file__).parent / "corpus"
BODIES = sorted(FOLDER.glob("*.body"))
# Python's own parser, on which the judge stands, gives up somewhere beyond this many levels.
JUDGED_DEPTH = 900


@pytest.mark.parametrize("file", BODIES, ids=lambda file: file.stem)
def test_a_kept_body_comes_to_its_verdict(file: Path) -> None:
    body = file.read_bytes()
    assert found(body) == json.loads(file.with_suffix(".verdict.json").read_text())
    if body.count(b"[") < JUDGED_DEPTH:
        check(body)


def found(body: bytes) -> Any:
    """Return what becomes of a body, in the form of the verdict files."""
    snapshot = read(body)
    if snapshot is None:
        return {"refused": True}
    quarantined = Counter(rejection.number_id for rejection in snapshot.rejections)
    return {
        "received": snapshot.received,
        "loaded": sorted(snapshot.candidates),
        "outside_filter": snapshot.outside_filter,
        "quarantined": {"null" if number is None else str(number): count for number, count in quarantined.items()},
    }


def test_every_verdict_has_its_body() -> None:
    assert {file.name.partition(".")[0] for file in FOLDER.iterdir()} == {file.stem for file in BODIES}
    assert len(list(FOLDER.iterdir())) == 2 * len(BODIES)


def test_the_judge_counts_levels_as_the_corpus_names_them() -> None:
    assert depth(parse_body((FOLDER / "depth-64-is-loaded.body").read_bytes())[0]) == 64
