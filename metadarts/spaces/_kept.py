"""The remaining candidates of a search that drops others permanently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ._decision import Decision
from ._decode import Scores
from ._space import SearchSpace

Row = tuple[bool, ...]


@dataclass(frozen=True)
class Kept:
    """For each of a space's decisions, in order, its rows of candidates: True for a remaining candidate.

    A value. An edge without an operation other than the zero operation does not run, nor does one whose source is in no
    remaining set of inputs.
    """

    tables: tuple[tuple[Row, ...], ...]

    @staticmethod
    def everything(space: SearchSpace) -> Kept:
        """Nothing is dropped yet."""
        return Kept(tuple(((True,) * len(d.candidates),) * d.rows for d in space.decisions))

    @staticmethod
    def of(space: SearchSpace, tables: Mapping[str, Sequence[Sequence[bool]]]) -> Kept:
        """From rows by the name of their decision."""
        return Kept(tuple(tuple(tuple(map(bool, row)) for row in tables[d.name]) for d in space.decisions))

    def named(self, space: SearchSpace) -> dict[str, tuple[Row, ...]]:
        """decision -> its rows."""
        return dict(zip((d.name for d in space.decisions), self.tables, strict=True))

    @property
    def is_all(self) -> bool:
        """Whether nothing is dropped."""
        return all(all(row) for table in self.tables for row in table)

    @property
    def count(self) -> int:
        """Number of remaining candidates."""
        return sum(sum(row) for table in self.tables for row in table)

    def has_one_operation_each(self, space: SearchSpace) -> bool:
        """Whether every edge has one remaining operation."""
        named = self.named(space)
        return all(sum(row) == 1 for d in space.decisions if d.node is None for row in named[d.name])

    def edges(self, space: SearchSpace, cell: str) -> dict[str, tuple[tuple[int, int], ...]]:
        """primitive -> the edges (node, source) of ``cell`` on which it remains, in the order of the space's edges.

        A cell type without decisions in the space has all of them.
        """
        named = {cell: ((True,) * len(space.primitives),) * space.num_edges} | self.named(space)
        inputs = {d.node: (d, named[d.name][0]) for d in space.decisions if d.cell == cell and d.node is not None}
        alive = [_is_read(source, *inputs[node]) if node in inputs else True for node, source in space.edges]
        rows = list(zip(space.edges, named[cell], alive, strict=True))
        return {
            name: tuple(edge for edge, row, read in rows if read and row[column])
            for column, name in enumerate(space.primitives)
        }

    def without(self, space: SearchSpace, weights: Scores, least: float) -> Kept:
        """Drop candidates with a weight below ``least``, except those that derivation needs in a row: see `best`.

        Args:
            weights: decision -> rows of mixing weights.
        """
        best = self.best(space, weights).named(space)
        tables = {
            name: [
                [left and (weight >= least or needed) for left, weight, needed in zip(*three, strict=True)]
                for three in zip(rows, weights[name], best[name], strict=True)
            ]
            for name, rows in self.named(space).items()
        }
        return Kept.of(space, tables)

    def best(self, space: SearchSpace, scores: Scores) -> Kept:
        """The candidates of every row that derivation would choose: the best operation other than ``none``, the best
        pair of inputs, or as many of the best edges as a node keeps."""
        named = self.named(space)
        return Kept.of(space, {d.name: self._best_of(space, d, named[d.name], scores) for d in space.decisions})

    def best_operations(self, space: SearchSpace, scores: Scores) -> Kept:
        """Only the best operation of every edge; inputs do not change."""
        best, named = self.best(space, scores).named(space), self.named(space)
        return Kept.of(space, {d.name: (best if d.node is None else named)[d.name] for d in space.decisions})

    def _best_of(
        self, space: SearchSpace, decision: Decision, left: tuple[Row, ...], scores: Scores
    ) -> list[list[bool]]:
        """Of one decision, with the candidates ``left`` so far."""
        rows, most = scores[decision.name], 1
        if decision.node is not None and len(decision.sets[0]) == 1:  # derivation weighs an edge by its operation too
            operations, own = scores[decision.cell], self.named(space)
            edges = [space.edge_index(decision.node, source) for (source,) in decision.sets]
            best = [max(_allowed_scores(space, own[decision.cell][edge], operations[edge])) for edge in edges]
            rows, most = [[score * factor for score, factor in zip(rows[0], best, strict=True)]], space.edges_per_node
        found = []
        for open_, row in zip(left, rows, strict=True):
            allowed = [k for k, name in enumerate(decision.candidates) if open_[k] and name != space.none]
            chosen = set(sorted(allowed, key=lambda k: (-row[k], k))[:most])
            found.append([k in chosen for k in range(len(row))])
        return found


def _allowed_scores(space: SearchSpace, left: Row, scores: list[float]) -> list[float]:
    """Those of the operations of an edge that are left, ``none`` aside."""
    return [s for name, there, s in zip(space.primitives, left, scores, strict=True) if there and name != space.none]


def _is_read(source: int, decision: Decision, left: Row) -> bool:
    """Whether a set of inputs that is left has ``source``."""
    return any(source in chosen for chosen, there in zip(decision.sets, left, strict=True) if there)
