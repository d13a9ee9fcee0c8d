"""The documents say what the program does."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from etl import __version__
from etl.cli.parser import build_parser
from etl.config import load_config
from tests.command import CHECKOUT
from tests.databases import Database
from tests.loading import loading
from tests.snapshots import record

DOCUMENTS = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md")])
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
CONTRACT_CODES = {"0", "1", "2", "65", "69", "70", "74", "75", "76", "77", "78", "130, 143"}


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def all_parsers(parser: argparse.ArgumentParser, name: str = "etl") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield name, parser
    for word, child in subparsers(parser).items():
        yield from all_parsers(child, f"{name} {word}")


PARSERS = dict(all_parsers(build_parser()))


def test_the_readme_lists_every_command_and_no_other() -> None:
    listed = set(re.findall(r"^\| `etl (\w+)` \|", README, flags=re.MULTILINE))

    assert listed == set(subparsers(build_parser()))


def test_the_readme_lists_every_exit_code() -> None:
    listed = re.findall(r"^\| (\d+(?:, \d+)?) \|", README, flags=re.MULTILINE)

    assert set(listed) == CONTRACT_CODES


def test_the_readme_has_exactly_two_set_up_commands_near_its_top() -> None:
    top = README.partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", top, flags=re.DOTALL)

    assert len(blocks) == 2
    assert all(len(block.strip().splitlines()) == 1 for block in blocks)
    assert "etl demo" in blocks[0]
    assert "pytest" in blocks[1]


@pytest.mark.parametrize("name", PARSERS)
def test_every_command_explains_itself_and_its_options(name: str) -> None:
    parser = PARSERS[name]
    unexplained = [action.dest for action in parser._actions if not action.help and not subparsers(parser)]

    assert parser.description
    assert unexplained == []
    assert max(len(line) for line in parser.format_help().splitlines()) <= 120


def commands_in(document: Path) -> list[str]:
    text = document.read_text(encoding="utf-8")
    quoted = re.findall(r"`(etl [^`\n]+)`", text)
    shell = [
        line
        for block in re.findall(r"```(?:sh|console)\n(.*?)```", text, flags=re.DOTALL)
        for line in block.splitlines()
    ]
    # There, `etl` is the name of a candidate.
    shell = [line for line in shell if "benchmarks.run" not in line]
    return quoted + [found for line in shell for found in re.findall(r"(?:^|[ /;&])(etl [a-z][^#;&|]*)", line)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_every_command_that_a_document_names_exists_with_its_options(document: Path) -> None:
    for command in commands_in(document):
        words = command.split()
        name = "etl"
        while len(words) > len(name.split()) and f"{name} {words[len(name.split())]}" in PARSERS:
            name = f"{name} {words[len(name.split())]}"
        known = {option for action in PARSERS[name]._actions for option in action.option_strings}
        used = {
            word.partition("=")[0].strip("[]…,.")
            for word in words
            if word.startswith("-") and word[1:2].isalpha() | (word[:2] == "--")
        }

        assert name != "etl" or len(words) == 1 or words[1].startswith(("-", "…")), f"{document.name}: {command}"
        assert used <= known, f"{document.name}: {command}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_every_link_within_the_repository_leads_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8"))

    assert [target for target in targets if not (document.parent / target).exists()] == []


def sql_in(document: Path) -> list[str]:
    return re.findall(r"```sql\n(.*?)```", document.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_every_query_in_the_documents_runs(migrated_database: Database) -> None:
    queries = [query for document in DOCUMENTS for query in sql_in(document) if query.startswith("SELECT")]
    with loading(migrated_database) as loader:
        loader.load([record(1, {7: "74950000007"}, number="79201234567"), record(2)])
        loader.load([record(1, number="79201234567", comment="новая"), 5])

    assert len(queries) >= 8
    answers = [migrated_database.rows(query.strip().rstrip(";").replace(":", r"\:")) for query in queries]
    assert sum(bool(rows) for rows in answers) >= len(queries) - 3


def test_the_example_configuration_loads_and_holds_the_defaults(tmp_path: Path) -> None:
    text = (CHECKOUT / "config.example.toml").read_text(encoding="utf-8")
    example = load_config(str(CHECKOUT / "config.example.toml"), {})
    (tmp_path / "empty.toml").write_text("")
    defaults = load_config(str(tmp_path / "empty.toml"), {})

    assert {name: getattr(example, name) for name in example.__struct_fields__ if name != "sources"} == {
        name: getattr(defaults, name) for name in defaults.__struct_fields__ if name != "sources"
    }
    assert [(s.name, s.base_url) for s in example.sources] == [(s.name, s.base_url) for s in defaults.sources]
    for section in defaults.__struct_fields__:
        table = getattr(defaults, section)
        fields = table[0].__struct_fields__ if section == "sources" else table.__struct_fields__
        for key in fields:
            assert re.search(rf"^(# )?{key} = ", text, flags=re.MULTILINE), f"{section}.{key} is not in the example"


def test_the_changelog_names_the_version() -> None:
    assert f"## {__version__} " in (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
