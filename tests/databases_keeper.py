"""Runs one database server in the background and ends it as soon as its owner is gone.

Started as a script by `tests.databases_servers`, with the standard library alone. The owner is whoever holds a POSIX
lock on the file `owner`: the kernel gives the lock up when that process ends, however it ends, so neither Ctrl-C nor
SIGKILL leaves a server behind. The file `running` beside the server's data names the server's process and is locked
(flock, which children inherit) for as long as any process of the server is alive.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import threading
from pathlib import Path

SECONDS_TO_END = 5


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--owner", type=Path, required=True, help="file whose lock the owner holds")
    parser.add_argument("--folder", type=Path, required=True, help="the server's folder")
    parser.add_argument("--end-signal", type=int, required=True, help="ends the server at once, its data being forfeit")
    parser.add_argument("--user", type=int, help="user id to run the server as")
    parser.add_argument("--group", type=int, help="group id to run the server as")
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


def start_server(arguments: argparse.Namespace, running: int) -> subprocess.Popen[bytes]:
    with (arguments.folder / "log").open("wb") as log:
        return subprocess.Popen(
            arguments.command,
            cwd=arguments.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[running],
            user=arguments.user,
            group=arguments.group,
            extra_groups=None if arguments.user is None else [],
        )


def end_server(server: subprocess.Popen[bytes], end_signal: int) -> None:
    server.send_signal(end_signal)
    try:
        server.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        server.kill()


def remove_once_all_ended(home: Path) -> None:
    """Remove the owner's whole folder, which other servers may still be using for a moment."""
    for path in home.glob("*/running"):
        with path.open("rb") as running:
            fcntl.flock(running, fcntl.LOCK_SH)
    shutil.rmtree(home, ignore_errors=True)


def main() -> None:
    arguments = parse_arguments()
    if os.fork():
        return  # the caller reads until the child below closes standard output
    os.setsid()  # a terminal's Ctrl-C is for the test run, which then ends the server in good order
    running = os.open(arguments.folder / "running", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    fcntl.flock(running, fcntl.LOCK_SH)
    server = start_server(arguments, running)
    os.write(running, f"{server.pid} {arguments.end_signal}".encode())
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    os.dup2(1, 2)

    orphaned = threading.Event()

    def watch_owner() -> None:
        with arguments.owner.open("rb") as owner:
            fcntl.lockf(owner, fcntl.LOCK_SH)
        orphaned.set()
        end_server(server, arguments.end_signal)

    threading.Thread(target=watch_owner, daemon=True).start()
    server.wait()
    os.close(running)
    if orphaned.is_set():
        remove_once_all_ended(arguments.owner.parent)


if __name__ == "__main__":
    main()
