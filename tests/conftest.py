"""Fixtures: databases of every kind, each test with its own.

`database` and `migrated_database` run a test on SQLite, PostgreSQL and MariaDB; `sqlite_database`,
`postgresql_database` and `mariadb_database` are the same for one kind. Servers start when a test first asks for one,
serve all processes of the run and end with it. Where one cannot be had, tests that need it are skipped, or fail when
`CI` is set or `--require-databases` is given.
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
from tests.databases_servers import Server, ServerHome, ServerUnavailableError, private_server

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
def server_expected(config: pytest.Config) -> Iterator[None]:
    """Skip or fail where a server cannot be had."""
    try:
        yield
    except ServerUnavailableError as error:
        if databases_required(option=config.getoption("--require-databases"), environment=os.environ):
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
def shared_folder(pytestconfig: pytest.Config) -> Path:
    if home := pytestconfig.stash.get(HOME, None):
        return home.folder
    return Path(pytestconfig.workerinput[SHARED_FOLDER])  # type: ignore[attr-defined] # untyped xdist


@pytest.fixture(scope="session")
def sqlite_databases(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Databases:
    return SQLiteDatabases(shared_folder, create_schema, tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def postgresql_databases(pytestconfig: pytest.Config, shared_folder: Path) -> Iterator[Databases]:
    yield from databases_of_shared_server("postgresql", pytestconfig, shared_folder)


@pytest.fixture(scope="session")
def mariadb_databases(pytestconfig: pytest.Config, shared_folder: Path) -> Iterator[Databases]:
    yield from databases_of_shared_server("mariadb", pytestconfig, shared_folder)


def databases_of_shared_server(kind: str, config: pytest.Config, shared_folder: Path) -> Iterator[Databases]:
    with server_expected(config):
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
def server(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Iterator[Server]:
    """Give a server of the test's own, of either kind, to stop, kill and start again."""
    with server_expected(pytestconfig), private_server(SERVER_TYPES[request.param]) as made:
        yield made
