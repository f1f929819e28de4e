"""check_space: every primitive of a search space runs, and what a supernet of it counts adds up."""

from __future__ import annotations

import math

import torch

from metadarts.core.rng import Key
from metadarts.networks import NetworkSpec, discrete_network, inherit, supernet
from metadarts.operations import OPERATIONS, EdgeContext, Statistics
from metadarts.spaces import SearchSpace, random_genotype

WAYS = 5
SPEC = NetworkSpec(in_channels=1, stem=(4, 6), channels=4)


def check_space(space: SearchSpace) -> None:
    """Check that metadarts can search ``space``.

    Raises:
        AssertionError: on a primitive without an implementation or with a wrong output shape, edges that do not
            partition, parameters that do not add up, or a discrete network that cannot inherit from the supernet.
    """
    if missing := [name for name in space.primitives if name not in OPERATIONS]:
        raise AssertionError(f"{space.name}: no implementation of {', '.join(missing)}")
    for name in space.primitives:
        for stride in (1, 2):
            _check_primitive(name, stride)
    _check_edges(space)
    _check_counts(space)
    _check_inheritance(space)


def _require(what: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected}, got {actual}")


def _check_primitive(name: str, stride: int) -> None:
    """The output of two edges of two tasks on maps of an odd size."""
    primitive, (tasks, edges, channels, height, width) = OPERATIONS[name], (2, 2, 4, 5, 7)
    if primitive.run is None:
        return
    key = Key(("check_space", name))
    shapes = primitive.shapes(channels, stride).items()
    params = {own: torch.randn(tasks, edges, *shape, generator=key.child(own).torch()) for own, shape in shapes}
    state = torch.randn(tasks, 3, height, width, channels, generator=key.torch())
    y = primitive.run(state, EdgeContext(params, stride, Statistics(), pool_norm=True))
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


def _check_counts(space: SearchSpace) -> None:
    """Edge by edge, as the space is written down, against the tensors that the supernet makes."""
    network = supernet(space, SPEC)
    first, second = SPEC.stem
    weights = 9 * first * (SPEC.in_channels + second) + 2 * (first + second)
    for cell in network.cells:
        weights += sum(channels * cell.channels for channels in cell.inputs)
        for _, source in space.edges:
            for name in space.primitives:
                shapes = OPERATIONS[name].shapes(cell.channels, cell.stride(source)).values()
                weights += sum(math.prod(shape) for shape in shapes)
    weights += WAYS * (network.features + 1)
    _require(f"{space.name}: weights and alphas of the supernet", network.count(WAYS), (weights, space.alphas_total))
    made = sum(math.prod(shape) for name, shape in network.shapes().items() if not name.startswith("head."))
    _require(
        f"{space.name}: numbers in its tensors", made + WAYS * (network.features + 1), weights + space.alphas_total
    )


def _check_inheritance(space: SearchSpace) -> None:
    parent = supernet(space, SPEC)
    child = discrete_network(random_genotype(space, Key(("check_space", space.name))), space, SPEC)
    params = inherit(child, parent.init(Key(("check_space", "init"))), parent)
    _require(f"{space.name}: inherited shapes", {name: tuple(t.shape) for name, t in params.items()}, child.shapes())
