"""Cells as candidates: evaluated once each, sampled, mutated and crossed over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from metadarts.core.rng import Key
from metadarts.derive._derive import genotype_weights
from metadarts.spaces import Decision, Genotype, SearchSpace, decode

from ._types import Judge, Searched

Pairs = tuple[tuple[str, int], ...]
DRAWS = 100
"""Draws for each cell that is asked for, before fewer different ones are taken for all that there are."""


@dataclass(frozen=True)
class Ranking:
    """The cells evaluated so far, in canonical form; none is evaluated twice."""

    space: SearchSpace
    judge: Judge
    found: dict[Genotype, float] = field(default_factory=dict)

    def add(self, cells: Sequence[Genotype]) -> None:
        """Evaluate the new ones of ``cells`` together."""
        if new := [cell for cell in dict.fromkeys(cells) if cell not in self.found]:
            tables = [genotype_weights(cell, self.space, dtype=torch.float64) for cell in new]
            self.found.update(zip(new, self.judge(tables), strict=True))

    def best(self, cells: Sequence[Genotype] | None = None) -> Genotype:
        """The cell with the highest accuracy among ``cells`` or all; the first of equals."""
        return max(self.found if cells is None else cells, key=self.found.__getitem__)


def distinct(draw: Callable[[Key], Genotype], count: int, key: Key) -> list[Genotype]:
    """``count`` different cells, canonical, as drawn; fewer if `DRAWS` times as many draws find no more."""
    cells: dict[Genotype, None] = {}
    for number in range(DRAWS * count):
        if len(cells) == count:
            break
        cells[draw(key.child(number)).canonical()] = None
    return list(cells)


def draw_by_scores(searched: Searched, key: Key) -> Genotype:
    """A cell drawn by its scores: operations in proportion to theirs, edges of a node without replacement in proportion
    to their sum over operations, times that of the edge or after the pair, where inputs have alphas.

    Dividing scores by independent exponential numbers and deriving does this (Efraimidis and Spirakis, 2006).
    """
    scores = searched.scores()
    for decision in searched.space.decisions:
        if not _weighs_edges(decision):
            waits = key.child(decision.name).numpy().standard_exponential(decision.shape).clip(1e-300)
            rows = zip(scores[decision.name], waits.tolist(), strict=True)
            scores[decision.name] = [[s / w for s, w in zip(row, wait, strict=True)] for row, wait in rows]
    return decode(searched.space, scores)


def _weighs_edges(decision: Decision) -> bool:
    """Whether its scores are factors of the edges' own, which are drawn already."""
    return bool(decision.sets) and len(decision.sets[0]) == 1


def mutated(space: SearchSpace, cell: Genotype, key: Key) -> Genotype:
    """``cell`` with one edge changed, canonical: another operation or, equally likely, another input (Real et al., AAAI
    2019). Itself where the edge drawn has no other."""
    edges = [(kind, place) for kind in space.cell_types for place in range(len(cell.pairs(kind)))]
    kind, place = edges[_draw(len(edges), key.child("edge"))]
    pairs, width = list(cell.pairs(kind)), space.edges_per_node
    operation, source = pairs[place]
    node = place // width
    read = {own for _, own in pairs[node * width : (node + 1) * width]}
    inputs = [(operation, other) for other in range(space.inputs + node) if other not in read]
    operations = [(other, source) for other in space.operations if other != operation]
    ways = [way for way in (inputs, operations) if way]
    if not ways:
        return cell
    way = ways[_draw(len(ways), key.child("kind"))]
    pairs[place] = way[_draw(len(way), key.child("to"))]
    return _with_pairs(cell, {kind: tuple(pairs)}).canonical()


def crossed(space: SearchSpace, one: Genotype, other: Genotype, key: Key) -> Genotype:
    """A cell that has every node's edges from ``one`` or the ``other``, equally likely."""
    width, found = space.edges_per_node, dict[str, Pairs]()
    for kind in space.cell_types:
        parents = one.pairs(kind), other.pairs(kind)
        picks = [_draw(2, key.child(kind, node)) for node in range(space.nodes)]
        nodes = [parents[pick][node * width : (node + 1) * width] for node, pick in enumerate(picks)]
        found[kind] = tuple(pair for node in nodes for pair in node)
    return _with_pairs(one, found)


def _with_pairs(cell: Genotype, pairs: dict[str, Pairs]) -> Genotype:
    """``cell`` with other edges in the cells named."""
    return replace(cell, normal=pairs.get("normal", cell.normal), reduce=pairs.get("reduce", cell.reduce))


def _draw(count: int, key: Key) -> int:
    return int(key.choose(count, 1)[0])
