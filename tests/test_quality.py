"""Lint, formatting, types and import layers, run by the same command as the tests."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.command import CHECKOUT, environment

PYPROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
# The first releases without a known vulnerability; an audit needs a database that not every machine can reach.
SAFE_FLOORS = {"requests": (2, 33), "urllib3": (2, 8)}
TOP_LEVEL = {
    ".ci", ".gitignore", "CHANGELOG.md", "LICENSE", "README.md", "benchmarks", "config.example.toml", "deploy", "docs",
    "etl", "migrations", "pyproject.toml", "tests",
}  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["-m", "ruff", "check", "."], id="lint"),
        pytest.param(["-m", "ruff", "format", "--check", "."], id="format"),
        pytest.param(["-m", "mypy"], id="types"),
        pytest.param(["-c", "from importlinter.cli import lint_imports_command as run; run()"], id="layers"),
    ],
)
def test_the_sources_pass(command: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, *command], cwd=CHECKOUT, env=environment(), capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("package", SAFE_FLOORS)
def test_no_version_with_a_known_vulnerability_is_allowed(package: str) -> None:
    floor = SAFE_FLOORS[package]
    declared = next(text for text in PYPROJECT["project"]["dependencies"] if re.match(rf"{package}\b", text))

    assert numbers(declared.partition(">=")[2]) >= floor
    assert numbers(version(package)) >= floor


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition(",")[0])[:2])


def test_the_top_level_holds_only_what_is_needed_there() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    if not tracked:
        pytest.skip("not a git checkout")

    assert {name.split("/")[0] for name in tracked} == TOP_LEVEL


def test_no_module_has_grown_too_large_to_read() -> None:
    lines = {
        path.relative_to(CHECKOUT): len(path.read_text(encoding="utf-8").splitlines())
        for path in Path(CHECKOUT, "etl").rglob("*.py")
    }

    assert {path: count for path, count in lines.items() if count > 450} == {}
