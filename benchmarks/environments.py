"""One virtual environment per candidate, made with pip: peers never share the project's dependencies, nor each other's.

What a peer needs is pinned in `requirements/NAME.txt`. Environments are kept in `.environments/`, beside this file and
ignored by git, and made anew when their requirements or the interpreter change. The job's own environment gets the
checkout as a user would install it, not as an editable link, and anew each time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = Path(__file__).resolve().parent / ".environments"
REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
INSTALL_SECONDS = 900
JOB = "job"


class EnvironmentsInUse(Exception):  # noqa: N818 - a fact about the machine, reported
    """Another benchmark runs from this checkout."""


class EnvironmentFailed(Exception):  # noqa: N818 - a fact about a candidate, reported and skipped
    """An environment could not be made; the message is the end of what pip said."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment of one candidate."""

    name: str
    directory: Path

    @property
    def python(self) -> str:
        """The environment's interpreter."""
        return str(self.directory / "bin" / "python")

    def program(self, name: str) -> str:
        """Return the path of a console script."""
        return str(self.directory / "bin" / name)

    def versions(self) -> dict[str, str]:
        """Return every installed distribution with its version."""
        listed = json.loads(pip(self, "list", "--format=json"))
        return {entry["name"]: entry["version"] for entry in listed}


@contextlib.contextmanager
def reserved() -> Iterator[None]:
    """Keep other benchmarks of this checkout out: one would install anew what the other is measuring."""
    KEPT.mkdir(exist_ok=True)
    with (KEPT / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EnvironmentsInUse("another benchmark runs from this checkout; wait for its end") from error
        yield


def pip(environment: Environment, *arguments: str) -> str:
    """Run the environment's pip and return what it printed."""
    command = [environment.python, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode:
        raise EnvironmentFailed(done.stderr.strip()[-1500:])
    return done.stdout


def fingerprint(name: str) -> str:
    """Return what an environment depends on, so that a change makes it anew."""
    source = ROOT / "pyproject.toml" if name == JOB else REQUIREMENTS / f"{name}.txt"
    return hashlib.sha256(f"{sys.version}\n{source.read_text()}".encode()).hexdigest()


def ensure(name: str) -> Environment:
    """Return a candidate's environment, made or brought up to date when it has to be."""
    environment = Environment(name, KEPT / name)
    stamp = environment.directory / "fingerprint"
    if not stamp.exists() or stamp.read_text() != fingerprint(name):
        shutil.rmtree(environment.directory, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", environment.directory], check=True, timeout=INSTALL_SECONDS)
        wanted = [f"{ROOT}[postgresql,mysql]"] if name == JOB else ["-r", str(REQUIREMENTS / f"{name}.txt")]
        pip(environment, "install", *wanted)
        stamp.write_text(fingerprint(name))
    if name == JOB:
        # The dependencies are there; the checkout may have changed since.
        pip(environment, "install", "--no-deps", "--force-reinstall", str(ROOT))
    return environment
