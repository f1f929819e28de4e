"""What the meta-gradient is by definition, computed independently: first order, zero steps, partial inner gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metadarts.core.rng import Key
from metadarts.core.types import is_alpha
from metadarts.inner import InnerLoop, adapt
from metadarts.meta import meta_gradient
from metadarts.networks import Learner
from metadarts.testing import check_params_close, generic_params, tiny_learner

RATES = {False: 0.05, True: 2.0}
INNER = InnerLoop(steps=3, weight_rate=RATES[False], alpha_rate=RATES[True])
TIGHT = 1e-10


def on_axis(params, tasks, at=None):
    return {name: tensor.expand(tasks, *tensor.shape).clone().requires_grad_() for name, tensor in params.items()}


def descended(params, grads):
    return {name: params[name] - RATES[is_alpha(name)] * grad for name, grad in zip(params, grads, strict=True)}


@pytest.mark.parametrize("head", ["shared", "prototype"])
@pytest.mark.parametrize("bn", ["transductive", "support"])
def test_first_order_is_the_query_gradient_at_the_adapted_parameters(pair, head, bn):
    """FOMAML: that gradient with respect to the adapted parameters, pushed through the identity onto the start."""
    learner = tiny_learner(head=head, bn=bn)
    params = generic_params(learner, Key.from_seed(1))
    own = on_axis(params, pair.tasks)
    start = learner.start(own, pair)
    now = {name: tensor.detach() for name, tensor in start.items()}
    for _ in range(INNER.steps):
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in now.items()}
        now = descended(now, torch.autograd.grad(learner.support_loss(leaves, pair).sum(), list(leaves.values())))
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in now.items()}
    losses = learner.query_loss(leaves, pair)[0]
    at_end = torch.autograd.grad(losses.mean(), list(leaves.values()))
    expected = torch.autograd.grad([start[name] for name in leaves], list(own.values()), at_end)
    result = meta_gradient(learner, params, pair, replace(INNER, order="first"))
    check_params_close(result.gradients, dict(zip(own, (g.sum(0) for g in expected), strict=True)), TIGHT)
    torch.testing.assert_close(result.losses, losses.detach(), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("order", ["second", "first"])
def test_zero_inner_steps_are_plain_training(pair, order):
    learner = tiny_learner(head="prototype")
    params = generic_params(learner, Key.from_seed(1))
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in params.items()}
    losses = []
    for task in range(pair.tasks):  # one after another: no task axis, no inner loop
        own = learner.start({name: tensor.unsqueeze(0) for name, tensor in leaves.items()}, pair.task(task))
        losses.append(learner.query_loss(own, pair.task(task))[0])
    grads = torch.autograd.grad(torch.cat(losses).mean(), list(leaves.values()))
    result = meta_gradient(learner, params, pair, InnerLoop(steps=0, order=order))
    check_params_close(result.gradients, dict(zip(leaves, grads, strict=True)), TIGHT)
    assert result.support_losses.shape == (0, pair.tasks)


def test_a_shared_head_without_inner_steps_learns_nothing(pair):
    """Its class rows start equal, so all classes score alike whatever the weights: every gradient is zero."""
    learner = tiny_learner(head="shared")
    params = generic_params(learner, Key.from_seed(1))
    still, moved = (meta_gradient(learner, params, pair, InnerLoop(steps=steps)).gradients for steps in (0, 1))
    assert max(float(tensor.abs().max()) for tensor in still.values()) < 1e-14
    assert max(float(tensor.abs().max()) for tensor in moved.values()) > 1e-3


def test_the_orders_differ(pair, prototype):
    second, first = (
        meta_gradient(*prototype, pair, replace(INNER, order=order)).gradients for order in ("second", "first")
    )
    with pytest.raises(AssertionError):
        check_params_close(first, second, 1e-3)


def exact_with(learner: Learner, params, batch, total: bool):
    """Exact order written out, with two copies of the start: one that runs, one that the prototypes are made of.

    An inner gradient is partial: the head is a variable of its own, though computed from the same weights.
    With ``total`` the first inner gradient goes through the prototypes as well, which is another algorithm.
    """
    runs, makes = on_axis(params, batch.tasks), on_axis(params, batch.tasks)
    made = learner.start(makes, batch)
    heads = [name for name in made if name.startswith("head.")]
    now = {name: runs[name] for name in made if name not in heads} | {name: made[name] for name in heads}
    for step in range(INNER.steps):
        loss = learner.support_loss(now, batch).sum()
        grads = dict(zip(now, torch.autograd.grad(loss, list(now.values()), create_graph=True), strict=True))
        if total and step == 0:
            bodies = [name for name in now if name not in heads]
            through = torch.autograd.grad(loss, [makes[name] for name in bodies], create_graph=True)
            grads |= {name: grads[name] + more for name, more in zip(bodies, through, strict=True)}
        now = descended(now, grads.values())
    loss = learner.query_loss(now, batch)[0].mean()
    halves = [torch.autograd.grad(loss, list(c.values()), retain_graph=True, allow_unused=True) for c in (runs, makes)]
    whole = {}
    for name, *parts in zip(params, *halves, strict=True):
        whole[name] = sum(part.sum(0) for part in parts if part is not None)
    return whole


def test_inner_gradients_of_a_prototype_head_are_partial_derivatives(pair, prototype):
    learner, params = prototype
    result = meta_gradient(learner, params, pair, INNER).gradients
    check_params_close(result, exact_with(learner, params, pair, total=False), TIGHT)
    with pytest.raises(AssertionError):
        check_params_close(result, exact_with(learner, params, pair, total=True), 1e-3)


def test_alpha_gradient_belongs_to_the_live_network(pair, prototype):
    """MetaNAS's architect took it on a stale copy. Here it moves with the weights, and nothing is remembered."""
    learner, params = prototype
    alphas = [name for name in params if is_alpha(name)]

    def alpha_gradients(learner, params):
        grads = meta_gradient(learner, params, pair, INNER).gradients
        return {name: grads[name] for name in alphas}

    before = alpha_gradients(learner, params)
    weights = {name: tensor.clone() for name, tensor in params.items()}
    for name, tensor in weights.items():
        if not is_alpha(name):
            tensor += 0.1 * tensor.abs().mean()  # in place, on the live tensors
    live = alpha_gradients(learner, weights)
    with pytest.raises(AssertionError):
        check_params_close(live, before, 1e-2)
    fresh = alpha_gradients(tiny_learner(head="prototype"), {name: tensor.clone() for name, tensor in weights.items()})
    assert all(torch.equal(live[name], fresh[name]) for name in alphas)


@pytest.mark.parametrize("rule", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("steps", [0, 3])
def test_the_shared_head_is_inert(pair, shared, rule, steps):
    """One vector for all classes adds the same score to each, which softmax ignores: nothing can reach it.

    What is left is rounding, which Adam divides by sqrt(eps_root) = 1e-6.
    """
    learner, params = shared
    gradients = meta_gradient(learner, params, pair, replace(INNER, steps=steps, rule=rule, weight_rate=0.01)).gradients
    rounding = 1e-15 if rule != "adam" else 1e-9
    assert float(gradients["head.vector"].abs().max()) < rounding
    assert float(gradients["head.bias"].abs()) < rounding
    assert (float(gradients["stem.conv1"].abs().max()) > 1e-3) == (steps > 0)


def test_clipping_bounds_the_first_step_of_each_task_and_group(pair, prototype):
    """Weights and alphas apart; where the limit is above a norm nothing changes."""
    learner, params = prototype
    start = learner.start({n: t.expand(pair.tasks, *t.shape) for n, t in params.items()}, pair)

    def moves(clip, alphas):
        inner = InnerLoop(steps=1, weight_rate=1.0, alpha_rate=1.0, clip=clip)
        with torch.no_grad():
            ends = adapt(learner.support_loss, start, pair, inner).params
        moved = [(ends[n] - start[n]).flatten(1).square().sum(1) for n in start if is_alpha(n) == alphas]
        return torch.stack(moved).sum(0).sqrt()

    free = {alphas: moves(None, alphas) for alphas in (False, True)}
    between = float(free[False].min() + free[True].max()) / 2.0
    torch.testing.assert_close(moves(between, False), torch.full((2,), between, dtype=torch.float64))
    assert torch.equal(moves(between, True), free[True])
    tasks_apart = float(free[False].mean())  # clips one task and not the other
    expected = free[False].clamp(max=tasks_apart)
    torch.testing.assert_close(moves(tasks_apart, False), expected)
    assert bool((expected < free[False]).any())
    assert bool((expected == free[False]).any())
