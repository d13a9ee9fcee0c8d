"""The pages that name tests as proofs name tests that exist, and each page's own sections have some."""

import re

import pytest

from tests.command import CHECKOUT

PAGES = ["docs/reliability.md", "docs/security.md"]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_exists(page: str) -> None:
    named = NAMED.findall((CHECKOUT / page).read_text())
    assert len(named) > 10
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in text_of(file)]
    assert missing == []


def text_of(file: str) -> str:
    path = CHECKOUT / file
    return path.read_text() if path.is_file() else ""


@pytest.mark.parametrize("page", PAGES)
def test_every_promise_in_a_table_names_its_proof(page: str) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", (CHECKOUT / page).read_text(), flags=re.MULTILINE):
        heading, _, *rows = table.splitlines()
        if heading.endswith("| proof |"):
            assert rows
            assert [row for row in rows if not NAMED.search(row)] == []
