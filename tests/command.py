"""Runs `etl` as a person or cron does: a real process, in an environment that holds nothing of the developer's."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import etl

CHECKOUT = Path(etl.__file__).parents[1]
SECONDS_TO_END = 60


@dataclass(frozen=True)
class Ended:
    """What a finished command left."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """Standard output as the one JSON document that `--json` promises; anything beside it is an error."""
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        """The one line that an error is, without its prefix."""
        errors = [line.removeprefix("etl: ") for line in self.stderr.splitlines() if line.startswith("etl: ")]
        assert len(errors) == 1, self.stderr
        return errors[0]

    @property
    def logged(self) -> list[dict[str, Any]]:
        """The JSON lines of the log."""
        return [json.loads(line) for line in self.stderr.splitlines() if line.startswith("{")]


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a small environment in which this checkout is the installed package."""
    clean = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "PYTHONPATH": str(CHECKOUT)}
    return clean | dict(variables or {})


def run(*arguments: str, cwd: Path, variables: Mapping[str, str] | None = None, python: str = sys.executable) -> Ended:
    """Run `etl` with these arguments to its end."""
    process = start(*arguments, cwd=cwd, variables=variables, python=python)
    return end(process)


def start(
    *arguments: str, cwd: Path, variables: Mapping[str, str] | None = None, python: str = sys.executable
) -> subprocess.Popen[str]:
    """Start `etl` with these arguments; `end()` waits for it."""
    return subprocess.Popen(
        [python, "-m", "etl", *arguments],
        cwd=cwd,
        env=environment(variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def end(process: subprocess.Popen[str]) -> Ended:
    """Wait for a command to end, and kill it if it does not."""
    with process:
        try:
            stdout, stderr = process.communicate(timeout=SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return Ended(process.returncode, stdout, stderr)
