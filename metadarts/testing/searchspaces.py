"""check_space: every primitive of a search space runs, and counts and results of its supernet are consistent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from metadarts.core.rng import Key
from metadarts.derive import genotype_weights
from metadarts.networks import Block, CellBlock, Cells, Network, Readout, Stem, Structure, inherit
from metadarts.operations import OPERATIONS, EdgeContext, Operation, Statistics
from metadarts.spaces import SearchSpace, random_genotype

from ._close import check_close

WAYS = 5


@dataclass(frozen=True, kw_only=True)
class _Row(Structure):
    """A stem and two cells of every kind of ``space``, each of which reads the last outputs before it."""

    space: SearchSpace

    def blocks(self, cells: Cells) -> tuple[Block, ...]:
        row: list[Block] = [Stem((self.in_channels, 6))]
        for index, kind in enumerate(2 * self.space.cell_types):
            reads = tuple(max(0, len(row) - back) for back in range(self.space.inputs, 0, -1))
            row.append(cells.cell(f"cells.{index}.", kind, 4, reads, tuple(row[read].out_channels for read in reads)))
        return (*row, Readout((len(row) - 1,), row[-1].out_channels))


def check_space(
    space: SearchSpace, operations: Mapping[str, Operation] = OPERATIONS, structure: Structure | None = None
) -> None:
    """Check that metadarts can search ``space``.

    Args:
        operations: table of its primitives, e.g. with a user's entries.
        structure: of a user's macro network, for images of 1 channel, without affine batch norms in its cells.

    Raises:
        AssertionError: for a primitive without an implementation or with a wrong output shape, edges that do not
            partition, parameters that do not add up, or a discrete network that cannot inherit from the supernet or
            does not equal the supernet with all weight on its edges.
    """
    if missing := [name for name in space.primitives if name not in operations]:
        raise AssertionError(f"{space.name}: no implementation of {', '.join(missing)}")
    for name in space.primitives:
        for stride in (1, 2):
            check_shapes(name, operations[name], stride)
    _check_edges(space)
    parent = Network(structure or _Row(in_channels=1, space=space), space, operations=operations)
    _check_counts(space, parent)
    _check_discrete(parent)


def _require(what: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected}, got {actual}")


def check_shapes(name: str, operation: Operation, stride: int) -> None:
    """Check the output of two edges of two tasks on maps of an odd size, in float32. Raises AssertionError."""
    tasks, edges, channels, height, width = 2, 2, 4, 5, 7
    if operation.run is None:
        return
    key = Key(("check_space", name))
    shapes = operation.shapes(channels, stride).items()
    params = {own: torch.randn(tasks, edges, *shape, generator=key.child(own).torch()) for own, shape in shapes}
    state = torch.randn(tasks, 3, height, width, channels, generator=key.torch())
    counts = torch.ones(tasks, 3, dtype=torch.bool)
    y = operation.run(state, EdgeContext(params, stride, Statistics.over(counts), pool_norm=True))
    shared = y.shape[1] == 1
    small = (3, math.ceil(height / stride), math.ceil(width / stride))
    _require(f"{name} at stride {stride}", tuple(y.shape), (tasks, 1 if shared else edges, *small, channels))
    _require(f"{name} at stride {stride}: type", y.dtype, state.dtype)
    _require(f"{name} at stride {stride} is finite", bool(torch.isfinite(y).all()), True)
    _require(f"{name} at stride {stride} has parameters of its edges", shared, not params)


def _check_edges(space: SearchSpace) -> None:
    rows = [row for source in range(space.inputs + space.nodes) for row in space.edges_from(source)]
    _require(f"{space.name}: rows by source", sorted(rows), list(range(space.num_edges)))
    _require(
        f"{space.name}: rows by edge", [space.edge_index(*edge) for edge in space.edges], list(range(space.num_edges))
    )


def _check_counts(space: SearchSpace, network: Network) -> None:
    """Edge by edge, as the space is written down, against the tensors that the supernet makes."""
    weights = WAYS * (network.features + 1)
    for block in network.blocks:
        if isinstance(block, CellBlock):
            weights += _weights_of_cell(space, network, block)
        else:
            weights += sum(math.prod(shape) for shape in block.shapes().values())
    _require(f"{space.name}: weights and alphas of the supernet", network.count(WAYS), (weights, space.alphas_total))
    made = sum(math.prod(shape) for name, shape in network.shapes().items() if not name.startswith("head."))
    _require(
        f"{space.name}: numbers in its tensors", made + WAYS * (network.features + 1), weights + space.alphas_total
    )


def _weights_of_cell(space: SearchSpace, network: Network, cell: CellBlock) -> int:
    """Of a cell without affine batch norms, edge by edge."""
    edges = [
        network.operations[name].weights(cell.channels, cell.stride(source))
        for _, source in space.edges
        for name in space.primitives
    ]
    return sum(channels * cell.channels for channels in cell.inputs) + sum(edges)


def _check_discrete(parent: Network) -> None:
    """A random genotype: its parameters, and its features, are the supernet's with all weight on its edges."""
    space, key = parent.space, Key(("check_space", parent.space.name))
    genotype = random_genotype(space, key)
    child, params = parent.discrete(genotype), {n: t.double() for n, t in parent.init(key.child("init")).items()}
    own = inherit(child, params, parent)
    _require(f"{space.name}: inherited shapes", {name: tuple(t.shape) for name, t in own.items()}, child.shapes())
    images = torch.randn(3, 1, 17, 16, dtype=torch.float64, generator=key.child("images").torch())
    mixed = parent.embed(params, images, weights=genotype_weights(genotype, space, dtype=torch.float64))
    check_close(f"{space.name}: features of a discrete network", child.embed(own, images), mixed, 1e-9)
