"""Random points of a search space: the baseline of any search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._genotype import Genotype, Pairs
from ._space import CELL_TYPES, SearchSpace

if TYPE_CHECKING:
    from metadarts.core.rng import Key


def random_genotype(space: SearchSpace, key: Key) -> Genotype:
    """A genotype drawn uniformly from the ``space.genotype_count()`` of ``space``; the same key draws the same one.

    Each node reads ``space.edges_per_node`` distinct states, listed in ascending order, and ``none`` is never drawn.
    """
    cells = {cell: _random_cell(space, key.child(cell)) if cell in space.cell_types else () for cell in CELL_TYPES}
    concats = {cell: space.concat if cell in space.cell_types else () for cell in CELL_TYPES}
    return Genotype(cells["normal"], concats["normal"], cells["reduce"], concats["reduce"], space.edges_per_node)


def _random_cell(space: SearchSpace, key: Key) -> Pairs:
    pairs = []
    for node in range(space.nodes):
        drawn = key.child(node, "inputs").choose(space.inputs + node, space.edges_per_node)
        for source in sorted(int(state) for state in drawn):
            op = int(key.child(node, "operation", source).choose(len(space.operations), 1)[0])
            pairs.append((space.operations[op], source))
    return tuple(pairs)
