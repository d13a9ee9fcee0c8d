"""Fixtures: databases of every kind, each test with its own.

`database` and `migrated_database` run a test on SQLite, PostgreSQL and MariaDB; `sqlite_database`,
`postgresql_database` and `mariadb_database` are the same for one kind. Under Hypothesis, each example takes another
database with `with database.fresh() as …`. Servers start when a test first asks for one, serve all processes of the run
and end with it. Where one cannot be had, tests that need it are skipped, or fail when `CI` is set or
`--require-databases` is given.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

import etl
from tests.databases import SERVER_TYPES, Database, Databases, ServerDatabases, SQLiteDatabases, shared_server
from tests.databases_servers import ServerHome, ServerUnavailableError, private_server
from tests.loading import Loader, loading

KINDS = ["sqlite", *SERVER_TYPES]
HOME = pytest.StashKey[ServerHome]()
SHARED_FOLDER = "etl_shared_folder"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-databases", action="store_true", help="fail instead of skipping where a database server is missing"
    )


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.stash[HOME] = ServerHome()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Tell a worker of pytest-xdist where the servers are to be."""
    node.workerinput[SHARED_FOLDER] = str(node.config.stash[HOME].folder)  # type: ignore[attr-defined] # untyped xdist


def pytest_unconfigure(config: pytest.Config) -> None:
    if home := config.stash.get(HOME, None):
        home.close()


def databases_required(*, option: bool, environment: Mapping[str, str]) -> bool:
    return option or environment.get("CI", "").lower() in {"1", "true"}


@contextmanager
def server_expected(*, required: bool) -> Iterator[None]:
    """Skip or fail where a server cannot be had."""
    try:
        yield
    except ServerUnavailableError as error:
        if required:
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


def create_schema(url: str) -> None:
    """Create the product's schema the way an operator does, away from any configuration of the developer's own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ETL_")}
    environment |= {"ETL_DATABASE_URL": url, "PYTHONPATH": str(Path(etl.__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, "-m", "etl", "db", "upgrade"],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        pytest.fail(f"etl db upgrade: exit {result.returncode}: {result.stderr[-2000:]}", pytrace=False)


@pytest.fixture(scope="session")
def require_databases(pytestconfig: pytest.Config) -> bool:
    return databases_required(option=pytestconfig.getoption("--require-databases"), environment=os.environ)


@pytest.fixture(scope="session")
def shared_folder(pytestconfig: pytest.Config) -> Path:
    if home := pytestconfig.stash.get(HOME, None):
        return home.folder
    return Path(pytestconfig.workerinput[SHARED_FOLDER])  # type: ignore[attr-defined] # untyped xdist


@pytest.fixture(scope="session")
def sqlite_databases(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Databases:
    return SQLiteDatabases(shared_folder, create_schema, tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def postgresql_databases(shared_folder: Path, *, require_databases: bool) -> Iterator[Databases]:
    yield from databases_of_shared_server("postgresql", shared_folder, required=require_databases)


@pytest.fixture(scope="session")
def mariadb_databases(shared_folder: Path, *, require_databases: bool) -> Iterator[Databases]:
    yield from databases_of_shared_server("mariadb", shared_folder, required=require_databases)


def databases_of_shared_server(kind: str, shared_folder: Path, *, required: bool) -> Iterator[Databases]:
    with server_expected(required=required):
        server = shared_server(SERVER_TYPES[kind], shared_folder)
    yield ServerDatabases(shared_folder, create_schema, server)
    server.disconnect()


@pytest.fixture(params=KINDS)
def databases(request: pytest.FixtureRequest) -> Databases:
    """Run a test on every kind of database; `databases.empty()` and `databases.migrated()` make as many as it wants."""
    made: Databases = request.getfixturevalue(f"{request.param}_databases")
    return made


@pytest.fixture
def database(databases: Databases) -> Iterator[Database]:
    """Give an empty database of every kind."""
    with databases.empty() as made:
        yield made


@pytest.fixture
def migrated_database(databases: Databases) -> Iterator[Database]:
    """Give a database of every kind with the product's schema."""
    with databases.migrated() as made:
        yield made


@pytest.fixture
def loader(migrated_database: Database) -> Iterator[Loader]:
    """Give a source over HTTP and a database of every kind to load it into."""
    with loading(migrated_database) as made:
        yield made


@pytest.fixture
def sqlite_database(sqlite_databases: Databases) -> Iterator[Database]:
    with sqlite_databases.empty() as made:
        yield made


@pytest.fixture
def postgresql_database(postgresql_databases: Databases) -> Iterator[Database]:
    with postgresql_databases.empty() as made:
        yield made


@pytest.fixture
def mariadb_database(mariadb_databases: Databases) -> Iterator[Database]:
    with mariadb_databases.empty() as made:
        yield made


@pytest.fixture(params=list(SERVER_TYPES))
def private_database(request: pytest.FixtureRequest, *, require_databases: bool) -> Iterator[Database]:
    """Give an empty database on a server of the test's own, to stop, kill and start again: `private_database.server`.

    `@pytest.mark.parametrize("private_database", ["postgresql"], indirect=True)` asks for one kind alone.
    """
    with server_expected(required=require_databases), private_server(SERVER_TYPES[request.param]) as server:
        yield ServerDatabases(server.folder, create_schema, server).create()
