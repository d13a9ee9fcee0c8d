"""One source, served over real HTTP from bodies that a test hands in, and loaded into a database in this process."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from etl.config import Config, Guard, Source
from etl.config import Database as DatabaseSection
from etl.events import Action, Event
from etl.pipeline import api_job, sync
from etl.records import RunResult
from etl.sandbox import SandboxServer
from tests.databases import Database
from tests.snapshots import body

TOKEN = "8f1c2d3e-token"
ANYTHING_GOES = Guard(max_removed_fraction=1.0, allow_empty=True, max_quarantined_fraction=1.0)
"""A guard that refuses nothing: for tests of other rules."""


@dataclass
class Loader:
    """Syncs one database from one server; `config` may be replaced."""

    database: Database
    server: SandboxServer
    config: Config
    events: list[Event] = field(default_factory=list)

    def sync(self, snapshot: bytes | Iterable[object], *, source: str = "main", **options: Any) -> RunResult:
        """Serve the snapshot, given as records or as a whole body, and bring the source to it."""
        self.server.serve_body(snapshot if isinstance(snapshot, bytes) else body(snapshot))
        return self.sync_as_served(source=source, **options)

    def sync_as_served(self, *, source: str = "main", dry_run: bool = False, **options: Any) -> RunResult:
        """Bring the source to whatever the server answers."""
        chosen = Source(name=source, base_url=self.server.base_url, token=TOKEN)
        make_job = partial(api_job, self.config, chosen, self.events.append, **options)
        return sync(make_job, chosen, self.events.append, dry_run=dry_run)

    def load(self, snapshot: bytes | Iterable[object], **options: Any) -> int:
        """Sync and return the run's id; the run must succeed."""
        result = self.sync(snapshot, **options)
        assert result.outcome == "succeeded", result.error
        assert result.run_id is not None
        return result.run_id

    def guarded(self, **settings: Any) -> None:
        """From now on, judge snapshots by these settings, the others being the defaults."""
        self.config = msgspec.structs.replace(self.config, guard=Guard(**settings))

    def told(self, action: Action) -> list[Event]:
        """Return the events of one kind."""
        return [event for event in self.events if event.action is action]


@contextmanager
def loading(database: Database, server: SandboxServer | None = None) -> Iterator[Loader]:
    """Make a loader whose guard lets everything pass, with a server of its own unless one is given."""
    config = Config(database=DatabaseSection(url=database.url), guard=ANYTHING_GOES)
    if server is not None:
        yield Loader(database, server, config)
        return
    with SandboxServer(token=TOKEN) as own:
        yield Loader(database, own, config)
