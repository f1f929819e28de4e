"""One thing that a search decides, with a table of alphas."""

from __future__ import annotations

from typing import NamedTuple


class Decision(NamedTuple):
    """One table of alphas [rows, candidates]; each row relaxes one choice among the candidates.

    Args:
        name: of its alphas, ``alphas.NAME`` among the parameters.
        cell: the cell type that it is about.
        rows: choices made: one per edge for operations, one for the inputs of a node.
        candidates: what each row chooses from: operations, or sets of inputs written as "0+1".
        node: the node whose inputs it chooses; None for the operations of all edges.
        sets: for inputs, the source states that each candidate stands for.
    """

    name: str
    cell: str
    rows: int
    candidates: tuple[str, ...]
    node: int | None = None
    sets: tuple[tuple[int, ...], ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """[rows, candidates]."""
        return self.rows, len(self.candidates)
