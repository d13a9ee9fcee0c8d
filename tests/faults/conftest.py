"""A world for each test: a database with a first snapshot in it, on every kind of database."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.databases import Database
from tests.faults.world import World


@pytest.fixture
def world(migrated_database: Database, tmp_path: Path) -> World:
    return World(migrated_database, tmp_path)


@pytest.fixture
def world_of(tmp_path: Path) -> Callable[[Database], World]:
    """Make a world of a database that the test chose itself."""
    return lambda database: World(database, tmp_path)
