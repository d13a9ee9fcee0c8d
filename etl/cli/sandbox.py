"""`etl sandbox`: the source API on loopback."""

import argparse
import sys

from etl.cli.output import print_lines
from etl.errors import UnavailableError
from etl.sandbox import Account, SandboxServer


def run(options: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    account = Account.generate(options.numbers, seed=options.seed)
    try:
        server = SandboxServer(
            account, token=options.token, port=options.port, churn=options.churn, on_request=_log_request
        )
    except OSError as error:
        raise UnavailableError(
            f"port {options.port}: {error.strerror}; choose another with --port", code="port_taken"
        ) from None
    print_lines(
        [
            f"serving {options.numbers} numbers at {server.base_url}; stop with Ctrl-C. In another terminal:",
            f"  ETL_BASE_URL={server.base_url} ETL_TOKEN={options.token} etl sync",
        ]
    )
    sys.stdout.flush()
    server.serve_forever()
    return 0


def _log_request(line: str) -> None:
    sys.stderr.write(f"{line}\n")
