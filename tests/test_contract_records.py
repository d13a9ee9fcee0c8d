"""Which records are loaded and which are quarantined: the contract's section 5, rules 3 to 6."""

import json

import pytest

from etl.events import Action, Level
from tests import stored
from tests.loading import Loader
from tests.snapshots import SCALARS, record
from tests.vectors import VENDOR_SAMPLE, Vector, read_vectors

VECTORS = read_vectors()
REASON_CODES = {
    "duplicate_id",
    "duplicate_redirect",
    "empty_number",
    "lone_surrogate",
    "missing_field",
    "not_an_object",
    "nul_character",
    "out_of_range",
    "too_deep",
    "wrong_type",
}


def whole(elements: list[str]) -> bytes:
    return f"[{','.join(elements)}]".encode()


@pytest.mark.parametrize("vector", VECTORS, ids=[vector.name for vector in VECTORS])
def test_a_record_is_loaded_quarantined_or_outside_and_the_same_in_any_order(loader: Loader, vector: Vector) -> None:
    if vector.before:
        loader.load(whole(vector.before))
    run = loader.load(whole(vector.body))

    live = stored.live(loader.database)
    assert live.keys() == vector.loaded.keys()
    seen = {identity: {name: live[identity][name] for name in fields} for identity, fields in vector.loaded.items()}
    assert seen == vector.loaded
    assert stored.rejections(loader.database) == vector.quarantined
    kept = [row["record"] for row in stored.quarantined(loader.database)]
    assert kept == [vector.body[position] for position, _, _ in vector.quarantined]
    logged = stored.last_run(loader.database)
    assert logged["records_received"] == len(vector.body)
    assert logged["records_quarantined"] == len(vector.quarantined)
    assert logged["records_outside_filter"] == vector.outside
    assert {row["valid_from_run"] for row in stored.quarantined(loader.database)} <= {run}

    before = stored.dump(loader.database)
    loader.load(whole(vector.body[::-1]))
    after = stored.dump(loader.database)
    assert len(after.pop("sync_runs")) == len(before.pop("sync_runs")) + 1
    assert after == before


def test_the_files_hold_a_record_for_every_reason_there_is() -> None:
    assert {code for vector in VECTORS for _, _, code in vector.quarantined} == REASON_CODES


def test_the_sample_of_the_vendors_page_is_loaded_with_all_twenty_fields(loader: Loader) -> None:
    loader.load(VENDOR_SAMPLE.read_bytes())
    [sample] = json.loads(VENDOR_SAMPLE.read_text(encoding="utf-8"))
    assert len(sample) == 20
    assert sample.keys() == {*SCALARS, "from_redirect_numbers"}
    expected = {name: sample[name] for name in SCALARS} | {
        "extra": None,
        "redirects": {
            678: {"number": "78009966666", "extra": None},
            249: {"number": "74994088157", "extra": None},
        },
    }
    assert stored.live(loader.database) == {250: expected}
    assert stored.quarantined(loader.database) == []


@pytest.mark.parametrize("depth", [1_000, 20_000])
def test_nesting_that_no_parser_follows_spoils_one_record(loader: Loader, depth: int) -> None:
    deep = f'{{"unknown": {"[" * depth}{"]" * depth}, "id": 2, "number": "7", "from_redirect_numbers": []}}'
    loader.load(whole([json.dumps(record(1)), deep, json.dumps(record(3))]))
    assert stored.rejections(loader.database) == [(1, 2, "too_deep")]
    assert stored.live(loader.database).keys() == {1, 3}
    assert stored.quarantined(loader.database)[0]["record"] == deep


def test_text_of_any_length_is_stored(loader: Loader) -> None:
    comment = "Ж" * 300_000
    loader.load([record(1, comment=comment), record(2) | {"unknown": comment}])
    live = stored.live(loader.database)
    assert live[1]["comment"] == comment
    assert live[2]["extra"] == {"unknown": comment}


def test_an_integer_of_thousands_of_digits_is_bad_as_a_value_and_kept_as_an_unknown_field(loader: Loader) -> None:
    digits = "7" * 20_000
    texts = [json.dumps(record(identity))[:-1] for identity in (1, 2)]
    loader.load(whole([f'{texts[0]}, "scenario_id": {digits}}}', f'{texts[1]}, "unknown": {digits}}}']))
    assert stored.rejections(loader.database) == [(0, 1, "out_of_range")]
    assert stored.live(loader.database)[2]["extra"] == {"unknown": digits}


def test_unknown_purposes_are_told_once_a_run(loader: Loader) -> None:
    loader.load([record(1, purpose="robot"), record(2, purpose="robots"), record(3, purpose="company")])
    [event] = loader.told(Action.UNKNOWN_PURPOSE)
    assert event.level is Level.WARNING
    assert event.details == {"records": 2}


def test_records_outside_the_filter_are_told_once_a_run(loader: Loader) -> None:
    loader.load([record(1, state="freeze"), record(2, type="toll_free"), record(3)])
    [event] = loader.told(Action.OUTSIDE_FILTER)
    assert event.level is Level.WARNING
    assert event.details == {"records": 2}


def test_no_event_of_a_usual_run_warns(loader: Loader) -> None:
    loader.load([record(1, purpose="company"), record(2, type="abc")])
    assert [event for event in loader.events if event.level in (Level.WARNING, Level.ERROR)] == []


def test_the_reason_repeats_nothing_of_the_record(loader: Loader) -> None:
    secret = "79998887766"
    loader.load(
        [
            record(1, number=secret, comment=secret) | {"scenario_id": secret},
            record(2, number=secret, comment=secret) | {"id": secret},
            record(3, {4: secret}, number=""),
            record(5, comment=secret),
            record(5, comment=f"{secret}0"),
        ]
    )
    rows = stored.quarantined(loader.database)
    assert len(rows) == 5
    assert not [row["reason"] for row in rows if secret in row["reason"]]
    assert secret not in repr(loader.events)
