"""Groups of parameters in the inner loop: what has a rate of 0 stays, and ANIL is a softmax regression on features."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from metadarts.core.types import group_of
from metadarts.inner import InnerLoop, adapt
from metadarts.testing import ENGINES

MOVING = {
    "ANIL": ({"head": 0.4, "body": 0.0, "alphas": 0.0}, {"head"}),
    "BOIL": ({"head": 0.0, "body": 0.05, "alphas": 0.0}, {"body"}),
    "alphas": ({"head": 0.0, "body": 0.0, "alphas": 2.0}, {"alphas"}),
    "all": ({"head": 0.4, "body": 0.05, "alphas": 2.0}, {"head", "body", "alphas"}),
}


def inner_loop(rates, **options):
    return InnerLoop(3, weight_rate=rates["body"], alpha_rate=rates["alphas"], head_rate=rates["head"], **options)


def begun(learner, params, batch):
    own = {name: tensor.expand(batch.tasks, *tensor.shape) for name, tensor in params.items()}
    return learner.start(own, batch)


@pytest.mark.parametrize("engine", ["batched", "loop", "higher"])
@pytest.mark.parametrize(("rates", "moving"), MOVING.values(), ids=MOVING)
def test_a_group_without_a_rate_stays_where_it_is(pair, prototype, rates, moving, engine):
    learner, params = prototype
    start = begun(learner, params, pair)
    ends = adapt(learner.support_loss, start, pair, inner_loop(rates, order="first"), engine=ENGINES[engine]).params
    changed = {name for name in start if not torch.equal(ends[name], start[name])}
    assert {group_of(name) for name in changed} == moving
    assert all(torch.equal(ends[name], start[name]) for name in start if group_of(name) not in moving)


def test_anil_is_softmax_regression_on_the_features_of_the_start(pair, prototype):
    """The inner loop written out with the gradient of softmax regression: g = (softmax - one-hot)^T features / S."""
    learner, params = prototype
    start = begun(learner, params, pair)
    ends = adapt(learner.support_loss, start, pair, inner_loop(MOVING["ANIL"][0])).params
    features = learner.features(start, pair)[0]
    weight, bias = start["head.weight"], start["head.bias"]
    truth = F.one_hot(pair.support_labels, pair.ways).double()
    for _ in range(3):
        error = (features @ weight.mT + bias.unsqueeze(1)).softmax(-1) - truth
        weight = weight - 0.4 * error.mT @ features / features.shape[1]
        bias = bias - 0.4 * error.mean(1)
    torch.testing.assert_close(ends["head.weight"], weight, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ends["head.bias"], bias, rtol=1e-10, atol=1e-12)


def test_anil_sends_no_gradient_through_inner_steps_of_the_body(pair, prototype):
    """d(adapted body)/d(start) is the identity, exact order or not; the head's steps do depend on the body."""
    learner, params = prototype
    own = {n: t.expand(pair.tasks, *t.shape).clone().requires_grad_() for n, t in params.items()}
    ends = adapt(learner.support_loss, learner.start(own, pair), pair, inner_loop(MOVING["ANIL"][0])).params
    (through_body,) = torch.autograd.grad(ends["stem.conv1"].sum(), own["stem.conv1"], retain_graph=True)
    assert torch.equal(through_body, torch.ones_like(through_body))
    (through_head,) = torch.autograd.grad(ends["head.weight"].square().sum(), own["stem.conv1"])
    assert float(through_head.abs().max()) > 1e-3
