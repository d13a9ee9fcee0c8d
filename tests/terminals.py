"""Runs `etl` at a pseudo-terminal, as a person does."""

import errno
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.command import SECONDS_TO_END, environment

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\r")


@dataclass(frozen=True)
class Screen:
    """What a command wrote to its terminal, standard output and error alike."""

    code: int
    raw: str

    @property
    def text(self) -> str:
        """All that was ever shown, without colours and movements of the cursor."""
        return _CONTROL.sub("", self.raw)

    @property
    def lines(self) -> list[str]:
        """The text's lines, without those that are blank."""
        return [line.rstrip() for line in self.text.splitlines() if line.strip()]


def run_at_terminal(
    *arguments: str, cwd: Path, columns: int = 100, variables: Mapping[str, str] | None = None
) -> Screen:
    """Run `etl` with these arguments to its end, at a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "etl", *arguments],
        cwd=cwd,
        env=environment({"TERM": "xterm-256color"} | dict(variables or {})),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    with process:
        shown = _read_to_end(ours)
        code = process.wait(SECONDS_TO_END)
    os.close(ours)
    return Screen(code, shown.decode())


def _read_to_end(terminal: int) -> bytes:
    pieces: list[bytes] = []
    while True:
        try:
            piece = os.read(terminal, 65_536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            piece = b""  # how Linux says that nobody has the other end open
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
