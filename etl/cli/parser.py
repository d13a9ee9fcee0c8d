"""All commands and their options, described once; the README's reference is tested against the help this makes."""

import argparse
import re
from typing import Any

from etl import __version__

_DESCRIPTION = """\
Loads the outgoing-call numbers of MegaFon's virtual PBX into a relational database, with history.

`etl demo` shows the whole job without an account or a server."""

_CODES = """\
exit codes: 0 in sync · 1 stale (status) · 2 wrong usage · 65 data refused · 69 unreachable · 70 a bug ·
74 disk or file · 75 another run in progress · 76 unexpected HTTP status · 77 not allowed · 78 configuration ·
130/143 interrupted"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; the option `module` names the module that runs the command."""
    parser = argparse.ArgumentParser(
        prog="etl", description=_DESCRIPTION, epilog=_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"virtual-numbers-etl {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_sync(commands)
    _add_schedule(commands)
    _add_status(commands)
    _add_doctor(commands)
    _add_changes(commands)
    _add_quarantine(commands)
    _add_verify(commands)
    _add_archive(commands)
    _add_prune(commands)
    _add_database(commands)
    _add_sandbox(commands)
    _add_demo(commands)
    return parser


def _add(commands: Any, name: str, summary: str, module: str, details: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.{f' {details}' if details else ''}",
    )
    parser.set_defaults(module=module, stays_up=False)
    parser.add_argument(
        "--config", metavar="FILE", help="configuration; else $ETL_CONFIG, else config.toml here if there is one"
    )
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source", metavar="NAME", action="append", default=[], help="only this source; may be given several times"
    )


def _add_loudness(parser: argparse.ArgumentParser) -> None:
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="say nothing unless something is wrong")
    loudness.add_argument("-v", "--verbose", action="store_true", help="log every step, on a terminal too")


def _add_sync(commands: Any) -> None:
    parser = _add(commands, "sync", "bring the tables up to date with the source, once", "sync")
    _add_sources(parser)
    parser.add_argument("--dry-run", action="store_true", help="show what would change; write nothing at all")
    parser.add_argument(
        "--accept-removals",
        metavar="N",
        type=count,
        help="let this one run remove up to N numbers although the guard would refuse",
    )
    parser.add_argument("--from-file", metavar="FILE", help="load a saved response body, plain or gzip; needs no token")
    _add_json(parser)
    _add_loudness(parser)


def _add_schedule(commands: Any) -> None:
    parser = _add(
        commands,
        "schedule",
        "stay up and sync on the configured cron expression",
        "schedule",
        "A run starts at once if one is overdue. SIGTERM or Ctrl-C rolls back what is open and ends it.",
    )
    _add_sources(parser)
    _add_loudness(parser)


def _add_status(commands: Any) -> None:
    parser = _add(
        commands,
        "status",
        "show how fresh each source's data is, and its last runs",
        "status",
        "Exit code 1 when a source has no successful run or, with --max-age, none that is recent enough.",
    )
    parser.add_argument(
        "--max-age", metavar="AGE", type=duration, help='how old the last success may be, such as "90m" or "2h"'
    )
    _add_sources(parser)
    _add_json(parser)


def _add_doctor(commands: Any) -> None:
    parser = _add(
        commands,
        "doctor",
        "check everything that a run needs, and say what to do about what is wrong",
        "doctor",
        "Writes nothing. The exit code is that of the first check that failed; warnings leave it at 0.",
    )
    _add_sources(parser)
    _add_json(parser)


def _add_changes(commands: Any) -> None:
    parser = _add(commands, "changes", "show what was added, changed (field by field) and removed", "changes")
    parser.add_argument(
        "--since",
        metavar="WHEN",
        help='a date or time in UTC ("2026-11-24", "2026-11-24T09:30"), or an age ("24h", "7d")',
    )
    parser.add_argument("--run", metavar="N", type=count, help="only what this run changed")
    parser.add_argument("--number", metavar="N", help="only this phone number, or the number of this id")
    parser.add_argument("--source", metavar="NAME", help="only this source")
    _add_json(parser)


def _add_quarantine(commands: Any) -> None:
    parser = _add(commands, "quarantine", "show the records that were not loaded, and why", "quarantine")
    parser.add_argument("--all", action="store_true", help="also those that the source has since mended or dropped")
    parser.add_argument("--source", metavar="NAME", help="only this source")
    _add_json(parser)


def _add_verify(commands: Any) -> None:
    parser = _add(
        commands,
        "verify",
        "find what was changed in the tables by hand",
        "verify",
        "Compares every live number with its digest and with the archived body, and history with the log of runs. Exit "
        "code 65 when anything is wrong and, with --repair, left for a person.",
    )
    # It looks at many batches: what each leaves behind has to be cleared away.
    parser.set_defaults(stays_up=True)
    parser.add_argument(
        "--repair",
        action="store_true",
        help="prepare what was found for the next sync to restore; history stays as it is",
    )
    _add_sources(parser)
    _add_json(parser)


def _add_archive(commands: Any) -> None:
    summary = "list stored response bodies, or load one again"
    group = commands.add_parser("archive", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    actions = group.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = _add(actions, "list", "list the stored response bodies and how their runs ended", "archive")
    replay = _add(
        actions,
        "replay",
        "load a stored response body again, in a run of its own",
        "archive",
        "Needs no token. Guard, quarantine and exit codes are those of `etl sync`.",
    )
    replay.add_argument("run", metavar="RUN", type=count, nargs="?", help="the run that received the body")
    replay.add_argument(
        "--all",
        action="store_true",
        help="all accepted bodies of one source that are newer than what the database has, in order: into an empty "
        "database, this makes it anew",
    )
    replay.add_argument("--older", action="store_true", help="also a body older than what was accepted since")
    replay.add_argument(
        "--accept-removals",
        metavar="N",
        type=count,
        help="let this one run remove up to N numbers although the guard would refuse",
    )
    replay.add_argument("--dry-run", action="store_true", help="show what would change; write nothing at all")
    for name, parser in (("list", listing), ("replay", replay)):
        parser.set_defaults(action=name)
        parser.add_argument("--source", metavar="NAME", help="only this source")
        _add_json(parser)


def _add_prune(commands: Any) -> None:
    parser = _add(
        commands,
        "prune",
        "delete runs, closed quarantine and history older than the ages in [retention]",
        "prune",
        "With --source, put away a source that is no longer configured.",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would go; write nothing at all")
    parser.add_argument(
        "--source",
        metavar="NAME",
        help="move all that is live of this source, which is no longer configured, into history",
    )
    parser.add_argument("--forget", action="store_true", help="delete all that the database holds of that source")
    parser.add_argument("--yes", action="store_true", help="agree to the loss of what --forget deletes")
    _add_json(parser)


def _add_database(commands: Any) -> None:
    summary = "bring the database's schema to a revision, or tell where it is"
    group = commands.add_parser("db", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    actions = group.add_subparsers(title="actions", metavar="ACTION", required=True)
    upgrade = _add(actions, "upgrade", "bring the schema to the revision this version needs", "database")
    downgrade = _add(actions, "downgrade", "bring the schema back to an earlier revision", "database")
    downgrade.add_argument("revision", metavar="REV", help='a revision, "base" for none at all, or steps such as "-1"')
    downgrade.add_argument("--yes", action="store_true", help="agree to the loss of the rows this deletes")
    current = _add(actions, "current", "print the schema's revision", "database")
    check = _add(actions, "check", "exit with 78 unless the schema is at the revision this version needs", "database")
    for name, parser in (("upgrade", upgrade), ("downgrade", downgrade), ("current", current), ("check", check)):
        parser.set_defaults(action=name)
        _add_json(parser)
    # A revision such as -1 must not be taken for an option.
    downgrade._negative_number_matcher = re.compile(r"^-\d+$")  # argparse has no public way


def _add_sandbox(commands: Any) -> None:
    parser = _add(
        commands,
        "sandbox",
        "serve the source API on loopback with generated numbers",
        "sandbox",
        "Stop it with Ctrl-C.",
    )
    parser.set_defaults(stays_up=True)
    parser.add_argument(
        "--port", metavar="N", type=port, default=8080, help="port on 127.0.0.1, 0 for any (default: 8080)"
    )
    parser.add_argument("--numbers", metavar="N", type=count, default=100, help="numbers in the account (default: 100)")
    parser.add_argument(
        "--seed", metavar="N", type=int, default=1, help="the same seed makes the same numbers (default: 1)"
    )
    parser.add_argument("--token", metavar="TOKEN", default="sandbox", help="token to ask for (default: sandbox)")
    parser.add_argument(
        "--churn",
        metavar="SHARE",
        type=share,
        default=0.0,
        help="share of the numbers that change between requests, 0 to 1",
    )


def _add_demo(commands: Any) -> None:
    parser = _add(
        commands,
        "demo",
        "show the whole job, end to end, with no set-up",
        "demo",
        "A local copy of the API, two syncs with changes in between, and what an analyst would ask.",
    )
    parser.add_argument(
        "--database", metavar="FILE", default="numbers-demo.db", help="SQLite file to make (default: numbers-demo.db)"
    )
    parser.add_argument("--numbers", metavar="N", type=count, default=200, help="numbers in the account (default: 200)")


def count(text: str) -> int:
    """Return a whole number that is not negative; raises ValueError otherwise."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def duration(text: str) -> float:
    """Return the seconds in `90`, `30s`, `15m`, `2h` or `7d`; raises ArgumentTypeError otherwise."""
    from etl.config import parse_duration  # noqa: PLC0415 - the help is shown without reading any configuration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def port(text: str) -> int:
    """Return a port; raises ValueError otherwise."""
    value = count(text)
    if value > 65_535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: 0 to 65535")
    return value


def share(text: str) -> float:
    """Return a share from 0 to 1; raises ValueError otherwise."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share: 0 to 1")
    return value
