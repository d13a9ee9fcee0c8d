"""Runs one command, or several joined by pipes, as whole processes and measures what they cost.

Wall time is from before the first process starts until the last one ended; CPU and peak memory are what the kernel
accounted to the processes (`wait4`), so interpreter start, imports and shutdown all count. This file runs as a process
of its own, started with `python -I -S`: a process inherits the peak memory of the one that forked it, so the one that
forks has to be small. It reads a JSON job from standard input and prints a JSON result; only the standard library is
used, and little of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

IO_FIELDS = ("wchar", "write_bytes")


class Overdue(Exception):  # noqa: N818 - said by the alarm, not an error of the program
    """The commands did not end in time."""


def on_alarm(_signal: int, _frame: object) -> None:
    raise Overdue


def start(job: dict[str, Any]) -> list[subprocess.Popen[bytes]]:
    """Start the commands, each one's output piped into the next."""
    processes: list[subprocess.Popen[bytes]] = []
    with open(job["stdout"], "wb") as stdout, open(job["stderr"], "wb") as stderr:  # noqa: PTH123 - pathlib is memory
        for position, command in enumerate(job["pipeline"]):
            last = position == len(job["pipeline"]) - 1
            process = subprocess.Popen(
                command,
                cwd=job["directory"],
                env=job["environment"],
                stdin=processes[-1].stdout if processes else subprocess.DEVNULL,
                stdout=stdout if last else subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
            if processes and processes[-1].stdout:
                # Only the reader may hold the pipe's end, or a writer would never learn that its reader died.
                processes[-1].stdout.close()
            processes.append(process)
    return processes


def written(pid: int) -> dict[str, int]:
    """Return what a process that ended, but was not waited for, has written to files."""
    try:
        with open(f"/proc/{pid}/io") as file:  # noqa: PTH123
            pairs = dict(line.split(": ") for line in file)
    except OSError:
        return {}
    return {name: int(pairs[name]) for name in IO_FIELDS}


def collect(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait for a process and return its bill."""
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    ended = time.perf_counter()
    io = written(process.pid)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "ended": ended,
        "exit_code": process.returncode,
        "cpu_user": usage.ru_utime,
        "cpu_system": usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
        **io,
    }


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run the job's pipeline to its end, or stop it when its time is over."""
    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, job["timeout"])
    began = time.perf_counter()
    processes = start(job)
    try:
        bills = [collect(process) for process in processes]
    except Overdue:
        for process in processes:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        return {"exit_code": None, "timed_out": True, "wall": time.perf_counter() - began}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {
        # The first failure of a pipeline is the one to look at; later ones follow from it.
        "exit_code": next((bill["exit_code"] for bill in bills if bill["exit_code"]), 0),
        "timed_out": False,
        "wall": max(bill["ended"] for bill in bills) - began,
        "cpu_client": sum(bill["cpu_user"] + bill["cpu_system"] for bill in bills),
        "peak_bytes": sum(bill["peak_bytes"] for bill in bills),
        **{name: sum(bill.get(name, 0) for bill in bills) for name in IO_FIELDS},
    }


if __name__ == "__main__":
    json.dump(measure(json.load(sys.stdin)), sys.stdout)
