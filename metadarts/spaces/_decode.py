"""From scores to a genotype: the discretisation rules of cell-based spaces."""

from __future__ import annotations

from collections.abc import Mapping

from ._decision import Decision
from ._genotype import Genotype, Pairs
from ._space import SearchSpace

Scores = Mapping[str, list[list[float]]]
"""decision -> its rows of scores; more is better, none is below 0."""


def decode(space: SearchSpace, scores: Scores) -> Genotype:
    """The genotype of ``space`` for ``scores``.

    The score of an edge is that of its best operation other than ``none``. Each node keeps the edges with the highest
    scores (DARTS, Liu et al., ICLR 2019, section 2.4), the pair with the highest score if alphas choose pairs
    (MetaNAS), or the edges with the highest product of this score and that of the edge (PC-DARTS). Each edge keeps its
    best operation. Edges are listed by descending score, as in the DARTS authors' code; ties go to the lower source
    state and to the primitive listed first.

    Args:
        scores: for each of ``space.decisions`` its rows.
    """
    cells = {cell: _decode_cell(space, cell, scores) for cell in space.cell_types}
    concats = dict.fromkeys(space.cell_types, space.concat)
    return Genotype(
        normal=cells.get("normal", ()),
        normal_concat=concats.get("normal", ()),
        reduce=cells.get("reduce", ()),
        reduce_concat=concats.get("reduce", ()),
        edges_per_node=space.edges_per_node,
    )


def _decode_cell(space: SearchSpace, cell: str, scores: Scores) -> Pairs:
    """The (operation, source) pairs that the scores of one cell type stand for."""
    allowed = [column for column, name in enumerate(space.primitives) if name != space.none]
    inputs = {d.node: d for d in space.decisions if d.cell == cell and d.node is not None}
    pairs: list[tuple[str, int]] = []
    for node in range(space.nodes):
        edges = []
        for source in range(space.inputs + node):
            row = scores[cell][space.edge_index(node, source)]
            best = max(allowed, key=row.__getitem__)
            edges.append((row[best], source, space.primitives[best]))
        if node in inputs:
            edges = _weighed(edges, inputs[node], scores[inputs[node].name][0])
        edges.sort(key=lambda edge: (-edge[0], edge[1]))
        pairs += [(best, source) for _, source, best in edges[: space.edges_per_node]]
    return tuple(pairs)


def _weighed(
    edges: list[tuple[float, int, str]], decision: Decision, scores: list[float]
) -> list[tuple[float, int, str]]:
    """The edges of the best pair, or every edge with its own score as a factor."""
    if len(decision.sets[0]) > 1:
        best = decision.sets[max(range(len(scores)), key=scores.__getitem__)]
        return [edge for edge in edges if edge[1] in best]
    return [(score * scores[decision.sets.index((source,))], source, name) for score, source, name in edges]
