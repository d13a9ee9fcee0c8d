"""`etl db`: migrations."""

import argparse

from etl.cli.output import print_json, print_lines
from etl.config import Config, load_config
from etl.db.reading import current_only
from etl.db.revision import needed_revision
from etl.errors import ConfigError


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    config = load_config(options.config)
    revision = {"upgrade": _upgrade, "downgrade": _downgrade, "current": _current, "check": _check}[options.action](
        config, options
    )
    if options.json:
        print_json({"revision": revision, "needed_revision": needed_revision()})
    else:
        print_lines([revision or "no schema"])
    return 0


def _upgrade(config: Config, _: argparse.Namespace) -> str | None:
    from etl.db.migrate import upgrade  # noqa: PLC0415 - the other actions only look

    upgrade(config.database.url)
    return needed_revision()


def _downgrade(config: Config, options: argparse.Namespace) -> str | None:
    from etl.db.migrate import downgrade  # noqa: PLC0415 - as above

    return downgrade(config.database.url, options.revision, accept_loss=options.yes)


def _current(config: Config, _: argparse.Namespace) -> str | None:
    return current_only(config.database.url)


def _check(config: Config, options: argparse.Namespace) -> str | None:
    revision = _current(config, options)
    if revision != needed_revision():
        have = f"at revision {revision}" if revision else "without a schema"
        raise ConfigError(f"the database is {have}, this version needs {needed_revision()}: run `etl db upgrade`",
                          code="schema_old")  # fmt: skip
    return revision
