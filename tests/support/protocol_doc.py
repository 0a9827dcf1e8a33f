"""The tables of docs/protocol.md, as tests compare them with the code."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

PROTOCOL: Final = Path(__file__).parents[2] / "docs" / "protocol.md"
HEADING: Final = re.compile(r"#{2,4} (.*)")
CODE: Final = re.compile(r"`([^`]+)`")

Table = Mapping[str, Sequence[str]]
"""A row's name → the row's other cells."""


def read_tables(text: str | None = None) -> Mapping[str, Table]:
    """Return every table by the heading that it stands under, backquotes left out.

    A row's names are what its first cell has in backquotes; a row with several is there under each of them. Raises
    `ValueError` for a name that a table has twice.
    """
    tables: dict[str, dict[str, Sequence[str]]] = {}
    heading, is_table = "", False
    for line in (PROTOCOL.read_text(encoding="utf-8") if text is None else text).splitlines():
        was_table, is_table = is_table, line.startswith("|")
        if found := HEADING.fullmatch(line):
            heading = found[1].replace("`", "")
        elif is_table and was_table:  # the first line names the columns
            first, *others = [cell.strip() for cell in line[1:-1].split("|")]
            table = tables.setdefault(heading, {})
            for name in codes(first):
                if name in table:
                    raise ValueError(f"{name} stands twice under {heading}")
                table[name] = others
    return tables


def codes(cell: str) -> list[str]:
    """Return what a cell has in backquotes, in order."""
    return CODE.findall(cell)
