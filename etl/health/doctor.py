"""All checks, in the order in which a run would come upon what they look at."""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from etl.config import Config, Source
from etl.errors import EtlError
from etl.health import database, files, network
from etl.health.finding import Finding, attempt, failed, ok, skipped

ConfigAndSources = tuple[Config, Sequence[Source]]


def examine(
    load: Callable[[], ConfigAndSources],
    find_file: Callable[[], Path | None],
    connect: Callable[[Config], Collection[str]],
) -> Iterator[Finding]:
    """Make all checks that can be made, whatever the others came to.

    load: reads the configuration and chooses the sources. find_file: tells which file it is from, if any.
    connect: makes the integrations that are configured, and returns their names.
    """
    try:
        config, sources = load()
    except EtlError as error:
        yield failed("configuration", error)
        for check in ("integrations", "file rights", *database.CHECKS, *network.CHECKS, "disk space"):
            yield skipped(check, "the configuration cannot be read")
        return
    file = find_file()
    names = ", ".join(source.name for source in sources)
    yield ok("configuration", f"{file or 'defaults and environment, no file'}; sources: {names}")
    yield from attempt("integrations", lambda: _integrations(config, connect))
    yield from attempt("file rights", lambda: files.file_rights(config, file, sources))
    yield from attempt("database", lambda: database.database_checks(config, sources))
    for source in sources:
        yield from attempt("source", lambda: network.network_checks(source, config.http), source.name)  # noqa: B023 - called at once
    yield from attempt("disk space", lambda: files.disk_space(config))


def _integrations(config: Config, connect: Callable[[Config], Collection[str]]) -> Iterator[Finding]:
    names = connect(config)
    yield ok("integrations", f"{', '.join(names)} can be used" if names else "none is configured")
    yield from files.textfile_folder(config)


def exit_code(findings: Sequence[Finding]) -> int:
    """Exit code of the command: that of the first check that failed."""
    return next((finding.exit_code for finding in findings if finding.exit_code), 0)
