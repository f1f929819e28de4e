"""check_cost: a cost is a finite number for each task, differentiable in the mixing weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import gradcheck

from metadarts.core.rng import Key
from metadarts.costs import Cost, Weights
from metadarts.derive import genotype_weights
from metadarts.networks import Network, NetworkSpec
from metadarts.spaces import darts, random_genotype

SIDE, TASKS = 16, 2


def check_cost(make: Callable[..., Cost]) -> None:
    """Check a cost as configurations create it, ``make(height, width)``, on a small DARTS supernet.

    Raises:
        AssertionError: when the cost is not [T], not finite, or below 0 for a discrete cell; when it depends on other
            tasks; or when its derivative differs from central differences.
    """
    cost = make(SIDE, SIDE)
    network = Network(NetworkSpec(in_channels=1, stem=(4, 6), channels=4), darts(nodes=2))
    drawn = _drawn(network)
    found = cost(network, drawn)
    if tuple(found.shape) != (TASKS,) or not bool(torch.isfinite(found).all()):
        raise AssertionError(f"expected a finite number for each of {TASKS} tasks, got {found}")
    alone = cost(network, {kind: table[:1] for kind, table in drawn.items()})
    if not torch.allclose(found[:1], alone, rtol=1e-12):
        raise AssertionError("the cost of a task depends on the others")
    cells = genotype_weights(random_genotype(network.space, Key(("check_cost",))), network.space, dtype=torch.float64)
    if not bool((cost(network, {kind: table[None] for kind, table in cells.items()}) >= 0).all()):
        raise AssertionError("the cost of a discrete cell is below 0")
    _check_derivative(cost, network, drawn)


def _drawn(network: Network) -> dict[str, Tensor]:
    key, shape = Key(("check_cost",)), (TASKS, *network.space.alpha_shape)
    kinds = network.space.cell_types
    draws = {kind: torch.randn(shape, dtype=torch.float64, generator=key.child(kind).torch()) for kind in kinds}
    return {kind: table.exp() / table.exp().sum(-1, keepdim=True) for kind, table in draws.items()}


def _check_derivative(cost: Cost, network: Network, drawn: Weights) -> None:
    def total(*tables: Tensor) -> Tensor:
        return cost(network, dict(zip(drawn, tables, strict=True)))

    try:
        gradcheck(total, [table.clone().requires_grad_() for table in drawn.values()], fast_mode=True)
    except RuntimeError as error:
        raise AssertionError(f"its derivative in the mixing weights: {error}") from error
