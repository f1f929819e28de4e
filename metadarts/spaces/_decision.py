"""One decision of a search, with a table of alphas."""

from __future__ import annotations

from typing import NamedTuple


class Decision(NamedTuple):
    """One table of alphas [rows, candidates]; each row relaxes one choice among the candidates.

    Args:
        name: name of its alphas, ``alphas.NAME`` among the parameters.
        cell: its cell type.
        rows: number of choices: one per edge for operations, one for the inputs of a node.
        candidates: the candidates of each row: operations, or sets of inputs written as "0+1".
        node: the node whose inputs it chooses; None for the operations of all edges.
        sets: for inputs, the source states of each candidate.
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
