"""Supernet and discrete network are one code: one-hot weights choose, a task axis only repeats, heads fit all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metadarts.core.rng import Key
from metadarts.derive import genotype_weights
from metadarts.inner import InnerLoop, adapt
from metadarts.meta import meta_gradient
from metadarts.networks import Learner, NetworkSpec, discrete_network, inherit, supernet
from metadarts.spaces import Genotype, SearchSpace, darts, random_genotype
from metadarts.testing import ENGINES, check_close, check_params_close, generic_params, random_tasks, tiny_learner

INNER = InnerLoop(steps=2, weight_rate=0.05, alpha_rate=2.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("head", "affine"), [("shared", False), ("prototype", True)])
def test_discrete_network_is_the_supernet_with_one_hot_weights(pair, seed, head, affine):
    """Logits before and after the same inner loop, and the gradients of what both have."""
    parent = tiny_learner(head=head, affine=affine, nodes=3, bn=("transductive", "support")[seed % 2])
    space = parent.network.space
    genotype = random_genotype(space, Key.from_seed(seed))
    mixed = replace(parent, weights=genotype_weights(genotype, space))
    network = discrete_network(genotype, space, parent.network.spec)
    discrete = replace(parent, network=network)
    params = generic_params(parent, Key.from_seed(seed))
    own = inherit(network, params, parent.network)
    inner = replace(INNER, alpha_rate=0.0)
    for steps in (0, 2):
        logits = [
            after(learner, p, pair, replace(inner, steps=steps)) for learner, p in ((mixed, params), (discrete, own))
        ]
        check_close(f"logits after {steps} steps", logits[1], logits[0], 1e-10)
    grads = [meta_gradient(learner, p, pair, inner).gradients for learner, p in ((mixed, params), (discrete, own))]
    check_params_close(grads[1], inherit(network, grads[0], parent.network), 1e-9)


def after(learner, params, batch, inner):
    own = {name: tensor.expand(batch.tasks, *tensor.shape) for name, tensor in params.items()}
    with torch.no_grad():
        return learner.query_logits(adapt(learner.support_loss, learner.start(own, batch), batch, inner).params, batch)


def test_inheriting_with_a_task_axis_is_inheriting_task_by_task():
    parent = tiny_learner()
    network = discrete_network(random_genotype(darts(2), Key.from_seed(3)), darts(2), parent.network.spec)
    tasks = [generic_params(parent, Key.from_seed(seed)) for seed in (0, 1)]
    stacked = inherit(network, {name: torch.stack([t[name] for t in tasks]) for name in tasks[0]}, parent.network)
    for index, task in enumerate(tasks):
        for name, tensor in inherit(network, task, parent.network).items():
            assert torch.equal(stacked[name][index], tensor)


@pytest.mark.parametrize("affine", [False, True])
def test_without_a_task_axis_as_with_one_task(batch, affine):
    learner = tiny_learner(affine=affine)
    params = generic_params(learner, Key.from_seed(1))
    images = batch.support_images[0]
    lifted = {name: tensor.unsqueeze(0) for name, tensor in params.items()}
    with_axis = learner.network.embed(lifted, images.unsqueeze(0))
    assert torch.equal(learner.network.embed(params, images), with_axis[0])


def test_tasks_with_weights_of_their_own_are_run_apart(batch):
    """T different networks in one pass are the T networks."""
    learner = tiny_learner(affine=True)
    tasks = [generic_params(learner, Key.from_seed(seed)) for seed in range(3)]
    together = learner.network.embed({n: torch.stack([t[n] for t in tasks]) for n in tasks[0]}, batch.support_images)
    for index, params in enumerate(tasks):
        check_close(f"task {index}", together[index], learner.network.embed(params, batch.support_images[index]), 1e-12)


@pytest.mark.parametrize("ways", [2, 5, 20])
@pytest.mark.parametrize("head", ["shared", "prototype"])
def test_an_initialisation_of_any_ways_adapts_to_tasks_of_others(head, ways):
    """The shared parameters know no number of classes."""
    learner = tiny_learner(head=head)
    params = generic_params(learner, Key.from_seed(1))
    five = meta_gradient(learner, params, random_tasks(Key.from_seed(0), ways=5, shots=1, queries=1), INNER).gradients
    params = {name: tensor - 0.01 * five[name] for name, tensor in params.items()}
    batch = random_tasks(Key.from_seed(0), ways=ways, shots=1, queries=1)
    own = {name: tensor.expand(2, *tensor.shape) for name, tensor in params.items()}
    start = learner.start(own, batch)
    assert start["head.weight"].shape == (2, ways, learner.network.features)
    assert start["head.bias"].shape == (2, ways)
    assert not {"head.vector", "head.scale"} & set(start)
    adapted = adapt(learner.support_loss, start, batch, InnerLoop(steps=5, weight_rate=0.05, alpha_rate=2.0))
    assert learner.query_logits(adapted.params, batch).shape == (2, ways, ways)
    assert bool((learner.support_loss(adapted.params, batch) < adapted.losses[0]).all())
    assert meta_gradient(learner, params, batch, INNER).finite.all()


def test_a_shared_head_starts_as_one_vector_for_every_class(pair, shared):
    learner, params = shared
    start = learner.start({name: tensor.expand(2, *tensor.shape) for name, tensor in params.items()}, pair)
    for way in range(pair.ways):
        assert torch.equal(start["head.weight"][1, way], params["head.vector"])
    assert bool((start["head.bias"] == params["head.bias"]).all())


def test_a_prototype_head_scores_by_distance_to_the_class_means(pair, prototype):
    """Snell et al. (2017), equation 8: the logits are minus scale times squared distance, up to a term of no class."""
    learner, params = prototype
    own = {name: tensor.expand(2, *tensor.shape) for name, tensor in params.items()}
    embed = learner.network.embed(own, pair.support_images)
    means = torch.stack([embed[:, pair.support_labels[0] == way].mean(1) for way in range(pair.ways)], dim=1)
    distances = -params["head.scale"] * (embed.unsqueeze(2) - means.unsqueeze(1)).square().sum(-1)
    logits = learner.support_logits(learner.start(own, pair), pair)
    check_close("probabilities", logits.softmax(-1), distances.softmax(-1), 1e-12)


def test_spaces_without_the_zero_operation_or_with_one_cell_type_run():
    space = SearchSpace(
        "normal only", ("skip_connect", "max_pool_3x3", "sep_conv_3x3"), nodes=2, cell_types=("normal",)
    )
    spec = NetworkSpec(in_channels=1, stem=(4, 6), channels=4, cells=("normal", "normal"))
    learner = Learner(supernet(space, spec), precision="fp64")
    params = generic_params(learner, Key.from_seed(0))
    assert list(meta_gradient(learner, params, random_tasks(Key.from_seed(0)), INNER).finite) == [True, True]


DEAD_END = Genotype(
    normal=(("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 1)),
    normal_concat=(3,),
    reduce=(("skip_connect", 0), ("skip_connect", 1), ("sep_conv_3x3", 0), ("skip_connect", 1)),
    reduce_concat=(2, 3),
)


@pytest.mark.parametrize("engine", ["batched", "loop", "higher"])
@pytest.mark.parametrize("what", ["alphas of a kind without a cell", "weights of a node that nothing reads"])
def test_parameters_that_no_output_reads_stay_where_they_are(pair, what, engine):
    learner = tiny_learner(cells=("normal", "normal"))
    unread = "alphas.reduce"
    if not what.startswith("alphas"):
        learner = replace(learner, network=discrete_network(DEAD_END, darts(2), tiny_learner().network.spec))
        unread = "cells.0.dil_conv_3x3.depthwise1"
    params = generic_params(learner, Key.from_seed(1))
    gradients = meta_gradient(learner, params, pair, INNER, engine=ENGINES[engine]).gradients
    assert not gradients[unread].any()
    assert gradients["stem.conv1"].any()
