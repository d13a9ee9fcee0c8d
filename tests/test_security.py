"""The token, TLS and files: what must not be seen is not, and what must not be trusted is not."""

import gzip
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from etl.sandbox import Answer, SandboxServer
from tests.command import Ended, end, run, start
from tests.databases import Database
from tests.faults.raw_server import Peer, RawServer
from tests.snapshots import body, record
from tests.stored import DUMPED
from tests.tls import HOST, TlsServer, save_ca, serving_tls

TOKEN = "0f9d8c7b-6a5e-token-5e6a7b8c9d0f"
WAIT_SECONDS = 20


def configure(folder: Path, base_url: str, http: str = "", source: str = "", more: str = "") -> Path:
    file = folder / "config.toml"
    file.write_text(
        f'[[sources]]\nname = "main"\nbase_url = "{base_url}"\n{source}\n[http]\nmax_attempts = 1\n{http}\n{more}\n'
    )
    return file


def sync(folder: Path, *arguments: str, **variables: str) -> Ended:
    return run("sync", *arguments, cwd=folder, variables={"ETL_TOKEN": TOKEN} | variables)


# The token ------------------------------------------------------------------------------------------------------------


def hand_over(place: str, folder: Path) -> tuple[str, dict[str, str]]:
    """Return the source's lines and the environment that hand over the token."""
    if place == "file":
        (folder / "secret").touch(0o600)
        (folder / "secret").write_text(f"{TOKEN}\n")
    return {
        "environment": ("", {"ETL_TOKEN": TOKEN}),
        "variable of another name": ('token_env = "OTHER"', {"OTHER": TOKEN}),
        "file": (f'token_file = "{folder}/secret"', {}),
        "configuration": (f'token = "{TOKEN}"', {}),
    }[place]


ANSWERS = {
    "list": None,
    "token refused": Answer(401, body=TOKEN.encode()),
    "address refused": Answer(403, body=TOKEN.encode()),
    "server error that quotes the request": Answer(500, body=TOKEN.encode()),
    "redirect": Answer(302, headers={"Location": f"https://elsewhere.test/{TOKEN}"}),
    "an object that quotes the request": Answer(200, body=f'{{"Authorization": "{TOKEN}"}}'.encode()),
}


@pytest.mark.parametrize("place", ["environment", "variable of another name", "file", "configuration"])
def test_the_token_is_sent_and_shown_nowhere(tmp_path: Path, place: str) -> None:
    # One place is tried with every answer, the others with the usual ones.
    answers = list(ANSWERS.values())[: None if place == "file" else 2]
    lines, variables = hand_over(place, tmp_path)
    with SandboxServer(token=TOKEN) as server:
        server.serve_body(body([record(1)]))
        configure(tmp_path, server.base_url, source=lines, more=f'[archive]\ndirectory = "{tmp_path}/archive"')
        for answer in answers:
            if answer:
                server.script(answer)
            ended = run("sync", "-v", "--json", cwd=tmp_path, variables=variables)
            assert TOKEN not in ended.stdout + ended.stderr
        assert {request.headers["authorization"] for request in server.requests} == {TOKEN}
        assert len(server.requests) == len(answers)
    for command in (["status"], ["doctor"]):
        ended = run(*command, cwd=tmp_path, variables=variables)
        assert TOKEN not in ended.stdout + ended.stderr, command
    holders = {file.name for file in tmp_path.rglob("*") if file.is_file() and TOKEN.encode() in plain(file)}
    # The body that quotes it is no list, but it is kept as it came; only a source that echoes secrets puts one there.
    assert {name for name in holders if not name.endswith(".json.gz")} == (
        {"file": {"secret"}, "configuration": {"config.toml"}}.get(place, set())
    )
    assert len(holders & {file.name for file in (tmp_path / "archive").rglob("*")}) == (place == "file")


def plain(file: Path) -> bytes:
    return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()


def test_no_table_holds_the_token(database: Database, tmp_path: Path) -> None:
    with SandboxServer(token=TOKEN) as server:
        configure(tmp_path, server.base_url)
        for answer in ANSWERS.values():
            if answer:
                server.script(answer)
            sync(tmp_path, ETL_DATABASE_URL=database.url)
    assert database.scalar("SELECT count(*) FROM sync_runs") == len(ANSWERS)
    for table in DUMPED:
        assert TOKEN not in repr(database.rows(f"SELECT * FROM {table}"))


def test_a_running_process_shows_no_token_in_its_arguments(tmp_path: Path) -> None:
    lines, _ = hand_over("file", tmp_path)
    with RawServer(Peer.stall) as server:
        configure(tmp_path, server.base_url, source=lines)
        with running(tmp_path, server) as pid:
            assert TOKEN.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
            # From a file it is not in the environment either, which the same user and root can read.
            assert TOKEN.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


@contextmanager
def running(folder: Path, server: RawServer) -> Iterator[int]:
    """Start a sync and let it wait for its answer."""
    process = start("sync", cwd=folder)
    limit = time.monotonic() + WAIT_SECONDS
    while not server.connections:
        assert time.monotonic() < limit
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    yield process.pid
    process.terminate()
    assert end(process).code == 143


@pytest.mark.parametrize("option", ["--token", "--authorization", "--password"])
def test_no_command_that_asks_a_source_takes_a_secret_as_an_argument(tmp_path: Path, option: str) -> None:
    # What is an argument is in every user's process list. The sandbox's token guards made-up numbers.
    for command in ("sync", "schedule", "doctor", "verify", "status"):
        assert run(command, option, TOKEN, cwd=tmp_path).code == 2


def test_a_token_that_cannot_be_sent_is_not_shown_in_the_complaint(tmp_path: Path) -> None:
    for spoilt in (f"{TOKEN}\r\nX: y", f"{TOKEN}\N{CYRILLIC SMALL LETTER A}"):
        ended = sync(tmp_path, ETL_TOKEN=spoilt)
        assert ended.code == 78
        assert TOKEN not in ended.stdout + ended.stderr


def test_the_database_password_is_in_no_error(tmp_path: Path) -> None:
    for url in (
        f"postgresql://user:{TOKEN}@127.0.0.1:1/numbers",
        f"mysql://user:{TOKEN}@127.0.0.1:1/numbers",
        f"postgresql://user:{TOKEN}@127.0.0.1:x/numbers",
        f"oracle://user:{TOKEN}@127.0.0.1/numbers",
    ):
        for command in (["sync"], ["doctor"]):
            ended = run(*command, cwd=tmp_path, variables={"ETL_TOKEN": "t", "ETL_DATABASE_URL": url})
            assert ended.code in (69, 78), (url, command, ended.stderr)
            assert TOKEN not in ended.stdout + ended.stderr


# Where it goes --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def assert_refused_untold(ended: Ended, server: TlsServer) -> None:
    assert ended.code == 69
    assert "the token was not sent" in ended.stderr
    assert server.connections == 1
    assert server.received == b""


def test_an_unknown_certificate_gets_no_token(tmp_path: Path, ca: trustme.CA) -> None:
    with serving_tls(ca.issue_cert(HOST)) as server:
        configure(tmp_path, server.base_url)
        assert_refused_untold(sync(tmp_path), server)


def test_an_expired_certificate_gets_no_token(tmp_path: Path, ca: trustme.CA) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    expired = ca.issue_cert(HOST, not_before=yesterday - timedelta(days=9), not_after=yesterday)
    with serving_tls(expired) as server:
        configure(tmp_path, server.base_url, f'ca_bundle = "{save_ca(ca, tmp_path / "ca.pem")}"')
        ended = sync(tmp_path)
        assert_refused_untold(ended, server)
        assert "expired" in ended.stderr


def test_a_certificate_of_another_host_gets_no_token(tmp_path: Path, ca: trustme.CA) -> None:
    with serving_tls(ca.issue_cert("another.test")) as server:
        configure(tmp_path, server.base_url, f'ca_bundle = "{save_ca(ca, tmp_path / "ca.pem")}"')
        assert_refused_untold(sync(tmp_path), server)


def test_a_certificate_of_a_ca_in_ca_bundle_is_trusted(tmp_path: Path, ca: trustme.CA) -> None:
    with serving_tls(ca.issue_cert(HOST), body([record(1)])) as server:
        configure(tmp_path, server.base_url, f'ca_bundle = "{save_ca(ca, tmp_path / "ca.pem")}"')
        ended = sync(tmp_path)
        assert ended.code == 0, ended.stderr
        assert f"authorization: {TOKEN}" in server.received.decode().lower()


def test_a_ca_bundle_is_all_that_is_trusted_then(tmp_path: Path, ca: trustme.CA) -> None:
    with serving_tls(ca.issue_cert(HOST)) as server:
        configure(tmp_path, server.base_url, f'ca_bundle = "{save_ca(trustme.CA(), tmp_path / "other.pem")}"')
        assert_refused_untold(sync(tmp_path), server)


def test_a_server_that_speaks_no_tls_gets_no_token(tmp_path: Path) -> None:
    heard: list[bytes] = []

    def answer_plainly(peer: Peer) -> None:
        heard.append(peer.read_request())
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n[]")

    with RawServer(answer_plainly) as server:
        address = server.base_url.replace("http:", "https:")
        configure(tmp_path, address, 'deadline = "3s"\nread_timeout = "1s"')
        assert sync(tmp_path).code == 69
    assert heard
    assert TOKEN.encode() not in b"".join(heard)


def test_plain_http_to_another_machine_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with RawServer(Peer.stall) as proxy:
        for address in ("http://source.test", "http://127.0.0.1.source.test", "http://10.0.0.1", "http://[::2]"):
            configure(tmp_path, address, f'proxy = "{proxy.base_url}"')
            assert sync(tmp_path).code == 78
        assert proxy.connections == 0


def test_nothing_in_the_environment_redirects_or_replaces_the_token(tmp_path: Path, ca: trustme.CA) -> None:
    (tmp_path / ".netrc").write_text(f"machine {HOST} login someone password else\ndefault login x password y\n")
    (tmp_path / ".netrc").chmod(0o600)
    bundle = str(save_ca(ca, tmp_path / "ca.pem"))
    with (
        SandboxServer(token=TOKEN) as server,
        RawServer(Peer.stall) as trap,
        serving_tls(ca.issue_cert(HOST)) as tls,
    ):
        proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        variables: dict[str, Any] = dict.fromkeys((*proxies, *map(str.lower, proxies)), trap.base_url)
        variables |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / ".netrc")}
        variables |= dict.fromkeys(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"), bundle)
        configure(tmp_path, server.base_url)
        assert sync(tmp_path, **variables).code == 0
        assert [request.headers["authorization"] for request in server.requests] == [TOKEN]
        configure(tmp_path, tls.base_url)
        assert_refused_untold(sync(tmp_path, **variables), tls)
        assert trap.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_the_token_nowhere(tmp_path: Path, status: int) -> None:
    with SandboxServer(token=TOKEN) as server, RawServer(Peer.stall) as trap:
        server.script(Answer(status, headers={"Location": f"{trap.base_url}/numbers"}))
        configure(tmp_path, server.base_url)
        assert sync(tmp_path).code == 76
        assert trap.connections == 0
        assert len(server.requests) == 1


# Files ----------------------------------------------------------------------------------------------------------------


def test_files_with_data_are_their_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(0o755)
    with RawServer(Peer.stall) as server:
        configure(
            home, server.base_url, source=f'token = "{TOKEN}"', more=f'[archive]\ndirectory = "{home}/kept/archive"'
        )
        saved = home / "body.json"
        saved.write_bytes(body([record(1)]))
        before = os.umask(0)
        try:
            assert sync(home, "--from-file", str(saved)).code == 0
            with running(home, server):
                modes = {file: stat.S_IMODE(file.stat().st_mode) for file in home.rglob("*")}
        finally:
            os.umask(before)
    ours = {
        file.relative_to(home): mode for file, mode in modes.items() if file.name not in ("config.toml", "body.json")
    }
    names = {file.name for file in ours}
    assert {"numbers.db", "numbers.db-wal", "numbers.db-shm", "numbers.db-source.main.lock", "kept", "archive"} <= names
    assert sum(name.endswith(".json.gz") for name in names) == 1
    for file, mode in ours.items():
        assert mode == (0o700 if (home / file).is_dir() else 0o600), f"{file} has mode {mode:o}"


def test_a_token_file_that_others_can_read_is_told_of(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(TOKEN)
    with SandboxServer(token=TOKEN) as server:
        configure(tmp_path, server.base_url, source=f'token_file = "{secret}"')
        for mode, warnings in ((0o644, 1), (0o640, 1), (0o600, 0)):
            secret.chmod(mode)
            ended = run("sync", cwd=tmp_path)
            assert ended.code == 0
            assert sum(line["action"] == "token_file_exposed" for line in ended.logged) == warnings
