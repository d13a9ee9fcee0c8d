"""Databases that are down, refuse, break off, stall, lock, or lose the reply that matters most."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import make_url

from etl.sandbox import SandboxServer
from tests.databases import Database, Databases
from tests.faults.jobs import Outcome, run_new_process, write_config
from tests.faults.proxy import LOADING, OPENING, Link, Proxy, Rule
from tests.faults.raw_server import Peer, RawServer, closed_port, response
from tests.faults.world import World, body, business, check_accepted, generation, record, runs

GOOD = body(generation(1))
SHORT = {"connect_timeout": "2", "read_timeout": "1"}
SERVERS = ("postgresql", "mariadb")
PATIENCE = 20.0


@pytest.fixture(params=SERVERS)
def server_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A world on a server, for faults that need one."""
    databases: Databases = request.getfixturevalue(f"{request.param}_databases")
    with databases.migrated() as database:
        yield World(database, tmp_path)


@contextmanager
def source() -> Iterator[str]:
    with SandboxServer() as server:
        server.serve_body(GOOD)
        yield server.base_url


def sync_through(world: World, rule: Rule | None, **query: str) -> Outcome:
    with source() as base_url, Proxy(world.database.server.port, rule) as proxy:
        outcome = world.sync(base_url, database_url=proxy.url(world.database.url, **{**SHORT, **query}))
        assert rule is None or proxy.fired.is_set(), "the job never came to the point where it was to be harmed"
    return outcome


def test_a_proxy_that_harms_nothing_is_not_noticed(server_world: World) -> None:
    server_world.assert_accepted(sync_through(server_world, None), generation(1))
    server_world.assert_recovers()


CUTS: dict[str, tuple[bytes, ...]] = {
    "while the run is opened": OPENING,
    "while live rows are read": (b"INSERT INTO sync_runs", b"FROM virtual_numbers"),
    "after the first change": (b"INSERT INTO sync_runs", b"INSERT INTO virtual_numbers_history"),
    "while rows are deleted": (b"INSERT INTO sync_runs", b"DELETE FROM virtual_numbers"),
    "while the run is closed": (b"INSERT INTO sync_runs", b"UPDATE sync_runs"),
    "before the commit": LOADING,
}


@pytest.mark.parametrize("place", CUTS)
def test_a_connection_cut_in_mid_transaction_leaves_the_old_snapshot(server_world: World, place: str) -> None:
    texts = CUTS[place]
    outcome = sync_through(server_world, Rule(texts, Link.cut))
    assert outcome.code == 69, outcome.errors
    assert business(server_world.database) == server_world.before
    if texts is not OPENING:
        assert runs(server_world.database)[-1][1:] == ("failed", "database_unreachable")
    server_world.assert_recovers(patience=PATIENCE)


def test_a_lost_reply_to_the_commit_is_looked_up_and_told_as_the_success_it_was(server_world: World) -> None:
    outcome = sync_through(server_world, Rule(LOADING, Link.cut, "reply"))
    server_world.assert_accepted(outcome, generation(1))
    server_world.assert_recovers()


def test_a_lost_reply_to_the_first_commit_leaves_a_run_that_the_next_one_marks(server_world: World) -> None:
    outcome = sync_through(server_world, Rule(OPENING, Link.cut, "reply"))
    server_world.assert_unharmed(outcome, 69)
    server_world.assert_recovers(patience=PATIENCE)
    assert runs(server_world.database)[1][1:] == ("failed", "interrupted")


@pytest.mark.parametrize("moment", ["request", "reply"])
def test_a_database_that_stalls_for_ever_at_the_commit_is_given_up(server_world: World, moment: str) -> None:
    outcome = sync_through(server_world, Rule(LOADING, Link.stall, "reply" if moment == "reply" else "request"))
    if moment == "reply":
        # The commit went through and a fresh connection, which does not stall, tells so.
        server_world.assert_accepted(outcome, generation(1))
    else:
        assert outcome.code == 69, outcome.errors
        assert business(server_world.database) == server_world.before
    server_world.assert_recovers(patience=PATIENCE)


def test_a_database_that_stalls_in_mid_load_is_given_up(server_world: World) -> None:
    texts = (b"INSERT INTO sync_runs", b"INSERT INTO virtual_numbers_history")
    outcome = sync_through(server_world, Rule(texts, Link.stall))
    assert outcome.code == 69, outcome.errors
    assert outcome.seconds < 15
    server_world.assert_recovers(patience=PATIENCE)


def test_a_client_cut_off_without_its_servers_notice_makes_the_next_run_end_busy_not_hang(server_world: World) -> None:
    texts = (b"INSERT INTO sync_runs", b"INSERT INTO virtual_numbers_history")

    def isolate(link: Link) -> None:
        link.cut_client()
        link.stall()

    with source() as base_url, Proxy(server_world.database.server.port, Rule(texts, isolate)) as proxy:
        outcome = server_world.sync(base_url, database_url=proxy.url(server_world.database.url, **SHORT))
        assert outcome.code == 69
        busy = server_world.sync(base_url)
        assert busy.code == 75
        assert busy.seconds < 10
    server_world.assert_recovers(patience=PATIENCE)


def test_the_database_is_down(server_world: World) -> None:
    url = make_url(server_world.database.url).set(port=closed_port()).render_as_string(hide_password=False)
    with source() as base_url:
        server_world.assert_unharmed(server_world.sync(base_url, database_url=url), 69)
    server_world.assert_recovers()


def test_the_database_is_silent_from_the_start(server_world: World) -> None:
    with RawServer(Peer.stall) as silent, source() as base_url:
        url = make_url(server_world.database.url).set(port=silent.port).update_query_dict(SHORT)
        outcome = server_world.sync(base_url, database_url=url.render_as_string(hide_password=False), seconds=15)
    server_world.assert_unharmed(outcome, 69)


def test_something_else_listens_on_the_databases_port(server_world: World) -> None:
    def speak(peer: Peer) -> None:
        peer.send(response(b"hello"))

    with RawServer(speak) as other, source() as base_url:
        url = make_url(server_world.database.url).set(port=other.port).update_query_dict(SHORT)
        outcome = server_world.sync(base_url, database_url=url.render_as_string(hide_password=False), seconds=15)
    server_world.assert_unharmed(outcome, 69)


def test_a_wrong_password_is_not_allowed_and_not_shown(server_world: World) -> None:
    url = make_url(server_world.database.url).set(password="wrong-hush")
    with source() as base_url:
        outcome = server_world.sync(base_url, database_url=url.render_as_string(hide_password=False))
    server_world.assert_unharmed(outcome, 77)
    assert "hush" not in outcome.output + outcome.errors


def test_a_database_that_does_not_exist(server_world: World) -> None:
    url = make_url(server_world.database.url).set(database="test_none")
    with source() as base_url:
        outcome = server_world.sync(base_url, database_url=url.render_as_string(hide_password=False))
    assert outcome.code in (77, 78)  # MariaDB tells nobody without rights what exists


def test_rights_that_are_revoked_change_nothing_and_serve_again_when_granted(server_world: World) -> None:
    database = server_world.database
    server = database.server
    if database.kind == "postgresql":
        admin = make_url(server.admin_url).set(database=database.name).render_as_string(hide_password=False)
        owned = Database(database.kind, admin, database._make, server)
        owned.execute("ALTER TABLE virtual_numbers OWNER TO postgres")
        owned.execute("GRANT SELECT ON virtual_numbers TO etl")
        restore: Callable[[], object] = partial(owned.execute, "ALTER TABLE virtual_numbers OWNER TO etl")
        url = database.url
    else:
        account = "'reader'@'127.0.0.1'"
        server.execute(
            f"CREATE OR REPLACE USER {account} IDENTIFIED BY '{server.password}'",
            f"GRANT SELECT ON {server.identifier(database.name)}.* TO {account}",
            f"GRANT ALL ON {server.identifier(database.name)}.sync_runs TO {account}",
        )
        url = make_url(database.url).set(username="reader").render_as_string(hide_password=False)
        restore = partial(server.execute, f"DROP USER {account}")
    with source() as base_url:
        outcome = server_world.sync(base_url, database_url=url)
    server_world.assert_unharmed(outcome, 77, "database_rights")
    restore()
    server_world.assert_recovers()


def test_a_table_that_somebody_dropped(server_world: World) -> None:
    server_world.database.execute("DROP VIEW number_redirects")
    cascade = "CASCADE" if server_world.database.kind == "postgresql" else ""
    server_world.database.execute(f"DROP TABLE redirect_numbers {cascade}")
    with source() as base_url:
        outcome = server_world.sync(base_url)
    assert outcome.code == 78
    assert runs(server_world.database)[-1][1:] == ("failed", "schema_damaged")


@contextmanager
def held(database: Database, *statements: str) -> Iterator[None]:
    """Hold a transaction open that has executed these statements."""
    with database.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        yield
        connection.rollback()


def test_an_open_reader_holds_nobody_up_and_goes_on_seeing_what_it_saw(world: World) -> None:
    begin = {"sqlite": ["BEGIN"], "postgresql": ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"], "mariadb": []}
    with world.database.connect() as reader, source() as base_url:
        for statement in begin[world.database.kind]:
            reader.exec_driver_sql(statement)
        query = "SELECT id, number, comment FROM virtual_numbers ORDER BY id"
        before = reader.exec_driver_sql(query).all()
        world.assert_accepted(world.sync(base_url, seconds=15), generation(1))
        assert reader.exec_driver_sql(query).all() == before
        reader.rollback()
        assert reader.exec_driver_sql(query).all() != before
    world.assert_recovers()


def test_a_row_locked_by_somebody_else_is_waited_for(world: World) -> None:
    lock = {
        "sqlite": ["BEGIN IMMEDIATE"],
        "postgresql": ["SELECT * FROM virtual_numbers FOR UPDATE"],
        "mariadb": ["SELECT * FROM virtual_numbers FOR UPDATE"],
    }
    with source() as base_url:
        with held(world.database, *lock[world.database.kind]):
            job = world.start(base_url)
            time.sleep(0.5)
            assert job.alive
        world.assert_accepted(job.wait(20), generation(1))
    world.assert_recovers()


def test_a_signal_ends_a_run_that_waits_for_somebody_elses_lock(world: World) -> None:
    lock = {
        "sqlite": ["BEGIN IMMEDIATE"],
        "postgresql": ["SELECT * FROM virtual_numbers FOR UPDATE"],
        "mariadb": ["SELECT * FROM virtual_numbers FOR UPDATE"],
    }
    with source() as base_url, held(world.database, *lock[world.database.kind]):
        job = world.start(base_url)
        time.sleep(0.5)
        job.signal(signal.SIGTERM)
        time.sleep(0.5)
        job.signal(signal.SIGTERM)  # the second is not waited for
        assert job.wait(10).code == 143
    assert business(world.database) == world.before
    world.assert_recovers(patience=PATIENCE)


def test_a_deadlock_is_tried_again(server_world: World) -> None:
    """Somebody holds the last row and then wants the first, which the job has locked by then."""
    database = server_world.database
    with source() as base_url, database.connect() as other:
        # Much work makes the other one too dear a victim for MariaDB; PostgreSQL ends whoever began to wait first.
        for identity in range(10_000, 10_400):
            number = f"{record(identity)['number']}"
            other.exec_driver_sql(
                "INSERT INTO virtual_numbers (source, id, number, type, state, valid_from_run, valid_from) "
                f"VALUES ('other', {identity}, '{number}', 'def', 'active', 1, '2026-01-01 00:00:00')"
            )
        other.exec_driver_sql("UPDATE virtual_numbers SET group_id = group_id WHERE id = 29")
        job = server_world.start(base_url)
        other_end: list[bool] = []

        def cross() -> None:
            other.exec_driver_sql("UPDATE redirect_numbers SET number = number")
            other.rollback()
            other_end.append(True)

        _wait_for_lock(database)
        thread = Thread(target=cross)
        thread.start()
        outcome = job.wait(60)
        thread.join()
    server_world.assert_accepted(outcome, generation(1))
    assert "load_retried" in outcome.errors
    assert other_end
    server_world.assert_recovers()


def _wait_for_lock(database: Database) -> None:
    query = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND wait_event_type = 'Lock'",
        "mariadb": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
    }
    end = time.monotonic() + 30
    while time.monotonic() < end:
        ask = database.rows if database.kind == "postgresql" else database.server.execute
        if ask(query[database.kind]) != [(0,)]:
            return
        time.sleep(0.15)  # asked again within 0.1 s, MariaDB repeats its last answer
    raise AssertionError("the job never waited for a lock")


def test_a_run_whose_session_was_ended_behind_its_back_commits_nothing_over_its_successor(server_world: World) -> None:
    """The lock is lost with its connection while the source is slow; another run overtakes; the first must fail."""
    database = server_world.database
    newer = generation(2)
    go_on: list[bool] = []

    def slow(peer: Peer) -> None:
        peer.read_request()
        end = time.monotonic() + 20
        while not go_on and time.monotonic() < end:
            time.sleep(0.02)
        peer.send(response(GOOD))

    with RawServer(slow) as server:
        job = server_world.start(server.base_url)
        end = time.monotonic() + 10
        while not server.connections and time.monotonic() < end:
            time.sleep(0.02)
        _end_sessions(database)
        overtaking = server_world.load_file(body(newer))
        server_world.assert_accepted(overtaking, newer)
        go_on.append(True)
        outcome = job.wait(20)
    assert outcome.code == 69, outcome.errors
    assert [how[1:] for how in runs(database)] == [
        ("succeeded", None),
        ("failed", "interrupted"),
        ("succeeded", None),
    ]
    check_accepted(database, server_world.accepted)
    server_world.assert_recovers()


def _end_sessions(database: Database) -> None:
    if database.kind == "postgresql":
        database.server.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            f"WHERE datname = {database.server.literal(database.name)}"
        )
        return
    query = f"SELECT id FROM information_schema.processlist WHERE db = {database.server.literal(database.name)}"
    for (session,) in database.server.execute(query):
        database.server.execute(f"KILL {session}")
    end = time.monotonic() + 5
    while database.server.execute(query) and time.monotonic() < end:
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_server_that_is_restarted_between_and_within_runs(
    private_database: Database, tmp_path: Path, how: str
) -> None:
    world = World(private_database, tmp_path)
    server = private_database.server

    def go_down(peer: Peer) -> None:
        peer.read_request()
        getattr(server, how)()
        peer.send(response(GOOD))

    with RawServer(go_down) as source_server:
        outcome = world.sync(source_server.base_url)
        assert outcome.code == 69, outcome.errors
    server.start()
    assert business(private_database) == world.before
    world.assert_recovers()
    assert runs(private_database)[1][1:] == ("failed", "interrupted")


def test_a_new_process_behaves_like_a_forked_one(server_world: World) -> None:
    with source() as base_url:
        config = write_config(server_world.folder, server_world.database.url, {"main": base_url})
        outcome = run_new_process(server_world.folder, "sync", "--json", "--config", str(config))
    server_world.assert_accepted(outcome, generation(1))
    server_world.assert_recovers()
