"""Dirichlet weights: the distribution itself, and pathwise derivatives of first and second order that are true."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from metadarts.core.rng import Key
from metadarts.core.types import FINISHED, Stage, is_alpha
from metadarts.inner import InnerLoop, adapt
from metadarts.meta import meta_gradient
from metadarts.relaxations._gamma import SHAPES, log_gamma_quantile
from metadarts.relaxations.dirichlet import Dirichlet
from metadarts.testing import ENGINES, check_params_close, error_along, generic_params, random_tasks, tiny_learner

KEY = Key(("tests", "dirichlet"))
ALPHA = torch.tensor([[[0.3, -1.2, 0.9, 0.1], [2.0, 1.9, -0.4, -3.0]]], dtype=torch.float64)
CONCENTRATION = torch.where(ALPHA > 0, ALPHA + 1.0, ALPHA.exp())
SMALLEST, LARGEST = SHAPES
SIZES = (SMALLEST, 0.05, 0.7, 1.0, 3.0, 30.0, LARGEST)


def midpoints(count):
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


@pytest.mark.parametrize("size", SIZES)
def test_quantiles_are_those_of_the_distribution(size):
    u = torch.cat([torch.tensor([2.0**-53, 1e-12, 1.0 - 2.0**-24]).double(), midpoints(999)])
    a = torch.full_like(u, size)
    y = log_gamma_quantile(a, u)
    assert bool((y[2:].diff()[1:] > 0).all())
    tiny = y < -25.0  # where exp(y) may be no float: x^a / Gamma(a + 1)
    found = torch.where(
        tiny, (a * y - torch.lgamma(a + 1.0)).exp(), torch.special.gammainc(a, y.clamp(min=-30.0).exp())
    )
    torch.testing.assert_close(found, u, rtol=1e-11, atol=0.0)


@pytest.mark.parametrize("size", [0.2, 0.7, 1.0, 3.0, 30.0, 99.0])
def test_the_mean_logarithm_and_its_derivatives_are_polygammas(size):
    """E log x = digamma(a), and so on: by the midpoint rule, whose error is that of log u at 0."""
    a = torch.tensor(size, dtype=torch.float64, requires_grad=True)
    count = 5_000
    mean = log_gamma_quantile(a.expand(count), midpoints(count)).mean()
    (first,) = torch.autograd.grad(mean, a, create_graph=True)
    (second,) = torch.autograd.grad(first, a)
    for order, found in enumerate((mean, first, second)):
        expected = torch.polygamma(order, a.detach())
        scale = max(1.0, size ** -(order + 1))
        torch.testing.assert_close(found.detach(), expected, rtol=2e-4, atol=5e-5 * scale)


@pytest.mark.parametrize("size", [0.01, 0.7, 3.0, 80.0])
def test_quantiles_have_true_derivatives(size):
    a = torch.full((5,), size, dtype=torch.float64, requires_grad=True)
    u = torch.tensor([1e-6, 0.1, 0.5, 0.9, 0.999]).double()
    assert gradcheck(lambda own: log_gamma_quantile(own, u), a)
    assert gradgradcheck(lambda own: log_gamma_quantile(own, u), a)


def drawn(count, alpha=ALPHA):
    """Weights of ``count`` draws, and what they were made from."""
    noise = Dirichlet().noise((count, 1, 2, 4), KEY)[:, 0]
    leaf = alpha.expand(count, 2, 4).clone().requires_grad_()
    return Dirichlet().weights(leaf, Stage(0, 1, 0.0), noise), leaf


def test_draws_are_distributed_as_the_dirichlet():
    """Mean and covariance; 20,000 draws, 5 standard errors."""
    count = 20_000
    p = drawn(count)[0].detach()
    torch.testing.assert_close(p.sum(-1), torch.ones(count, 2).double())
    total = CONCENTRATION.sum(-1, keepdim=True)
    mean = (CONCENTRATION / total)[0]
    centred = p - mean
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    covariance = (torch.diag_embed(mean) - mean.unsqueeze(-1) * mean.unsqueeze(-2)) / (total[0].unsqueeze(-1) + 1.0)
    assert bool((centred.mean(0).abs() < 5 * centred.std(0) / count**0.5).all())
    assert bool(((products.mean(0) - covariance).abs() < 5 * products.std(0) / count**0.5).all())


def test_the_mean_gradient_is_that_of_the_mean():
    """The pathwise gradient is unbiased: that of E p_0, in closed form; 5,000 draws, 5 standard errors."""
    p, leaf = drawn(5_000)
    (found,) = torch.autograd.grad(p[..., 0].sum(), leaf)
    alpha = ALPHA.clone().requires_grad_()
    (expected,) = torch.autograd.grad(Dirichlet().weights(alpha, FINISHED)[..., 0].sum(), alpha)
    assert bool(((found.mean(0) - expected[0]).abs() < 5 * found.std(0) / len(found) ** 0.5).all())
    assert bool((expected.abs() > 1e-3).all())


def test_outside_training_weights_are_the_mean():
    expected = CONCENTRATION / CONCENTRATION.sum(-1, keepdim=True)
    torch.testing.assert_close(Dirichlet().weights(ALPHA, FINISHED), expected)
    torch.testing.assert_close(Dirichlet().scores(ALPHA.float()), expected, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_of_the_concentrations_are_finite_to_second_order(dtype):
    alpha = torch.tensor([-1e4, -30.0, -6.8, -6.0, 0.0, 5.0, 98.0, 1e4], dtype=dtype).requires_grad_()
    for u in (2.0**-53, 0.5, 1.0 - 2.0**-24):
        p = Dirichlet().weights(alpha, FINISHED, torch.full((8,), u))
        (first,) = torch.autograd.grad((p * torch.arange(8)).sum(), alpha, create_graph=True)
        (second,) = torch.autograd.grad((first * torch.arange(8)).sum(), alpha)
        assert bool(torch.isfinite(torch.stack([p, first, second])).all())


@pytest.mark.parametrize("u", [0.1, 1.0 - 2.0**-24])
def test_an_alpha_far_below_the_others_weighs_nothing(u):
    alpha = torch.tensor([-1e9, 0.3, -1e9, -1.0], requires_grad=True)
    for noise in (None, torch.full((4,), u)):
        p = Dirichlet().weights(alpha, FINISHED, noise)
        assert p.detach()[[0, 2]].tolist() == [0.0, 0.0]
        (gradient,) = torch.autograd.grad(p[1], alpha)
        assert gradient[[0, 2]].tolist() == [0.0, 0.0]
        assert float(gradient[3]) < 0.0
        left = Dirichlet().weights(alpha[[1, 3]], FINISHED, None if noise is None else noise[1:3])
        torch.testing.assert_close(p[[1, 3]], left)


INNER = InnerLoop(steps=2, weight_rate=0.05, alpha_rate=2.0)


@pytest.fixture(scope="module")
def learner():
    plain = tiny_learner(nodes=1, head="prototype")
    return replace(plain, network=replace(plain.network, relaxation=Dirichlet()))


@pytest.fixture(scope="module")
def params(learner):
    return generic_params(learner, Key.from_seed(1))


@pytest.fixture(scope="module")
def batch(learner):
    return random_tasks(Key.from_seed(0)).with_noise(learner.noise(2, INNER.steps, Key.from_seed(2)))


def test_the_exact_meta_gradient_equals_central_differences(learner, params, batch):
    found = meta_gradient(learner, params, batch, INNER).gradients
    at = Stage(0, INNER.steps)

    def loss(point):
        own = {name: tensor.expand(2, *tensor.shape) for name, tensor in point.items()}
        with torch.no_grad():
            ends = adapt(learner.support_loss, learner.start(own, batch, at), batch, INNER).params
            return learner.query_loss(ends, batch, at.at(INNER.steps))[0].mean()

    for wanted in (False, True):
        assert error_along(loss, found, params, [name for name in params if is_alpha(name) == wanted]) < 1e-6


def test_engines_parts_and_recomputed_steps_agree(learner, params, batch):
    expected = meta_gradient(learner, params, batch, INNER).gradients
    for options in ({"engine": ENGINES["loop"]}, {"engine": ENGINES["higher"]}, {"micro_batch": 1}):
        check_params_close(meta_gradient(learner, params, batch, INNER, **options).gradients, expected, 1e-9)
    again = meta_gradient(learner, params, batch, replace(INNER, checkpoint=2)).gradients
    assert all(torch.equal(again[name], gradient) for name, gradient in expected.items())
