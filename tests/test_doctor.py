import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import make_url

from etl.db.engine import open_engine
from etl.db.locks import exclusive_lock, source_lock
from etl.db.settings import network_file_system
from etl.sandbox import Answer, SandboxServer
from tests import command
from tests.databases import Database
from tests.databases_servers import OWNER
from tests.loading import TOKEN, loading
from tests.snapshots import body, record

ORDER = ["configuration", "integrations", "file rights", "driver", "database", "rights", "schema", "settings", "lock",
         "token", "dns", "connection", "source", "clock", "disk space"]  # fmt: skip


@dataclass
class Visit:
    """One call of `etl doctor --json`."""

    ended: command.Ended

    @property
    def findings(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ended.document["checks"]
        return found

    def states(self, check: str) -> set[str]:
        return {finding["state"] for finding in self.findings if finding["check"] == check}

    def message(self, check: str) -> str:
        return " ".join(f"{finding['message']} {finding['advice']}" for finding in self.findings
                        if finding["check"] == check)  # fmt: skip

    def failures(self) -> list[tuple[str, str, int]]:
        return [(finding["check"], finding["error_code"], finding["exit_code"]) for finding in self.findings
                if finding["state"] == "failed"]  # fmt: skip


@pytest.fixture
def server() -> Iterator[SandboxServer]:
    with SandboxServer(token=TOKEN) as server:
        server.serve_body(body([record(1)]))
        yield server


def visit(folder: Path, url: str, base_url: str = "http://127.0.0.1:1", config: str | None = None) -> Visit:
    """Have everything looked at; the configuration is from the environment unless a text is given."""
    arguments = []
    if config is not None:
        file = folder / "doctor.toml"
        file.touch(0o600)
        file.write_text(config)
        arguments = ["--config", str(file)]
    variables = {"ETL_DATABASE_URL": url, "ETL_TOKEN": TOKEN, "ETL_BASE_URL": base_url}
    found = Visit(command.run("doctor", "--json", *arguments, cwd=folder, variables=variables))
    assert found.ended.code == next((code for _, _, code in found.failures()), 0)
    assert "Traceback" not in found.ended.stderr
    for secret in (TOKEN, make_url(url).password):
        assert not secret or secret not in found.ended.stdout + found.ended.stderr
    return found


def test_all_is_well_on_every_database(migrated_database: Database, server: SandboxServer, tmp_path: Path) -> None:
    found = visit(tmp_path, migrated_database.url, server.base_url)
    assert found.ended.code == 0
    assert {check for check in ORDER if found.states(check) == {"ok"}} == set(ORDER), found.findings
    checks = [finding["check"] for finding in found.findings]
    assert sorted(checks, key=ORDER.index) == checks


def test_it_writes_nothing(migrated_database: Database, server: SandboxServer, tmp_path: Path) -> None:
    with loading(migrated_database) as loader:
        run = loader.load([record(1, {5: "79200000005"}), "bad"])
        tables = ("virtual_numbers", "redirect_numbers", "virtual_numbers_history", "sync_runs", "quarantined_records")
        before = [migrated_database.rows(f"SELECT * FROM {table}") for table in tables]
        visit(tmp_path, migrated_database.url, server.base_url)
        assert [migrated_database.rows(f"SELECT * FROM {table}") for table in tables] == before
        assert loader.load([record(1)]) == run + 1
    assert not list(tmp_path.iterdir())


def test_an_empty_database_is_fine_where_a_sync_may_fill_it(
    database: Database, server: SandboxServer, tmp_path: Path
) -> None:
    found = visit(tmp_path, database.url, server.base_url)
    assert found.ended.code == 0, found.findings
    if database.kind == "sqlite":
        assert not Path(database.name).exists()
        assert not list(Path(database.name).parent.iterdir())
        assert "etl sync" in found.message("database")
    else:
        assert found.states("rights") == {"ok"}
        assert "etl sync" in found.message("schema")
        assert open_tables(database) == []


def open_tables(database: Database) -> list[tuple[Any, ...]]:
    schema = {"postgresql": "current_schema()", "mariadb": "DATABASE()"}[database.kind]
    return database.rows(f"SELECT table_name FROM information_schema.tables WHERE table_schema = {schema}")


def test_a_schema_that_is_missing_fails_where_a_sync_may_not_make_it(database: Database, tmp_path: Path) -> None:
    found = visit(tmp_path, database.url, config='[database]\nmigrate = "check"\n')
    check, code, exit_code = found.failures()[0]
    assert (check, code, exit_code) == ("database" if database.kind == "sqlite" else "schema", "schema_old", 78)
    assert "etl db upgrade" in found.message(check)


def test_a_schema_of_a_newer_version_fails(migrated_database: Database, tmp_path: Path) -> None:
    migrated_database.execute("UPDATE alembic_version SET version_num = '2999_01_01_future'")
    found = visit(tmp_path, migrated_database.url)
    assert ("schema", "schema_unknown", 78) in found.failures()
    assert found.ended.code == 78


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_user_who_may_only_read_is_told_so(
    request: pytest.FixtureRequest, kind: str, server: SandboxServer, tmp_path: Path
) -> None:
    with request.getfixturevalue(f"{kind}_databases").migrated() as database:
        reader = f"reader_{database.name}"
        database.server.create_user(reader, "reader-password")
        if kind == "postgresql":
            database.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}")
        else:
            database.server.execute(f"GRANT SELECT ON {database.name}.* TO '{reader}'@'127.0.0.1'")
        found = visit(tmp_path, database.server.url(database.name, reader, "reader-password"), server.base_url)
        assert found.failures() == [("rights", "database_rights", 77)]
        assert found.states("source") == {"ok"}  # it goes on


def test_wrong_passwords_and_missing_databases_are_told_apart(migrated_database: Database, tmp_path: Path) -> None:
    if migrated_database.kind == "sqlite":
        found = visit(tmp_path, f"sqlite:///{tmp_path / 'no' / 'folder' / 'numbers.db'}")
        assert found.failures()[0] == ("database", "database_unreadable", 77)
        return
    server = migrated_database.server
    found = visit(tmp_path, server.url(migrated_database.name, OWNER, "not-the-password"))
    assert found.failures()[0] == ("database", "database_login", 77)
    assert found.states("rights") == found.states("lock") == {"skipped"}
    found = visit(tmp_path, server.url("test_no_such_database"))
    assert found.failures()[0][0] == "database"
    assert found.ended.code in (77, 78)  # MariaDB refuses access to what it does not name


def test_a_read_only_postgresql_is_told(postgresql_databases: Any, tmp_path: Path) -> None:
    with postgresql_databases.migrated() as database:
        database.server.execute(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
        found = visit(tmp_path, database.url)
    assert found.failures()[:2] == [("rights", "database_read_only", 77), ("settings", "database_read_only", 77)]


@pytest.mark.parametrize(("encoding", "state"), [("LATIN1", "failed"), ("SQL_ASCII", "warning")])
def test_a_postgresql_database_without_utf8_is_told(
    encoding: str, state: str, postgresql_databases: Any, server: SandboxServer, tmp_path: Path
) -> None:
    with postgresql_databases.empty() as database:
        name = f"{database.name}_{encoding.lower()}"
        create = f"CREATE DATABASE {name} OWNER {OWNER} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        database.server.execute(create)
        found = visit(tmp_path, database.server.url(name), server.base_url)
        database.server.drop_database(name)
    assert found.states("settings") == {state}
    assert encoding in found.message("settings")
    assert found.ended.code == (78 if state == "failed" else 0)


def test_a_character_set_that_loses_characters_is_refused(mariadb_databases: Any, tmp_path: Path) -> None:
    with mariadb_databases.migrated() as database:
        found = visit(
            tmp_path,
            make_url(database.url).update_query_dict({"charset": "latin1"}).render_as_string(hide_password=False),
        )
    assert ("settings", "database_encoding", 78) in found.failures()


def test_sqlite_without_wal_is_a_warning(sqlite_databases: Any, server: SandboxServer, tmp_path: Path) -> None:
    with sqlite_databases.migrated() as database:
        database.rows("PRAGMA journal_mode = DELETE")
        found = visit(tmp_path, database.url, server.base_url)
    assert found.ended.code == 0
    assert found.states("settings") == {"warning"}
    assert "journal_mode=WAL" in found.message("settings")


def test_a_local_file_is_not_taken_for_one_of_a_network(tmp_path: Path) -> None:
    assert network_file_system(tmp_path / "numbers.db") is None


def test_a_run_in_progress_is_named_with_its_process(
    migrated_database: Database, server: SandboxServer, tmp_path: Path
) -> None:
    engine = open_engine(migrated_database.url)
    with engine.connect() as connection, exclusive_lock(connection, source_lock("main")):
        found = visit(tmp_path, migrated_database.url, server.base_url)
    assert found.ended.code == 0
    assert re.search(r"a run is in progress: (process|session) \d+", found.message("lock"))


@pytest.mark.parametrize(
    ("answer", "code", "exit_code", "words"),
    [
        (Answer(status=401), "bad_token", 77, "Сгенерировать"),
        (Answer(status=403), "ip_not_allowed", 77, "allow-list"),
        (Answer(status=404), "unexpected_status", 76, "base_url"),
        (Answer(status=302, headers={"Location": "/login"}), "unexpected_status", 76, "redirect"),
        (Answer(status=503), "http_status", 69, "503"),
        (Answer(reset=True), "connection_reset", 69, "reset"),
        (Answer(body=b"<html>Please log in</html>"), "data_refused", 65, "not a list"),
    ],
)
def test_what_the_source_answers_is_explained(
    answer: Answer,
    code: str,
    exit_code: int,
    words: str,
    sqlite_database: Database,
    server: SandboxServer,
    tmp_path: Path,
) -> None:
    server.script(answer)
    found = visit(tmp_path, sqlite_database.url, server.base_url)
    assert found.failures() == [("source", code, exit_code)]
    assert words in found.message("source")


def test_only_the_beginning_of_the_answer_is_read(
    sqlite_database: Database, server: SandboxServer, tmp_path: Path
) -> None:
    # All of it would take a quarter of an hour.
    server.script(Answer(body=b"\xef\xbb\xbf [" + b" " * 100_000, drip=0.01))
    found = visit(tmp_path, sqlite_database.url, server.base_url)
    assert found.states("source") == {"ok"}


@pytest.mark.parametrize(("minutes", "state"), [(0, "ok"), (30, "warning"), (-30, "warning")])
def test_a_clock_that_differs_from_the_source_s_is_a_warning(
    minutes: int, state: str, sqlite_database: Database, server: SandboxServer, tmp_path: Path
) -> None:
    moment = datetime.now(UTC) + timedelta(minutes=minutes)
    server.script(Answer(body=b"[]", headers={"Date": format_datetime(moment, usegmt=True)}))
    found = visit(tmp_path, sqlite_database.url, server.base_url)
    assert found.ended.code == 0
    assert found.states("clock") == {state}


def test_a_source_that_cannot_be_reached_is_looked_into_step_by_step(sqlite_database: Database, tmp_path: Path) -> None:
    config = f"""
[[sources]]
name = "nowhere"
base_url = "https://no-such-host.invalid"
token = "{TOKEN}"
[[sources]]
name = "closed"
base_url = "http://127.0.0.1:1"
token = "{TOKEN}"
[[sources]]
name = "tokenless"
token_env = "NOT_SET"
base_url = "http://127.0.0.1:1"
"""
    found = visit(tmp_path, sqlite_database.url, config=config)
    failures = [(finding["source"], finding["check"]) for finding in found.findings if finding["state"] == "failed"]
    assert failures == [
        ("nowhere", "dns"), ("closed", "connection"), ("tokenless", "token"), ("tokenless", "connection")
    ]  # fmt: skip
    assert found.ended.code == 69


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Make a certificate for localhost that nobody vouches for and that ends in three days."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    made = tmp_path / "certificate.pem"
    command_line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3", "-subj", "/CN=localhost"]
    command_line += ["-addext", "subjectAltName=DNS:localhost", "-out", str(made), "-keyout", f"{made}.key"]
    subprocess.run(command_line, check=True, capture_output=True)
    return made


@pytest.fixture
def tls_port(certificate: Path) -> Iterator[int]:
    """Answer every request with an empty list, over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, f"{certificate}.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            plain.settimeout(10)
            try:
                with context.wrap_socket(plain, server_side=True) as secured:
                    if secured.recv(65536):
                        secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]")
            except OSError:
                plain.close()  # a client that does not trust the certificate, or only looked at it

    thread = Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def test_a_certificate_that_nobody_vouches_for_fails(sqlite_database: Database, tls_port: int, tmp_path: Path) -> None:
    found = visit(tmp_path, sqlite_database.url, f"https://localhost:{tls_port}")
    assert found.failures() == [("connection", "tls_untrusted", 69)]
    assert "http.ca_bundle" in found.message("connection")
    assert found.states("source") == {"skipped"}


def test_a_certificate_that_ends_soon_is_a_warning(
    sqlite_database: Database, certificate: Path, tls_port: int, tmp_path: Path
) -> None:
    config = f'[http]\nca_bundle = "{certificate}"\n[[sources]]\nbase_url = "https://localhost:{tls_port}"\n'
    found = visit(tmp_path, sqlite_database.url, config=config)
    assert found.ended.code == 0, found.findings
    assert found.states("connection") == {"warning"}
    assert "2 days" in found.message("connection")
    assert found.states("source") == {"ok"}


def test_plain_http_behind_an_https_address_is_told(
    sqlite_database: Database, server: SandboxServer, tmp_path: Path
) -> None:
    found = visit(tmp_path, sqlite_database.url, server.base_url.replace("http:", "https:"))
    assert found.failures() == [("connection", "tls_failed", 69)]


def test_files_that_others_may_read_are_warned_of(sqlite_databases: Any, server: SandboxServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    archive = tmp_path / "archive"
    archive.mkdir(0o755)
    config = f"""
[archive]
directory = "{archive}"
[[sources]]
name = "one"
base_url = "{server.base_url}"
token = "{TOKEN}"
[[sources]]
name = "two"
base_url = "{server.base_url}"
token_file = "{token}"
"""
    with sqlite_databases.migrated() as database:
        Path(database.name).chmod(0o644)
        file = tmp_path / "doctor.toml"
        file.write_text(config)
        for path in (token, file):
            path.chmod(0o644)
        found = visit(tmp_path, database.url, config=config)
        words = found.message("file rights")
        assert found.states("file rights") == {"warning"}
        for path in (token, file, archive, Path(database.name)):
            assert f"{path} holds" in words
            path.chmod(0o700 if path is archive else 0o600)
        assert visit(tmp_path, database.url, config=config).states("file rights") == {"ok"}
    assert found.ended.code == 0


@pytest.mark.parametrize(
    ("config", "code"), [("[database]\nur = 1\n", "unknown_key"), ('[http]\ndeadline = "soon"\n', "configuration")]
)
def test_a_configuration_that_cannot_be_read_is_the_first_failure_and_the_rest_is_skipped(
    config: str, code: str, tmp_path: Path
) -> None:
    found = visit(tmp_path, "sqlite:///numbers.db", config=config)
    assert found.failures() == [("configuration", code, 78)]
    assert {finding["check"] for finding in found.findings} == set(ORDER)
    assert {finding["state"] for finding in found.findings[1:]} == {"skipped"}


def test_integrations_are_made_as_a_run_would_make_them(
    sqlite_database: Database, server: SandboxServer, tmp_path: Path
) -> None:
    sections = '[metrics]\ntextfile = "{}"\n[ping]\nurl = "http://127.0.0.1:1/hush"\n[notify]\nurls = ["{}"]\n'
    fine = sections.format(tmp_path / "numbers.prom", "json://127.0.0.1:1/hush")
    found = visit(tmp_path, sqlite_database.url, server.base_url, fine)
    assert found.states("integrations") == {"ok"}
    assert "metrics, ping, notify can be used" in found.message("integrations")

    found = visit(tmp_path, sqlite_database.url, server.base_url, sections.format("/no/such/folder/x.prom", "json://a"))
    assert found.states("integrations") == {"ok", "warning"}
    assert found.failures() == []

    found = visit(tmp_path, sqlite_database.url, server.base_url, sections.format("x.prom", "nobody-knows://hush"))
    assert [(check, code) for check, _, code in found.failures()] == [("integrations", 78)]
    assert "hush" not in found.ended.stdout
    assert found.states("source") == {"ok"}


def test_a_database_url_that_is_not_supported_is_no_configuration_either(server: SandboxServer, tmp_path: Path) -> None:
    found = visit(tmp_path, "oracle://scott:tiger@127.0.0.1/orcl", server.base_url)
    assert ("driver", "bad_url", 78) in found.failures()
    assert found.states("source") == {"ok"}


def test_a_person_reads_a_table_and_a_summary(sqlite_database: Database, server: SandboxServer, tmp_path: Path) -> None:
    variables = {"ETL_DATABASE_URL": sqlite_database.url, "ETL_TOKEN": "wrong", "ETL_BASE_URL": server.base_url}
    ended = command.run("doctor", cwd=tmp_path, variables=variables)
    assert ended.code == 77
    assert re.search(r"^failed +source +main +the source refuses the token", ended.stdout, re.MULTILINE)
    assert re.search(r"\d+ ok, 1 failed", ended.stdout)
    assert "\x1b" not in ended.stdout


def test_only_the_sources_asked_for_are_checked(
    sqlite_database: Database, server: SandboxServer, tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    file.write_text("".join(f'[[sources]]\nname = "{name}"\nbase_url = "{server.base_url}"\n' for name in ("a", "b")))
    variables = {"ETL_DATABASE_URL": sqlite_database.url, "ETL_TOKEN": TOKEN}
    ended = command.run("doctor", "--json", "--source", "b", cwd=tmp_path, variables=variables)
    assert {finding["source"] for finding in ended.document["checks"]} == {None, "b"}
    assert len(server.requests) == 1
