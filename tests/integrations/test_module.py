"""learn2learn's MAML on our supernet gives our meta-gradient: exact and first order, weights and alphas."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.core.types import is_alpha
from metadarts.inner import InnerLoop
from metadarts.integrations import SupernetModule
from metadarts.meta import meta_gradient
from metadarts.testing import ENGINES, check_params_close, generic_params, random_tasks, tiny_learner

RATE, STEPS, SAME = 0.3, 2, 1e-9
KEY = Key.from_seed(0)
BATCH = random_tasks(KEY, tasks=2)


def inner(order: str) -> InnerLoop:
    return InnerLoop(steps=STEPS, weight_rate=RATE, alpha_rate=RATE, order=order)


def with_maml(l2l, learner, params, first_order, cloned=True):
    """Mean query loss and its gradients by learn2learn's own pattern: clone, adapt, loss, backward."""
    module, total = SupernetModule(learner, params), 0.0
    for index in range(BATCH.tasks):
        task = BATCH.task(index)
        maml = l2l.algorithms.MAML(module.start(task), lr=RATE, first_order=first_order)
        maml = maml.clone() if cloned else maml
        for _ in range(STEPS):
            maml.adapt(F.cross_entropy(maml(task.support_images[0]), task.support_labels[0]))
        loss = F.cross_entropy(maml(task.query_images[0]), task.query_labels[0]) / BATCH.tasks
        loss.backward()
        total += loss.item()
    return total, {name: parameter.grad for name, parameter in module.named_parameters()}


@pytest.fixture(scope="module", params=["shared", "prototype"])
def problem(request):
    learner = tiny_learner(head=request.param)
    return learner, generic_params(learner, Key.from_seed(1))


@pytest.fixture(scope="module")
def results(l2l, problem):
    """Order -> loss and gradients by learn2learn."""
    return {order: with_maml(l2l, *problem, first_order=order == "first") for order in ("second", "first")}


@pytest.mark.parametrize("order", ["second", "first"])
@pytest.mark.parametrize("engine", ["loop", "batched"])
def test_maml_gives_our_losses_and_meta_gradients(problem, results, order, engine):
    expected = meta_gradient(*problem, BATCH, inner(order), engine=ENGINES[engine])
    loss, gradients = results[order]
    assert loss == pytest.approx(float(expected.losses.mean()), rel=SAME)
    check_params_close(gradients, expected.gradients, SAME)


def test_clone_is_for_the_habit(l2l, problem, results):
    """`start` makes a task's own parameters already; without clone() the inner gradients are as partial."""
    _, gradients = with_maml(l2l, *problem, first_order=False, cloned=False)
    check_params_close(gradients, results["second"][1], SAME)


def test_orders_differ_in_weights_and_alphas(results):
    """So agreement in one order is no agreement in the other."""
    exact, first = results["second"][1], results["first"][1]
    for name in exact:
        if exact[name].numel() > 1:
            assert float((exact[name] - first[name]).norm() / exact[name].norm()) > 1e-4, name
    assert any(is_alpha(name) for name in exact)


def test_parameters_are_the_learners_by_name(problem):
    learner, params = problem
    module = SupernetModule(learner, params)
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == learner.network.shapes()
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in module.parameters())
    assert set(module.state_dict()) == set(params)
    task = module.start(BATCH.task(0))
    assert dict(task.named_parameters())["head.weight"].shape == (BATCH.ways, learner.network.features)


def test_an_outer_optimiser_moves_the_shared_parameters_and_not_the_callers(l2l):
    learner = tiny_learner()
    params = generic_params(learner, Key.from_seed(1))
    before = copy.deepcopy(params)
    module, task = SupernetModule(learner, params), BATCH.task(0)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        maml = l2l.algorithms.MAML(module.start(task), lr=RATE).clone()
        maml.adapt(F.cross_entropy(maml(task.support_images[0]), task.support_labels[0]))
        loss = F.cross_entropy(maml(task.query_images[0]), task.query_labels[0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]
    moved = module.tensors()
    # The shared class vector is inert: its gradient is rounding alone, and may be exactly zero.
    assert not any(torch.equal(moved[name], before[name]) for name in before if not name.startswith("head."))
    check_params_close(params, before, 0.0)


def test_what_cannot_be_adapted_right_is_refused():
    learner = tiny_learner(bn="support")
    with pytest.raises(ConfigError, match="'transductive', given 'support'"):
        SupernetModule(learner, generic_params(learner, KEY))
    learner = tiny_learner()
    module = SupernetModule(learner, generic_params(learner, KEY))
    with pytest.raises(ConfigError, match=r"given 2 task\(s\); take batch.task"):
        module.start(BATCH)
