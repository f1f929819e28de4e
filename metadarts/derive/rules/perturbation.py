"""Keep the candidates whose removal costs the most accuracy (DARTS-PT, Wang et al., ICLR 2021, algorithm 1).

Source: the paper and the authors' code (ruocwang/darts-pt, sota/cnn/projection.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metadarts.core.rng import Key
from metadarts.spaces import Genotype, SearchSpace

from ._types import Judge, Searched, Selection, required

Tables = dict[str, Tensor]
Place = tuple[str, int]
"""(cell, edge) or (cell, node)."""


@dataclass(frozen=True)
class Perturbation:
    """Decide edges in random order: keep only the operation without which the supernet is worst. Then decide nodes in
    random order: keep the edges without which it is worst.

    All candidates of one decision are evaluated together. The mixing weights are those of the meta-learned alphas. The
    paper's fine-tuning between decisions is not available. A decided edge keeps its total weight, at most 1. Of equal
    candidates, the one with the larger weight is kept, then the one listed first.

    Args:
        renormalise: whether the remaining weights of an edge are rescaled to its sum, as in a softmax over the rest;
            the same for the edges of a node if they have alphas. False keeps the others unchanged, as in the authors'
            code: removal then also weakens the edge, the more the larger the removed weight.
    """

    renormalise: bool = True

    def judged(self, space: SearchSpace) -> int:
        operations = space.num_edges * len(space.operations) if len(space.operations) > 1 else 0
        inputs = sum(space.inputs + node for node in _open_nodes(space))
        return (operations + inputs) * len(space.cell_types)

    def select(self, searched: Searched, judge: Judge | None, key: Key) -> Selection:
        space, judge = searched.space, required(judge, self)
        tables = {cell: table.detach().double().cpu() for cell, table in searched.mixing.items()}
        operations: dict[Place, int] = {}
        for cell, edge in _shuffled(space, range(space.num_edges), key.child("edges")):
            column = self._operation(space, judge, tables, (cell, edge))
            operations[cell, edge], tables = column, _decided(tables, (cell, edge), column)
        kept: dict[Place, list[int]] = {
            (cell, node): list(range(space.inputs + node)) for cell in space.cell_types for node in range(space.nodes)
        }
        for cell, node in _shuffled(space, _open_nodes(space), key.child("nodes")):
            kept[cell, node] = self._inputs(space, judge, tables, (cell, node))
            for source in range(space.inputs + node):
                if source not in kept[cell, node]:
                    tables = self._without_edge(space, tables, (cell, node), source)
        return Selection(_genotype(space, operations, kept))

    def _operation(self, space: SearchSpace, judge: Judge, tables: Tables, place: Place) -> int:
        """The column of the operation of one edge without which the accuracy is lowest."""
        columns = [space.primitives.index(name) for name in space.operations]
        if len(columns) == 1:
            return columns[0]
        accuracies = judge([self._without_operation(tables, place, column) for column in columns])
        cell, edge = place
        return columns[_hurting_most(accuracies, [float(tables[cell][edge, column]) for column in columns])[0]]

    def _inputs(self, space: SearchSpace, judge: Judge, tables: Tables, place: Place) -> list[int]:
        """The sources of one node without which the accuracy is lowest, ascending."""
        cell, node = place
        sources = range(space.inputs + node)
        accuracies = judge([self._without_edge(space, tables, place, source) for source in sources])
        weights = [float(tables[cell][space.edge_index(node, source)].sum()) for source in sources]
        return sorted(_hurting_most(accuracies, weights)[: space.edges_per_node])

    def _without_operation(self, tables: Tables, place: Place, column: int) -> Tables:
        cell, edge = place
        row = tables[cell][edge].clone()
        total = float(row.sum())
        row[column] = 0.0
        return _with_row(tables, place, self._rescaled(row, total))

    def _without_edge(self, space: SearchSpace, tables: Tables, place: Place, source: int) -> Tables:
        cell, node = place
        first = space.edge_index(node, 0)
        rows = tables[cell][first : first + space.inputs + node].clone()
        total = float(rows.sum())
        rows[source] = 0.0
        if space.inputs_by != "rule":
            rows = self._rescaled(rows, total)
        table = tables[cell].clone()
        table[first : first + space.inputs + node] = rows
        return tables | {cell: table}

    def _rescaled(self, weights: Tensor, total: float) -> Tensor:
        """Brought to the sum ``total``, unless nothing is left of them."""
        left = float(weights.sum())
        return weights * (total / left) if self.renormalise and left > 0.0 else weights


def _hurting_most(accuracies: Sequence[float], weights: Sequence[float]) -> list[int]:
    """Candidates in the order of the accuracy without them, lowest first."""
    return sorted(range(len(weights)), key=lambda place: (accuracies[place], -weights[place], place))


def _decided(tables: Tables, place: Place, column: int) -> Tables:
    """One edge carries one operation, with the edge's weight."""
    cell, edge = place
    row = torch.zeros_like(tables[cell][edge])
    row[column] = min(1.0, float(tables[cell][edge].sum()))  # sigmoids sum to more, and a kept edge weighs 1
    return _with_row(tables, place, row)


def _with_row(tables: Tables, place: Place, row: Tensor) -> Tables:
    cell, edge = place
    table = tables[cell].clone()
    table[edge] = row
    return tables | {cell: table}


def _open_nodes(space: SearchSpace) -> list[int]:
    """The nodes that have more inputs than they keep."""
    return [node for node in range(space.nodes) if space.inputs + node > space.edges_per_node]


def _shuffled(space: SearchSpace, numbers: Sequence[int], key: Key) -> list[Place]:
    places = [(cell, number) for cell in space.cell_types for number in numbers]
    return [places[place] for place in key.permutation(len(places))]


def _genotype(space: SearchSpace, operations: dict[Place, int], kept: dict[Place, list[int]]) -> Genotype:
    pairs: dict[str, list[tuple[str, int]]] = {"normal": [], "reduce": []}
    for (cell, node), sources in sorted(kept.items()):
        columns = [operations[cell, space.edge_index(node, source)] for source in sources]
        pairs[cell] += [(space.primitives[column], source) for column, source in zip(columns, sources, strict=True)]
    concats = [space.concat if pairs[cell] else () for cell in ("normal", "reduce")]
    return Genotype(tuple(pairs["normal"]), concats[0], tuple(pairs["reduce"]), concats[1], space.edges_per_node)


SELECTION = Perturbation
