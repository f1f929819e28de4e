"""Cell-based search spaces: the edges of a cell, their primitives, and the decisions.

Source: DARTS (Liu et al., ICLR 2019), section 2.1. The order of edges and primitives is that of the authors' code, so
that alphas can be exchanged with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

from metadarts.core.errors import ConfigError, nearest

from ._decision import Decision

PAIRS_PER_NODE = 2
"""A `Genotype` lists two (operation, input) pairs for each intermediate node, unless its space keeps one."""

EDGES_PER_NODE = (1, PAIRS_PER_NODE)
"""How many incoming edges of a node derivation may keep."""

CELL_TYPES = ("normal", "reduce")
"""The cells that a `Genotype` can describe."""

MOST_STATES = 64
"""Of nodes and of inputs: a cell has as many edges as pairs of them, and a description may come from anyone."""

INPUT_CHOICES = ("rule", "pairs", "edges")
"""How a node's inputs are chosen: by the rule of derivation, or by alphas over pairs of inputs or over its edges."""


@dataclass(frozen=True)
class SearchSpace:
    """A cell search space. States of a cell are numbered: its inputs first, then its intermediate nodes.

    Args:
        name: name of this space in records and files.
        primitives: the candidate operations of an edge, in the order of the columns of alpha.
        nodes: intermediate nodes per cell, at least 1.
        inputs: outputs of earlier cells that a cell reads, at least ``edges_per_node``.
        cell_types: the cell types with separate alphas: "normal", "reduce" or both.
        edges_per_node: incoming edges that derivation keeps, and pairs per node of a `Genotype`: 2, or 1. One node with
            one input makes the smallest space, a single edge.
        none: the primitive that means "no edge". It may be absent from ``primitives``.
        inputs_by: "rule", or separate alphas for the inputs of each node: over "pairs" of inputs (MetaNAS, Elsken et
            al., CVPR 2020, section 3.3) or over its "edges" (PC-DARTS, Xu et al., ICLR 2020, equation 4).

    Raises:
        ConfigError: one message that names every invalid field.
    """

    name: str
    primitives: tuple[str, ...]
    nodes: int
    inputs: int = 2
    cell_types: tuple[str, ...] = CELL_TYPES
    edges_per_node: int = PAIRS_PER_NODE
    none: str = "none"
    inputs_by: str = "rule"

    def __post_init__(self) -> None:
        object.__setattr__(self, "primitives", tuple(self.primitives))
        object.__setattr__(self, "cell_types", tuple(self.cell_types))
        if faults := _faults(self):
            raise ConfigError(f"search space {self.name!r}: " + "; ".join(faults))

    @property
    def operations(self) -> tuple[str, ...]:
        """The primitives that a genotype may name: all but ``none``."""
        return tuple(name for name in self.primitives if name != self.none)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Every edge as (node, source state), in the order of the rows of alpha."""
        return tuple((node, source) for node in range(self.nodes) for source in range(self.inputs + node))

    @property
    def num_edges(self) -> int:
        return self.nodes * self.inputs + self.nodes * (self.nodes - 1) // 2

    @property
    def alpha_shape(self) -> tuple[int, int]:
        """[E, P]: edges by primitives, the shape of one cell type's alphas over operations."""
        return self.num_edges, len(self.primitives)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Every table of alphas: operations by cell type, then the inputs of its nodes if alphas choose them."""
        return tuple(decision for cell in self.cell_types for decision in self._decisions_of(cell))

    def _decisions_of(self, cell: str) -> tuple[Decision, ...]:
        operations = Decision(cell, cell, self.num_edges, self.primitives)
        if self.inputs_by == "rule":
            return (operations,)
        size = PAIRS_PER_NODE if self.inputs_by == "pairs" else 1
        tables = []
        for node in range(self.nodes):
            sets = tuple(combinations(range(self.inputs + node), size))
            names = tuple("+".join(map(str, chosen)) for chosen in sets)
            tables.append(Decision(f"{cell}.inputs{node}", cell, 1, names, node, sets))
        return (operations, *tables)

    @property
    def alphas_total(self) -> int:
        """Architecture parameters over all decisions."""
        return sum(decision.rows * len(decision.candidates) for decision in self.decisions)

    @property
    def concat(self) -> tuple[int, ...]:
        """The states that a cell's output concatenates: all intermediate nodes."""
        return tuple(range(self.inputs, self.inputs + self.nodes))

    def edge_index(self, node: int, source: int) -> int:
        """The row of alpha for the edge from state ``source`` into intermediate node ``node``.

        Raises:
            ConfigError: when this space has no such edge.
        """
        if not (0 <= node < self.nodes and 0 <= source < self.inputs + node):
            raise ConfigError(
                f"search space {self.name!r} has no edge from state {source} to node {node}: expected a node in "
                f"0..{self.nodes - 1} and a source from 0 to {self.inputs - 1} + node"
            )
        return node * self.inputs + node * (node - 1) // 2 + source

    def edges_from(self, source: int) -> tuple[int, ...]:
        """The rows of alpha for the edges that leave state ``source``; empty for the last node."""
        states = self.inputs + self.nodes
        if not 0 <= source < states:
            raise ConfigError(f"search space {self.name!r} has states 0..{states - 1}, got {source}")
        first = max(0, source - self.inputs + 1)
        return tuple(self.edge_index(node, source) for node in range(first, self.nodes))

    def cell_count(self) -> int:
        """Number of discrete cells of one type, as distinguished by genotypes: prod over nodes i of C(inputs + i, k) *
        operations ** k with k edges per node.

        Cells that differ only by renumbering nodes count separately. DARTS: 180 * 7^8 = 1,037,664,180.
        """
        ways = math.prod(math.comb(self.inputs + node, self.edges_per_node) for node in range(self.nodes))
        return int(ways * len(self.operations) ** (self.edges_per_node * self.nodes))

    def genotype_count(self) -> int:
        """Number of discrete genotypes, order within a node ignored: ``cell_count()`` to the power of the cell
        types."""
        return int(self.cell_count() ** len(self.cell_types))


def _faults(space: SearchSpace) -> list[str]:
    """Every reason why ``space`` is not a search space, as parts of one sentence."""
    faults = []
    if not space.name:
        faults.append("name is empty, give it one")
    if space.nodes < 1:
        faults.append(f"nodes must be at least 1, got {space.nodes}")
    if max(space.nodes, space.inputs) > MOST_STATES:
        faults.append(f"nodes and inputs must be at most {MOST_STATES}, got {space.nodes} and {space.inputs}")
    if space.inputs_by not in INPUT_CHOICES:
        faults.append(f"inputs_by {space.inputs_by!r} is unknown; {nearest(space.inputs_by, INPUT_CHOICES)}")
    if space.inputs_by == "pairs" and space.edges_per_node != PAIRS_PER_NODE:
        faults.append(f"inputs_by 'pairs' keeps 2 edges per node, got edges_per_node {space.edges_per_node}")
    if space.edges_per_node not in EDGES_PER_NODE:
        faults.append(f"edges_per_node must be 1 or 2, got {space.edges_per_node}")
    if space.inputs < max(1, space.edges_per_node):
        faults.append(f"inputs must be at least edges_per_node ({space.edges_per_node}), got {space.inputs}")
    if not space.operations:
        faults.append(f"primitives need at least one operation besides {space.none!r}, got {space.primitives}")
    faults += _repeats("primitives", space.primitives) + _repeats("cell_types", space.cell_types)
    if not space.cell_types:
        faults.append(f"cell_types is empty, give one or both of {CELL_TYPES}")
    unknown = [name for name in space.cell_types if name not in CELL_TYPES]
    return faults + [f"unknown cell type {name!r}: {nearest(name, CELL_TYPES)}" for name in unknown]


def _repeats(field: str, names: tuple[str, ...]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    return [f"{field} must be distinct, {name!r} is given more than once" for name in twice]
