"""Run the command line in a process of its own: forked from one that has the imports behind it, or a wholly new one."""

import faulthandler
import json
import multiprocessing
import os
import pwd
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import etl

_FORKS = multiprocessing.get_context("forkserver")
# What a run imports: a forked job begins where a new one would be after some 0.3 s of imports.
_FORKS.set_forkserver_preload(
    ["sqlite3", "etl.cli.sync", "etl.extract.client", "etl.extract.file", "etl.report.progress", "psycopg", "pymysql",
     "alembic", "alembic.command", "sqlalchemy.dialects.postgresql.psycopg",
     "sqlalchemy.dialects.mysql.pymysql", __name__]
)  # fmt: skip
TOKEN = "made-up-token-of-the-fault-suite"
SECONDS_TO_END = 60


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    code: int
    """Exit code; what a signal ended by itself is 128 more than its number, as a shell says it."""
    output: str
    errors: str
    seconds: float
    peak_bytes: int = 0

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The runs of `etl sync --json`."""
        found: list[dict[str, Any]] = json.loads(self.output)["runs"]
        return found

    def check_manners(self) -> None:
        """Check what holds for every ending: no traceback, no secret, nothing but one-line errors."""
        for text in (self.output, self.errors):
            assert "Traceback" not in text, text
            assert "Exception ignored" not in text, text
            assert TOKEN not in text, text


def write_config(
    folder: Path,
    database_url: str,
    sources: Mapping[str, str],
    *,
    http: Mapping[str, object] | None = None,
    guard: Mapping[str, object] | None = None,
    migrate: str = "auto",
) -> Path:
    """Write a configuration with one source per name and base URL; one attempt and short limits are the default."""
    sections: dict[str, Mapping[str, object]] = {
        "database": {"url": database_url, "migrate": migrate},
        "http": {"max_attempts": 1, "deadline": 20, "read_timeout": 10, "connect_timeout": 5, **(http or {})},
        "guard": guard or {},
    }
    lines = []
    for name, values in sections.items():
        # TOML's strings, numbers and booleans are written as JSON's.
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    for name, base_url in sources.items():
        lines += ["[[sources]]", f'name = "{name}"', f'base_url = "{base_url}"', f'token = "{TOKEN}"']
    path = folder / "config.toml"
    text = "\n".join(lines)
    # Other jobs may be reading it at this moment.
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return path


class ForkedJob:
    """A job that has begun."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        file_bytes: int | None = None,
    ) -> None:
        """Begin: `user` is whom root is to run it as, `file_bytes` the largest file it may write."""
        number = next(_numbers)
        self._output = folder / f"output-{number}"
        self._errors = folder / f"errors-{number}"
        for path in (self._output, self._errors):
            path.touch()
        self._began = time.monotonic()
        self._process = _FORKS.Process(
            target=_run,
            args=(
                arguments,
                {**clean_environment(), **(environment or {})},
                str(self._output),
                str(self._errors),
                user,
                file_bytes,
            ),
            daemon=True,
        )
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def signal(self, number: int) -> None:
        if self._process.is_alive():
            os.kill(self.pid, number)

    def wait(self, seconds: float = SECONDS_TO_END) -> Outcome:
        """Wait for the end; a job that takes longer is killed and fails the test."""
        self._process.join(seconds)
        if self._process.is_alive():
            os.kill(self.pid, signal.SIGABRT)  # which makes it say where it is
            self._process.join(5)
            self._process.kill()
            self._process.join()
            raise AssertionError(f"the job still ran after {seconds} s: {self._errors.read_text()}")
        code = self._process.exitcode or 0
        outcome = Outcome(
            128 - code if code < 0 else code,
            self._output.read_text(),
            self._errors.read_text(),
            time.monotonic() - self._began,
        )
        self._process.close()
        outcome.check_manners()
        return outcome


def _count() -> Any:
    number = 0
    while True:
        number += 1
        yield number


_numbers = _count()


def _run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    output: str,
    errors: str,
    user: str | None,
    file_bytes: int | None,
) -> None:
    for path, descriptor in ((output, 1), (errors, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as a new process has them
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115 - as above
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.enable(sys.stderr)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(Path(output).parent)
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    if user is not None:
        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    from etl.cli import console  # noqa: PLC0415 - belongs to the child

    sys.argv = ["etl", *arguments]
    console()


def run_new_process(
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    memory_bytes: int | None = None,
    meanwhile: Callable[[int], None] | None = None,
    seconds: float = SECONDS_TO_END,
) -> Outcome:
    """Run `python -m etl` to its end; `meanwhile` gets its process id, `memory_bytes` limits its address space."""
    output, errors = folder / "process-output", folder / "process-errors"

    def limit() -> None:
        if memory_bytes is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))

    began = time.monotonic()
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "etl", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            env={**clean_environment(), "PYTHONFAULTHANDLER": "1", **(environment or {})},
            preexec_fn=limit if memory_bytes is not None else None,  # noqa: PLW1509 - only a limit is set, without locks
        )
        if meanwhile:
            meanwhile(process.pid)
        status, peak_bytes = _wait(process.pid, began + seconds, errors)
        process.returncode = os.waitstatus_to_exitcode(status)
    code = process.returncode
    outcome = Outcome(
        128 - code if code < 0 else code,
        output.read_text(errors="replace"),
        errors.read_text(errors="replace"),
        time.monotonic() - began,
        peak_bytes,
    )
    outcome.check_manners()
    return outcome


def _wait(pid: int, end: float, errors: Path) -> tuple[int, int]:
    """Wait for a process to end; return its status and the most memory it had."""
    peak = 0
    while True:
        # Not the accounts that wait4() gives: they begin with the memory of the process that forked.
        peak = _peak_bytes(pid) or peak
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status, peak
        if time.monotonic() > end:
            os.kill(pid, signal.SIGABRT)  # which makes it say where it is
            os.waitpid(pid, 0)
            raise AssertionError(f"the process did not end in time: {errors.read_text(errors='replace')}")
        time.sleep(0.003)


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def clean_environment() -> dict[str, str]:
    """Return this process's environment without any configuration of the developer's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ETL_", "PYTEST"))}
    return kept | {"PYTHONPATH": str(Path(etl.__file__).parents[1])}


class Killer:
    """Sends a signal to a job, from whatever thread sees the moment come."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.fired = Event()
        self._aimed = Event()
        self._pid = 0

    def aim(self, job: ForkedJob) -> ForkedJob:
        self._pid = job.pid
        self._aimed.set()
        return job

    def fire(self, *_: object) -> None:
        """Send the signal; after SIGKILL, wait until nothing more can come from the job."""
        if self._aimed.wait(10):
            with suppress(ProcessLookupError):
                os.kill(self._pid, self.number)
            end = time.monotonic() + 2
            while self.number == signal.SIGKILL and time.monotonic() < end and _runs(self._pid):
                time.sleep(0.001)
            self.fired.set()


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
