"""A selection rule of one's own: from the cell of highest scores, one edge after the other takes its best operation."""

from __future__ import annotations

from dataclasses import dataclass, replace

from metadarts.core.rng import Key
from metadarts.derive import Judge, Searched, Selection, genotype_weights
from metadarts.spaces import Genotype, SearchSpace, decode


@dataclass(frozen=True)
class Greedy:
    """Coordinate ascent on accuracy with inherited weights. The inputs stay those of the scores.

    Args:
        rounds: how often to go through all edges.
    """

    rounds: int = 1

    def judged(self, space: SearchSpace) -> int:
        edges = len(space.cell_types) * space.nodes * space.edges_per_node
        return self.rounds * edges * len(space.operations)

    def select(self, searched: Searched, judge: Judge | None, key: Key) -> Selection:
        space, cell = searched.space, decode(searched.space, searched.scores())
        for _ in range(self.rounds):
            for kind in space.cell_types:
                for place in range(len(cell.pairs(kind))):
                    ways = [changed(cell, kind, place, name) for name in space.operations]
                    accuracies = judge([genotype_weights(way, space) for way in ways])
                    cell = ways[max(range(len(ways)), key=accuracies.__getitem__)]
        return Selection(cell)


def changed(cell: Genotype, kind: str, place: int, operation: str) -> Genotype:
    """``cell`` with another operation on one edge."""
    pairs = list(cell.pairs(kind))
    pairs[place] = (operation, pairs[place][1])
    return replace(cell, **{kind: tuple(pairs)})


SELECTION = Greedy
