"""Small snapshots, and what must hold of a database that has seen them: the model the fault tests compare with."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etl.records import NUMBER_FIELDS
from etl.sandbox import SandboxServer
from tests.databases import Database
from tests.faults.jobs import ForkedJob, Outcome, write_config

Record = dict[str, Any]
Snapshot = Sequence[Record]
Rows = dict[int, tuple[Any, ...]]

SCALARS = ("id", *(name for name in NUMBER_FIELDS if name not in ("id", "extra")))
BUSINESS_TABLES = (
    "virtual_numbers",
    "redirect_numbers",
    "virtual_numbers_history",
    "redirect_numbers_history",
    "quarantined_records",
)


def record(identity: int, **changes: Any) -> Record:
    """Return a good record of the vendor's."""
    return {
        "id": identity,
        "number": str(79_200_000_000 + identity),
        "comment": None,
        "type": "def",
        "purpose": "company",
        "scenario_id": None,
        "group_scenario_id": None,
        "group_id": 7,
        "is_scenario_active": True,
        "is_group_scenario_active": None,
        "state": "active",
        "reason": None,
        "from_redirect_numbers": [],
        "employee_id": None,
        "dgn_number": None,
        "redirect_number": None,
        "region_name": "Брянская область",
        "sip_uri": None,
        "nc_type": "custom",
        "app_id": 1200054,
        **changes,
    }


def generation(number: int, size: int = 30) -> list[Record]:
    """Return the snapshot of a generation: from one to the next, numbers come, go and return, and about half change."""
    return [
        record(
            identity,
            number=str(79_200_000_000 + (identity + number) // 2 % size),
            comment=f"заметка {(identity + number) // 3}" if identity % 5 else None,
            from_redirect_numbers=[
                {"id": 1_000_000 + (identity * 3 + place + number // 2) % 50, "number": f"7495{place}{number // 4}"}
                for place in range((identity + number // 3) % 4)
            ],
        )
        for identity in range(1, size + 1)
        if (identity + number) % 7
    ]


def body(snapshot: Snapshot) -> bytes:
    return json.dumps(snapshot, ensure_ascii=False).encode()


def expected(snapshot: Snapshot) -> Rows:
    """Return what is live after a snapshot: by id, the scalar fields and the set of redirects."""
    return {
        item["id"]: (
            *(item.get(name) for name in SCALARS),
            frozenset((child["id"], child["number"]) for child in item["from_redirect_numbers"] or ()),
        )
        for item in snapshot
    }


def _rows(database: Database, numbers: str, redirects: str, condition: str, **values: Any) -> Rows:
    columns = ", ".join(SCALARS)
    # In one transaction, or rather one statement each while nobody writes.
    children: dict[int, set[tuple[int, str]]] = {}
    for parent, identity, number in database.rows(
        f"SELECT virtual_number_id, id, number FROM {redirects} WHERE {condition}", **values
    ):
        children.setdefault(parent, set()).add((identity, number))
    found = database.rows(f"SELECT {columns} FROM {numbers} WHERE {condition}", **values)
    rows = {row[0]: (*row, frozenset(children.pop(row[0], ()))) for row in found}
    assert not children, f"redirects without their number: {sorted(children)}"
    assert len(rows) == len(found), "a number is there twice"
    return rows


def live(database: Database, source: str = "main") -> Rows:
    return _rows(database, "virtual_numbers", "redirect_numbers", "source = :source", source=source)


def as_of(database: Database, run: int, source: str = "main") -> Rows:
    """Return what was live after a run, as the contract says it is to be asked."""
    condition = "source = :source AND valid_from_run <= :run AND (valid_to_run IS NULL OR valid_to_run > :run)"
    return _rows(database, "virtual_numbers_timeline", "redirect_numbers_timeline", condition, source=source, run=run)


def business(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row that a run which comes to nothing must leave alone."""
    return {table: sorted(database.rows(f"SELECT * FROM {table}"), key=repr) for table in BUSINESS_TABLES}


def check_timelines(database: Database) -> None:
    """Check that no two versions of a row overlap and that none is empty, by runs."""
    for table, key in (
        ("virtual_numbers_timeline", "source, id"),
        ("redirect_numbers_timeline", "source, virtual_number_id, id"),
    ):
        ends: dict[tuple[Any, ...], Any] = {}
        width = key.count(",") + 1
        for row in database.rows(
            f"SELECT {key}, valid_from_run, valid_to_run FROM {table} ORDER BY {key}, valid_from_run"
        ):
            identity, (start, end) = row[:width], row[width:]
            if identity in ends:
                before = ends[identity]
                assert (before or start + 1) <= start, f"{table}: versions of {identity} overlap at {start}"
            assert end is None or end > start, f"{table}: a version of {identity} ends at {end}, before it begins"
            ends[identity] = end


def check_accepted(database: Database, accepted: Mapping[int, Snapshot], source: str = "main") -> None:
    """Check the live tables and the timelines against every snapshot that was accepted, by run."""
    check_timelines(database)
    succeeded = {
        run
        for (run,) in database.rows(
            "SELECT id FROM sync_runs WHERE source = :source AND outcome = 'succeeded'", source=source
        )
    }
    assert succeeded == set(accepted)
    for run, snapshot in accepted.items():
        assert as_of(database, run, source) == expected(snapshot), f"the timeline tells run {run} otherwise"
    if accepted:
        assert live(database, source) == expected(accepted[max(accepted)])


def runs(database: Database, source: str = "main") -> list[tuple[Any, ...]]:
    """Return id, outcome and error code of the source's runs in their order."""
    return database.rows(
        "SELECT id, outcome, error_code FROM sync_runs WHERE source = :source ORDER BY id", source=source
    )


class World:
    """A database that holds a first snapshot, and a job to be pointed at whatever harms it."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.old = generation(0)
        self.new = generation(1)
        self.accepted: dict[int, Snapshot] = {}
        self._load(self.old)
        self.before = business(database)

    def start(
        self,
        base_url: str,
        *arguments: str,
        database_url: str | None = None,
        http: Mapping[str, object] | None = None,
        **options: Any,
    ) -> ForkedJob:
        config = write_config(self.folder, database_url or self.database.url, {"main": base_url}, http=http)
        return ForkedJob(self.folder, "sync", "--json", "--config", str(config), *arguments, **options)

    def sync(self, base_url: str, *arguments: str, seconds: float = 30, **options: Any) -> Outcome:
        return self.start(base_url, *arguments, **options).wait(seconds)

    def load_file(self, content: bytes, *arguments: str, **options: Any) -> Outcome:
        """Load a body without HTTP."""
        path = self.folder / "body.json"
        path.write_bytes(content)
        return self.sync("http://127.0.0.1:9", "--from-file", str(path), "--source", "main", *arguments, **options)

    def _load(self, snapshot: Snapshot) -> None:
        outcome = self.load_file(body(snapshot))
        self.assert_accepted(outcome, snapshot)

    def assert_accepted(self, outcome: Outcome, snapshot: Snapshot) -> None:
        """Check that a run succeeded, and remember its snapshot."""
        assert outcome.code == 0, outcome.errors
        self.accepted[outcome.runs[0]["run_id"]] = snapshot

    def assert_unharmed(self, outcome: Outcome, code: int, error_code: str | None = None, how: str = "failed") -> None:
        """Check that a run ended with this code, left its row, and changed nothing else."""
        assert outcome.code == code, (outcome.code, outcome.output, outcome.errors)
        _check_one_line(outcome)
        if error_code is not None:
            last = runs(self.database)[-1]
            assert last[1:] == (how, error_code)
        assert business(self.database) == self.before

    def assert_recovers(self, *, patience: float = 0) -> None:
        """Check that the next run needs no cleaning up, and that all of history is right after it."""
        with SandboxServer() as server:
            server.serve_body(body(self.new))
            end = time.monotonic() + patience
            while True:
                outcome = self.sync(server.base_url)
                # The server needs a moment to notice that a client is dead; until then the lock is its.
                if outcome.code != 75 or time.monotonic() > end:
                    break
                time.sleep(0.1)
        self.assert_accepted(outcome, self.new)
        check_accepted(self.database, self.accepted)
        left = self.database.scalar("SELECT count(*) FROM sync_runs WHERE outcome = 'running'")
        assert left == 0


def _check_one_line(outcome: Outcome) -> None:
    if not outcome.output.strip():
        return
    for run in outcome.runs:
        message = run["error_message"]
        assert message is None or ("\n" not in message and len(message) < 500), message
