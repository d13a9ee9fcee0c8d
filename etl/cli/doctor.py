"""`etl doctor`: is everything as a run needs it, and if not, what to do."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from etl.cli.output import print_json, print_lines, print_table
from etl.config import Config, Source, find_config, load_config
from etl.health.doctor import examine, exit_code
from etl.health.finding import Finding, State
from etl.integrations import observers

_STYLES = {"ok": "green", "warning": "bold yellow", "failed": "bold red", "skipped": "dim"}


def run(options: argparse.Namespace) -> int:
    """Run the command; its exit code is that of the first check that failed."""

    def load() -> tuple[Config, Sequence[Source]]:
        config = load_config(options.config)
        return config, config.chosen(options.source)

    findings = list(examine(load, lambda: find_config(options.config), observers))
    code = exit_code(findings)
    if options.json:
        print_json({"exit_code": code, "checks": [asdict(finding) for finding in findings]})
        return code
    rows = [(finding.state, finding.check, finding.source or "", _words(finding)) for finding in findings]
    print_table(("Result", "Check", "Source", "Finding"), rows, styles=_STYLES)
    counts = {state: sum(finding.state == state for finding in findings) for state in State}
    print_lines(["", ", ".join(f"{count} {state}" for state, count in counts.items() if count)])
    return code


def _words(finding: Finding) -> str:
    return f"{finding.message}: {finding.advice}" if finding.advice else finding.message
