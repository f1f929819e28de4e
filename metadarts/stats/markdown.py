"""Markdown of the pages of results: tables, lists, and escaped text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Align = Literal["", "left", "centre", "right"]
RULES: dict[str, str] = {"": "---", "left": ":---", "centre": ":---:", "right": "---:"}
_BARE_PIPE = re.compile(r"(?<!\\)((?:\\\\)*)\|")


@dataclass(frozen=True)
class Table:
    """A table of Markdown cells.

    Args:
        headings: of the columns.
        rows: one text for each column.
        align: of each column; empty for the viewer's default.

    Raises:
        ValueError: when a row or ``align`` has a different number of columns from ``headings``.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: Sequence[Align] = ()

    def __post_init__(self) -> None:
        columns = len(self.headings)
        if odd := [len(row) for row in (*self.rows, self.align or self.headings) if len(row) != columns]:
            raise ValueError(f"expected {columns} cells under {list(self.headings)}, got {odd[0]}")

    def markdown(self) -> str:
        """The lines of the table, without a line break after the last. A bare | within a cell is escaped."""
        rules = [RULES[side] for side in self.align or [""] * len(self.headings)]
        return "\n".join([_line(map(_cell, self.headings)), _line(rules), *(_line(map(_cell, r)) for r in self.rows)])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """``text`` within a table: a line break or a bare | would end the cell."""
    return _BARE_PIPE.sub(r"\1\\|", text.replace("\n", " "))


def bullets(texts: Iterable[str]) -> str:
    """A list, one item for each text."""
    return "\n".join(f"- {text}" for text in texts)


def listed(names: Sequence[str]) -> str:
    """ "a, b and c", for at least one name."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def escaped(text: str) -> str:
    """``text`` escaped for Markdown."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def inline(text: str) -> str:
    """As `escaped`, with every run of white space as one space."""
    return escaped(" ".join(text.split()))
