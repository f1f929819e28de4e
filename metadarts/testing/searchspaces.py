"""check_space: every primitive of a search space runs, and what a supernet of it counts adds up."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from metadarts.core.rng import Key
from metadarts.networks import Network, NetworkSpec, inherit
from metadarts.operations import OPERATIONS, EdgeContext, Operation, Statistics
from metadarts.spaces import SearchSpace, random_genotype

WAYS = 5
SPEC = NetworkSpec(in_channels=1, stem=(4, 6), channels=4)


def check_space(space: SearchSpace, operations: Mapping[str, Operation] = OPERATIONS) -> None:
    """Check that metadarts can search ``space``.

    Args:
        operations: of its primitives, for a table with a user's own.

    Raises:
        AssertionError: on a primitive without an implementation or with a wrong output shape, edges that do not
            partition, parameters that do not add up, or a discrete network that cannot inherit from the supernet.
    """
    if missing := [name for name in space.primitives if name not in operations]:
        raise AssertionError(f"{space.name}: no implementation of {', '.join(missing)}")
    for name in space.primitives:
        for stride in (1, 2):
            check_shapes(name, operations[name], stride)
    _check_edges(space)
    parent = Network(SPEC, space, operations=operations)
    _check_counts(space, parent)
    _check_inheritance(parent)


def _require(what: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected}, got {actual}")


def check_shapes(name: str, operation: Operation, stride: int) -> None:
    """Check the output of two edges of two tasks on maps of an odd size. Raises AssertionError."""
    tasks, edges, channels, height, width = 2, 2, 4, 5, 7
    if operation.run is None:
        return
    key = Key(("check_space", name))
    shapes = operation.shapes(channels, stride).items()
    params = {own: torch.randn(tasks, edges, *shape, generator=key.child(own).torch()) for own, shape in shapes}
    state = torch.randn(tasks, 3, height, width, channels, generator=key.torch())
    y = operation.run(state, EdgeContext(params, stride, Statistics(), pool_norm=True))
    shared = y.shape[1] == 1
    small = (3, math.ceil(height / stride), math.ceil(width / stride))
    _require(f"{name} at stride {stride}", tuple(y.shape), (tasks, 1 if shared else edges, *small, channels))
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
    first, second = SPEC.stem
    weights = 9 * first * (SPEC.in_channels + second) + 2 * (first + second)
    for cell in network.cells:
        weights += sum(channels * cell.channels for channels in cell.inputs)
        for _, source in space.edges:
            weights += sum(network.operations[n].weights(cell.channels, cell.stride(source)) for n in space.primitives)
    weights += WAYS * (network.features + 1)
    _require(f"{space.name}: weights and alphas of the supernet", network.count(WAYS), (weights, space.alphas_total))
    made = sum(math.prod(shape) for name, shape in network.shapes().items() if not name.startswith("head."))
    _require(
        f"{space.name}: numbers in its tensors", made + WAYS * (network.features + 1), weights + space.alphas_total
    )


def _check_inheritance(parent: Network) -> None:
    name = parent.space.name
    child = parent.discrete(random_genotype(parent.space, Key(("check_space", name))))
    params = inherit(child, parent.init(Key(("check_space", "init"))), parent)
    _require(f"{name}: inherited shapes", {name: tuple(t.shape) for name, t in params.items()}, child.shapes())
