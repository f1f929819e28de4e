"""Exact order: the meta-gradient is the derivative of the query loss after the inner loop.

Central differences in float64, at points where no ReLU and no max pooling changes sides within h; relative error below
1e-6, no exceptions. What is differentiated numerically never calls autograd's second order.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from metadarts.core.rng import Key
from metadarts.core.types import is_alpha
from metadarts.inner import InnerLoop, rate_shapes
from metadarts.meta import meta_gradient
from metadarts.optim import adam, momentum
from metadarts.testing import clean_difference, error_along, generic_params, kink_pattern, tiny_learner

INNER = {
    1: InnerLoop(steps=1, weight_rate=0.05, alpha_rate=2.0),
    3: InnerLoop(steps=3, weight_rate=0.05, alpha_rate=2.0),
}


@pytest.fixture(scope="module", params=["shared", "prototype"])
def head(request):
    return request.param


@pytest.mark.sampled(4)
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("bn", ["transductive", "support"])
@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
def test_exact_meta_gradient_equals_central_differences(pair, query_losses, head, affine, bn, steps):
    learner, inner = tiny_learner(head=head, affine=affine, bn=bn), INNER[steps]
    params = generic_params(learner, Key.from_seed(1))
    gradients = meta_gradient(learner, params, pair, inner).gradients

    def loss(point):
        return query_losses(learner, point, pair, inner).mean()

    weights, alphas = ([name for name in params if is_alpha(name) == wanted] for wanted in (False, True))
    assert error_along(loss, gradients, params, weights) < 1e-6
    assert error_along(loss, gradients, params, alphas) < 1e-6


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_exact_through_other_rules(pair, query_losses, prototype, name):
    """Adam with an ``eps_root`` above its squared gradients: with 1e-12 an update is a step function of the gradient,
    smooth only within 1e-6 of it, and no h is small enough for a difference."""
    rule = {"momentum": momentum(), "adam": adam(eps_root=1e-2)}[name]
    learner, params = prototype
    inner = InnerLoop(steps=2, rule=rule, weight_rate=0.03, alpha_rate=0.5)
    gradients = meta_gradient(learner, params, pair, inner).gradients
    assert error_along(lambda p: query_losses(learner, p, pair, inner).mean(), gradients, params, list(params)) < 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {"weight_rate": 0.0, "head_rate": 0.4, "alpha_rate": 0.0},
        {"head_rate": 0.0},
        {"head_rate": 0.4, "decay": 0.5, "schedule": "cosine"},
    ],
    ids=["ANIL", "BOIL", "decay and schedule"],
)
def test_exact_through_groups_of_parameters(pair, query_losses, prototype, options):
    learner, params = prototype
    inner = replace(INNER[3], **options)
    gradients = meta_gradient(learner, params, pair, inner).gradients
    assert error_along(lambda p: query_losses(learner, p, pair, inner).mean(), gradients, params, list(params)) < 1e-6


@pytest.mark.parametrize("rule", ["sgd", "momentum"])
def test_exact_through_exponentiated_gradient(pair, query_losses, prototype, rule):
    learner, params = prototype
    inner = InnerLoop(steps=3, rule=rule, weight_rate=0.05, alpha_rate=0.5, alpha_rule="exponentiated")
    gradients = meta_gradient(learner, params, pair, inner).gradients
    for wanted in (False, True):
        names = [name for name in params if is_alpha(name) == wanted]
        assert error_along(lambda p: query_losses(learner, p, pair, inner).mean(), gradients, params, names) < 1e-6


@pytest.mark.parametrize("limit", [0.02, 0.3])
def test_exact_through_clipping(pair, query_losses, prototype, limit):
    """0.02 clips weights and alphas of every task, 0.3 the weights alone."""
    learner, params = prototype
    inner = InnerLoop(steps=2, weight_rate=0.5, alpha_rate=2.0, clip=limit)
    gradients = meta_gradient(learner, params, pair, inner).gradients
    assert error_along(lambda p: query_losses(learner, p, pair, inner).mean(), gradients, params, list(params)) < 1e-6


@pytest.mark.sampled(2)
@pytest.mark.parametrize("order", ["second", "first"])
@pytest.mark.parametrize("granularity", ["group", "tensor", "step", "tensor-step"])
def test_gradients_of_learned_rates_equal_central_differences(pair, query_losses, prototype, granularity, order):
    """Under first order the last step's rates still have their exact gradient: only that step reads the query loss."""
    learner, params = prototype
    steps = 2 if order == "second" else 1
    inner = InnerLoop(steps, weight_rate=0.05, alpha_rate=2.0, learn_rates=True, granularity=granularity, order=order)
    names = list(learner.start({n: t.unsqueeze(0) for n, t in params.items()}, pair.task(0)))
    rates = {}
    for name, (shape, value) in rate_shapes(inner, names).items():
        factors = torch.rand(shape, dtype=torch.float64, generator=Key(("rates", name)).torch())
        rates[name] = value * (0.5 + factors)
    result = meta_gradient(learner, params, pair, inner, rates=rates).gradients
    assert set(result) == {*params, *rates}

    def loss(point):
        return query_losses(learner, params, pair, inner, point).mean()

    for group in ("weights", "alphas"):
        chosen = [n for n in rates if (n == "rates.alphas" or n.startswith("rates.alphas.")) == (group == "alphas")]
        assert error_along(loss, result, {n: rates[n] for n in rates}, chosen) < 1e-6


def test_these_differences_see_a_gradient_of_first_order(pair, query_losses, prototype):
    """A control: the first-order gradient at the same point is off by percents."""
    learner, params = prototype
    first = InnerLoop(steps=3, weight_rate=0.05, alpha_rate=2.0, order="first")
    gradients = meta_gradient(learner, params, pair, first).gradients
    weights = [name for name in params if not is_alpha(name)]
    assert error_along(lambda p: query_losses(learner, p, pair, INNER[3]).mean(), gradients, params, weights) > 1e-3


def rectify(x):
    return F.relu(x)


def pool(x):
    return F.max_pool2d(torch.stack([x, torch.zeros_like(x)]).view(1, 1, 1, 2), (1, 2))


@pytest.mark.parametrize("kinked", [rectify, pool])
@pytest.mark.parametrize(("distance", "step"), [(2e-5, 1e-5), (5e-6, 1e-6), (5e-7, 1e-7), (5e-8, None), (0.0, None)])
def test_differences_see_kinks(kinked, distance, step):
    found = clean_difference(lambda at: float(kinked(torch.tensor(at + distance, dtype=torch.float64))))
    assert (found and found.step) == step
    assert found is None or found.relative_error(1.0) < 1e-6


def test_differences_refuse_what_shows_no_kinks():
    with pytest.raises(AssertionError, match="kinks would go unnoticed"):
        clean_difference(abs)


def test_patterns_see_relu_and_max_pool_of_the_network(pair, prototype):
    """Counted by hand: 1 ReLU in the stem; a cell has 2 in front of its inputs; from each state that edges leave, 4 in
    front of its convolutions, 2 inside of the separable ones; 2 in front of each strided skip (there are 2); 2 max
    pools in the stem and 1 per state that edges leave."""
    learner, params = prototype
    own = {name: tensor.expand(2, *tensor.shape) for name, tensor in params.items()}
    with kink_pattern() as pattern, torch.no_grad():
        learner.start(own, pair)
    states = learner.network.space.inputs + learner.network.space.nodes - 1
    assert pattern.calls == (1 + 2) + 2 * (2 + (4 + 2 + 1) * states) + 2 * 2
