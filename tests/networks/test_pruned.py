"""A supernet that has dropped candidates computes what the whole one does with their weights at 0, and less of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metadarts.core.errors import GenotypeError
from metadarts.core.rng import Key
from metadarts.core.types import alphas_of
from metadarts.derive import derive_genotype, genotype_weights
from metadarts.inner import InnerLoop
from metadarts.meta import meta_gradient
from metadarts.networks import Learner, Network, NetworkSpec, inherit
from metadarts.relaxations import CLOSED, scores_of
from metadarts.relaxations.annealed import Annealed
from metadarts.spaces import Kept, darts, random_genotype
from metadarts.testing import random_tasks

SPEC = NetworkSpec(in_channels=1, stem=(4, 6), channels=4)
INNER = InnerLoop(steps=2, weight_rate=0.05, alpha_rate=2.0)


@pytest.fixture(params=["rule", "pairs", "edges"])
def parent(request) -> Network:
    return replace(Network(SPEC, darts(2, request.param, request.param == "rule")), relaxation=Annealed())


@pytest.fixture
def params(parent):
    key = Key(("tests", "pruned"))
    drawn = {name: tensor.double() for name, tensor in parent.init(key).items()}
    return {
        name: torch.randn(tensor.shape, dtype=torch.float64, generator=key.child(name).torch())
        if name.startswith("alphas")
        else tensor
        for name, tensor in drawn.items()
    }


def kept_of(network, params, least=0.15):
    scores = {name: table.tolist() for name, table in scores_of(alphas_of(params)).items()}
    kept = Kept.everything(network.space).without(network.space, scores, least)
    assert not kept.is_all
    return kept


def test_it_is_the_whole_one_with_weights_of_zero(parent, params):
    child = parent.pruned(kept_of(parent, params))
    own = inherit(child, params, parent)
    images = torch.rand(6, 1, 16, 16, dtype=torch.float64, generator=Key(("images",)).torch())
    torch.testing.assert_close(
        child.embed(own, images), parent.embed(params, images, weights=child.weights_of(own)), rtol=1e-12, atol=1e-12
    )
    assert sum(map(torch.Tensor.numel, own.values())) < sum(map(torch.Tensor.numel, params.values()))


@pytest.mark.parametrize("order", ["first", "second"])
def test_its_meta_gradient_is_that_of_the_whole_one(parent, params, order):
    """Alphas of what is dropped have none; weights of what is left have the same."""
    child = parent.pruned(kept_of(parent, params))
    closed = {**params, **{name: t for name, t in inherit(child, params, parent).items() if name.startswith("alphas")}}
    batch, inner = random_tasks(Key.from_seed(0), dtype=torch.float64), replace(INNER, order=order)
    whole = meta_gradient(Learner(parent, precision="fp64"), closed, batch, inner, progress=0.5).gradients
    part = meta_gradient(
        Learner(child, precision="fp64"), inherit(child, params, parent), batch, inner, progress=0.5
    ).gradients
    for name, expected in inherit(child, whole, parent).items():
        if name.startswith("alphas"):
            expected = torch.where(expected == CLOSED, 0.0, expected)
        torch.testing.assert_close(part[name], expected, rtol=1e-8, atol=1e-10)


def test_a_checkpoint_of_it_says_what_is_left(parent, params):
    child = parent.pruned(kept_of(parent, params))
    assert parent.fitting(inherit(child, params, parent)) == child
    assert parent.fitting(params) == parent


def test_pruned_in_turns_is_pruned_at_once(parent, params):
    once = parent.pruned(kept_of(parent, params, 0.2))
    first = parent.pruned(kept_of(parent, params, 0.1))
    straight, around = inherit(once, params, parent), inherit(once, inherit(first, params, parent), first)
    assert all(torch.equal(straight[name], around[name]) for name in straight)


def test_its_cell_is_the_whole_ones_cell(parent, params):
    child = parent.pruned(kept_of(parent, params))
    own = inherit(child, params, parent)
    genotype = derive_genotype(alphas_of(own), parent.space, parent.relaxation)
    assert genotype == derive_genotype(alphas_of(params), parent.space, parent.relaxation)
    cell = child.discrete(genotype)
    assert cell == parent.discrete(genotype)
    straight, around = inherit(cell, params, parent), inherit(cell, own, child)
    assert all(torch.equal(straight[name], around[name]) for name in straight)
    images = torch.rand(6, 1, 16, 16, dtype=torch.float64, generator=Key(("images",)).torch())
    weights = genotype_weights(genotype, parent.space, dtype=torch.float64)
    torch.testing.assert_close(cell.embed(around, images), child.embed(own, images, weights=weights))


def test_a_cell_of_what_was_dropped_is_refused(parent, params):
    child = parent.pruned(kept_of(parent, params, 0.4))
    own = inherit(child, params, parent)
    with pytest.raises(GenotypeError, match="was pruned: expected one of the candidates that are left"):
        inherit(parent.discrete(random_genotype(parent.space, Key(("another",)))), own, child)
