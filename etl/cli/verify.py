"""`etl verify`: what was changed by hand, and with `--repair`, what the next sync is to restore."""

import argparse
from collections.abc import Sequence
from typing import Any

from etl.cli.output import print_json, print_lines, print_table
from etl.cli.reading import connected
from etl.config import Config, load_config
from etl.db.engine import open_engine
from etl.db.failures import database_failures
from etl.db.locks import exclusive_lock, source_lock
from etl.errors import DataRefusedError
from etl.health.archived import archived_records
from etl.health.repair import repair
from etl.health.verify import Finding, Mend, verify
from etl.load.runs import known_sources

_HEADINGS = ("Source", "Kind", "Table", "Id", "What is wrong", "What to do")


def run(options: argparse.Namespace) -> int:
    """Run the command; exit code 65 when anything is wrong and, with `--repair`, left for a person."""
    config = load_config(options.config)
    with connected(config) as connection:
        known = known_sources(connection)
    # A source that is configured no longer may still have rows.
    names = [name if name in known else config.source(name).name for name in options.source] or known
    findings: list[Finding] = []
    for name in dict.fromkeys(names):
        findings += _repaired(config, name) if options.repair else _verified(config, name)
    if options.json:
        print_json(
            {"repaired": options.repair, "findings": [_document(item, repaired=options.repair) for item in findings]}
        )
    else:
        _print(findings, repaired=options.repair)
    left = [item for item in findings if not options.repair or item.mend is Mend.PERSON]
    return DataRefusedError.exit_code if left else 0


def _verified(config: Config, source: str) -> list[Finding]:
    with connected(config) as connection:
        return list(verify(connection, source, archived_records(connection, config, source)))


def _repaired(config: Config, source: str) -> list[Finding]:
    engine = open_engine(config.database.url)
    # While the lock is held no run of the source changes a row, so what is found is what is repaired.
    with database_failures(), engine.connect() as connection, exclusive_lock(connection, source_lock(source)):
        findings = _verified(config, source)
        with connection.begin():
            repair(connection, source, findings)
        return findings


def _done(finding: Finding, *, repaired: bool) -> str:
    return _AFTER_REPAIR.get(finding.mend, finding.advice) if repaired else finding.advice


_AFTER_REPAIR = {
    Mend.COMPARE: "digests cleared: the next sync restores it",
    Mend.DELETE: "deleted",
    Mend.REOPEN: "it now begins with a run that is known",
}


def _document(finding: Finding, *, repaired: bool) -> dict[str, Any]:
    return {
        "source": finding.source,
        "kind": finding.kind,
        "table": finding.table,
        "key": list(finding.key),
        "what": finding.what,
        "mend": finding.mend,
        "what_to_do": _done(finding, repaired=repaired),
    }


def _print(findings: Sequence[Finding], *, repaired: bool) -> None:
    if not findings:
        print_lines(["nothing was changed by hand"])
        return
    rows = [
        (item.source, item.kind, item.table, "/".join(map(str, item.key)), item.what, _done(item, repaired=repaired))
        for item in findings
    ]
    print_table(_HEADINGS, rows)
