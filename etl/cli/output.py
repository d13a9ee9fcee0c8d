"""Standard output: plain lines for programs, set tables for people, JSON on request.

Whatever comes from the source is made harmless on the way: it can move no cursor and forge no line.
"""

import json
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from etl.report.text import UNSAFE, printable

__all__ = ["print_json", "print_lines", "print_table", "printable", "stdout_is_terminal"]


def stdout_is_terminal() -> bool:
    """Whether a person is looking."""
    return sys.stdout.isatty()


def print_lines(lines: Iterable[str]) -> None:
    """Print one line each."""
    for line in lines:
        sys.stdout.write(f"{printable(line)}\n")


def print_json(document: Any) -> None:
    """Print one JSON document."""
    text = json.dumps(document, ensure_ascii=False, indent=2)
    # JSON escapes line ends within strings, but lets through what acts on a terminal all the same.
    sys.stdout.write(re.sub(UNSAFE, lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text))
    sys.stdout.write("\n")


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    right: Collection[int] = (),
    styles: Mapping[str, str] | None = None,
) -> None:
    """Print a table, in colour and fitted to the width on a terminal.

    `right` names the columns of numbers, `styles` gives the words that stand out their style in Rich's terms.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if not stdout_is_terminal():
        _print_plain_table([list(headings), *cells], right)
        return
    from rich import box  # noqa: PLC0415 - costs start-up time that programs need not pay
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index in right else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, style=(styles or {}).get(cell, "")) for cell in row))
    Console().print(table)


def _print_plain_table(lines: list[list[str]], right: Collection[int]) -> None:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        padded = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        sys.stdout.write(f"{'  '.join(padded).rstrip()}\n")
