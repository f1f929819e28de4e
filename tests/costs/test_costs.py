"""Costs are exact for discrete cells: the weights that a network has, the multiply-adds that torch counts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from metadarts.core.rng import Key
from metadarts.costs import COSTS, Penalty
from metadarts.derive import genotype_weights
from metadarts.networks import Learner, NetworkSpec, supernet
from metadarts.operations import OPERATIONS, EdgeContext, Statistics
from metadarts.ops import implementation
from metadarts.spaces import darts, random_genotype
from metadarts.testing import check_cost, generic_params, random_tasks

NETWORK = supernet(darts(nodes=3), NetworkSpec(in_channels=1, stem=(4, 6), channels=4))
CELLS = tuple(random_genotype(NETWORK.space, Key.from_seed(seed)) for seed in range(6))


def one_hot(genotype):
    return {kind: table[None] for kind, table in genotype_weights(genotype, NETWORK.space).items()}


@pytest.mark.parametrize("name", COSTS)
def test_it_conforms(name):
    check_cost(COSTS[name])


def test_the_suite_sees_a_cost_that_mixes_tasks():
    @dataclass(frozen=True)
    class Mixed:
        height: int
        width: int

        def __call__(self, network, weights):
            return weights["normal"].sum().expand(len(weights["normal"]))

    with pytest.raises(AssertionError, match="depends on the others"):
        check_cost(Mixed)


@pytest.mark.parametrize(("first", "second"), list(combinations(CELLS, 2))[:8])
def test_weights_differ_as_the_networks_do(first, second):
    cost = COSTS["weights"](16, 16)
    apart = cost(NETWORK, one_hot(first)) - cost(NETWORK, one_hot(second))
    assert int(apart) == NETWORK.discrete(first).count(5)[0] - NETWORK.discrete(second).count(5)[0]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if "conv" in name or name == "skip_connect"])
def test_multiply_adds_are_those_that_torch_counts(name, stride):
    operation, channels, side = OPERATIONS[name], 4, 8
    params = {own: torch.randn(1, 1, *shape) for own, shape in operation.shapes(channels, stride).items()}
    with implementation("reference"), FlopCounterMode(display=False) as counter:
        operation.run(torch.randn(1, 1, side, side, channels), EdgeContext(params, stride, Statistics(), True))
    positions = (side // stride) ** 2
    assert 2 * operation.cost(channels, stride, positions) == counter.get_total_flops()


@pytest.mark.parametrize(("first", "second"), list(combinations(CELLS, 2))[:4])
def test_multiply_adds_differ_as_what_torch_counts_of_the_networks_does(first, second):
    """The stem, the projections and the readout are the same; odd maps on the way."""
    cost, images = COSTS["multiply_adds"](27, 20), 3
    counted = [flops(NETWORK.discrete(genotype), images, (27, 20)) for genotype in (first, second)]
    apart = cost(NETWORK, one_hot(first)) - cost(NETWORK, one_hot(second))
    assert 2 * images * int(apart) == counted[0] - counted[1]


def flops(network, images, size):
    params = network.init(Key.from_seed(0))
    with implementation("reference"), FlopCounterMode(display=False) as counter:
        network.embed(params, torch.randn(images, 1, *size))
    return counter.get_total_flops()


def test_a_penalty_reaches_the_alphas_gradient():
    learner = Learner(NETWORK, precision="fp64")
    params, batch = generic_params(learner, Key.from_seed(0)), random_tasks(Key.from_seed(1), size=16)
    own = {name: tensor.expand(2, *tensor.shape).clone().requires_grad_() for name, tensor in params.items()}
    plain, taxed = (
        Learner(NETWORK, precision="fp64", penalty=penalty)
        for penalty in (None, Penalty(COSTS["weights"](16, 16), 0.01))
    )
    start = plain.start(own, batch)
    apart = taxed.query_loss(start, batch)[0] - plain.query_loss(start, batch)[0]
    expected = 0.01 * COSTS["weights"](16, 16)(NETWORK, NETWORK.weights_of(own))
    torch.testing.assert_close(apart, expected)
    (gradient,) = torch.autograd.grad(apart.sum(), own["alphas.normal"])
    heavy, light = (NETWORK.space.primitives.index(name) for name in ("sep_conv_5x5", "skip_connect"))
    assert bool((gradient[..., heavy] > gradient[..., light]).all())
