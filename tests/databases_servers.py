"""What PostgreSQL and MariaDB servers of the tests' own have in common: a temporary folder, a port on loopback, an end.

No server touches an instance of the system, and each ends with the process that owns its folder (see `ServerHome`).
Settings are a stock Debian server's, traps included, save that nothing waits for the disk and that the time zone is not
UTC: code that leans on the server's clock shows. A killed server that starts again has every committed transaction.
"""

import fcntl
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from sqlalchemy import URL, Engine, NullPool, create_engine
from sqlalchemy.exc import OperationalError

KEEPER = Path(__file__).with_name("databases_keeper.py")
HOST = "127.0.0.1"
OWNER = "etl"  # an ordinary user, whom the tests' databases belong to
SECONDS_TO_START = 60
SECONDS_TO_STOP = 30


class ServerUnavailableError(Exception):
    """The machine lacks a server; the message says what to install."""


class ServerFailedError(Exception):
    """A server did not start or stop."""


def is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def wait_until_ended(running: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_STOP
    while is_locked(running):
        if time.monotonic() > deadline:
            raise ServerFailedError(f"the server of {running.parent} still runs after {SECONDS_TO_STOP} s")
        time.sleep(0.005)


def free_port() -> int:
    """Find a port below those for outgoing connections, so that a stopped server finds it free when it starts again."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        return port
    raise ServerFailedError("no free port")


def roomy_memory() -> Path | None:
    """Find a file system in memory: a new PostgreSQL database takes 10 ms there, and up to 200 on a slow disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK | os.X_OK):
        return None
    facts = os.statvfs(memory)
    roomy = facts.f_bavail * facts.f_frsize >= 1 << 30
    return memory if roomy and not facts.f_flag & os.ST_NOEXEC else None


class ServerHome:
    """A temporary folder for servers; they and it are gone once it is closed or the process that made it has ended."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="etl-tests-", dir=roomy_memory()))
        self.folder.chmod(0o711)  # PostgreSQL does not run as root and must reach its own folder inside
        self._owner = (self.folder / "owner").open("wb")
        fcntl.lockf(self._owner, fcntl.LOCK_EX)

    def close(self) -> None:
        running = {path: path.read_text().split() for path in self.folder.glob("*/running") if is_locked(path)}
        named = {path: process for path, process in running.items() if process}
        for pid, end_signal in named.values():
            os.kill(int(pid), int(end_signal))
        for path in named:
            wait_until_ended(path)
        # A process that was killed while it started a server may have left one without a name; its keeper ends it now.
        self._owner.close()
        for path in running:
            wait_until_ended(path)
        shutil.rmtree(self.folder, ignore_errors=True)


class Server(ABC):
    """One server: `create` makes it, `attach` finds it from another process of the same test run."""

    kind: ClassVar[str]
    drivername: ClassVar[str]
    url_query: ClassVar[Mapping[str, str]] = {}
    connect_args: ClassVar[Mapping[str, Any]] = {}
    admin: ClassVar[str]
    admin_database: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    end_signal: ClassVar[signal.Signals]

    def __init__(self, folder: Path, port: int, password: str) -> None:
        self.folder = folder
        self.port = port
        self.password = password

    @classmethod
    def create(cls, home: Path) -> Self:
        """Start a new server inside the folder of a `ServerHome`."""
        folder = Path(tempfile.mkdtemp(prefix=f"{cls.kind}-", dir=home))
        password = secrets.token_hex(8)
        cls(folder, 0, password).prepare()
        for _ in range(5):
            server = cls(folder, free_port(), password)
            try:
                server.start()
            except ServerFailedError as error:
                if "Address already in use" not in str(error):
                    raise
            else:
                server.create_user(OWNER, password)
                server.allow_owner()
                return server
        raise ServerFailedError("five ports in a row were taken by others")

    @classmethod
    def attach(cls, facts: str) -> Self:
        found = json.loads(facts)
        return cls(Path(found["folder"]), found["port"], found["password"])

    @property
    def facts(self) -> str:
        """What `attach` needs."""
        return json.dumps({"folder": str(self.folder), "port": self.port, "password": self.password})

    @property
    def running(self) -> bool:
        return is_locked(self.folder / "running")

    @property
    def admin_url(self) -> str:
        return self.url(self.admin_database, self.admin)

    def url(self, database: str, user: str = OWNER, password: str | None = None) -> str:
        url = URL.create(self.drivername, user, password or self.password, HOST, self.port, database, self.url_query)
        return url.render_as_string(hide_password=False)

    def start(self) -> None:
        """Start, also after `stop` or `kill`: with the same data, on the same port."""
        owner = self.folder.parent / "owner"
        keeper = [sys.executable, "-I", "-S", str(KEEPER), f"--owner={owner}", f"--folder={self.folder}"]
        keeper += [f"--end-signal={int(self.end_signal)}", *self.keeper_options(), "--", *self.command()]
        subprocess.run(keeper, check=True, stdout=subprocess.PIPE, env=server_environment())
        deadline = time.monotonic() + SECONDS_TO_START
        while not self._accepts_connections():
            if not self.running or time.monotonic() > deadline:
                log = (self.folder / "log").read_text(errors="replace")
                raise ServerFailedError(f"{self.kind} did not start: {log[-2000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop in good order, without waiting for clients."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """Kill with SIGKILL and wait until the last of the server's processes is gone."""
        self._end(signal.SIGKILL)

    def disconnect(self) -> None:
        """Close this process's connection as the administrator."""
        self._engine.dispose()

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """Execute statements as the administrator, on one connection; return the last one's rows."""
        rows: list[tuple[Any, ...]] = []
        with self._engine.connect() as connection:
            for statement in statements:
                result = connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
                rows = [tuple(row) for row in result] if result.returns_rows else []
        return rows

    def execute_in(self, database: str, script: str) -> list[tuple[Any, ...]]:
        """Execute a script as the administrator in another database; return its rows."""
        engine = create_engine(
            self.url(database, self.admin),
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args=dict(self.connect_args),
        )
        with engine.connect() as connection:
            result = connection.exec_driver_sql(script, execution_options={"no_parameters": True})
            return [tuple(row) for row in result] if result.returns_rows else []

    def identifier(self, name: str) -> str:
        return self._engine.dialect.identifier_preparer.quote_identifier(name)

    def literal(self, text: str) -> str:
        """Quote a string by the standard's rules."""
        return "'" + text.replace("'", "''") + "'"

    def keeper_options(self) -> list[str]:
        return []

    @abstractmethod
    def prepare(self) -> None:
        """Fill the empty folder with the data of a new instance."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground."""

    @abstractmethod
    def create_user(self, name: str, password: str) -> None:
        """Create a user who may log in and nothing else."""

    @abstractmethod
    def allow_owner(self) -> None:
        """Let `OWNER` have databases."""

    @abstractmethod
    def create_database(self, name: str) -> None:
        """Create an empty database that belongs to `OWNER`; the name must start with `test_`."""

    @abstractmethod
    def clone_database(self, template: str, name: str) -> None:
        """Create a database equal to another one, to which nobody is connected."""

    @abstractmethod
    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, whoever is connected to it."""

    @cached_property
    def _engine(self) -> Engine:
        return create_engine(
            self.admin_url,
            pool_size=1,
            pool_pre_ping=True,
            isolation_level="AUTOCOMMIT",
            connect_args=dict(self.connect_args),
        )

    def _accepts_connections(self) -> bool:
        try:
            self.execute("SELECT 1")
        except OperationalError:
            return False
        return True

    def _end(self, how: signal.Signals) -> None:
        self.disconnect()
        running = self.folder / "running"
        if is_locked(running):
            os.kill(int(running.read_text().split()[0]), how)
            wait_until_ended(running)


def server_environment() -> dict[str, str]:
    """Return an environment without the variables that either server or its set-up would obey."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}


def run_setup(command: list[str], **options: Any) -> None:
    """Run a program that sets up an instance, with options of `subprocess.run`."""
    result = subprocess.run(
        command,
        env=server_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
    if result.returncode:
        raise ServerFailedError(f"{Path(command[0]).name}: {result.stdout[-2000:]}")


@contextmanager
def private_server(server_type: type[Server]) -> Iterator[Server]:
    """Run a server for one test, which may stop, kill and restart it."""
    home = ServerHome()
    try:
        server = server_type.create(home.folder)
        yield server
        server.disconnect()
    finally:
        home.close()
