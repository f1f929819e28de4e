"""What each relaxation weighs: closed forms, schedules, exact zeros, gradients that stand in for hard choices."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.core.types import FINISHED, Stage
from metadarts.relaxations import RELAXATIONS, Relaxation
from metadarts.relaxations.annealed import Annealed
from metadarts.relaxations.entmax import Entmax
from metadarts.relaxations.gdas import GDAS
from metadarts.relaxations.gumbel import Gumbel
from metadarts.relaxations.hard import Hard
from metadarts.relaxations.paths import Paths
from metadarts.relaxations.relu_softmax import ReluSoftmax
from metadarts.relaxations.sigmoid import Sigmoid
from metadarts.relaxations.softmax import Softmax
from metadarts.relaxations.sparsemax import Sparsemax

ALPHA = torch.tensor([[[0.3, -1.2, 0.9, 0.1], [2.0, 1.9, -0.4, 0.0]]], dtype=torch.float64)
KEY = Key(("tests", "mechanisms"))
NOISE = Gumbel().noise((1, 3, 2, 4), KEY)


def at(step: int, progress: float, steps: int = 2) -> Stage:
    return Stage(step, steps, torch.tensor(progress, dtype=torch.float64))


def cooled(temperature: float) -> torch.Tensor:
    return (ALPHA / temperature).softmax(-1)


@pytest.mark.parametrize(
    ("progress", "temperature"), [(0.0, 1.0), (0.3, 1.0), (0.6, math.sqrt(0.05)), (0.9, 0.05), (1.0, 0.05)]
)
def test_annealing_over_the_run_is_geometric_between_its_ends(progress, temperature):
    torch.testing.assert_close(Annealed().weights(ALPHA, at(1, progress)), cooled(temperature), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("step", "temperature"), [(0, 1.0), (1, 0.525), (2, 0.05)])
def test_annealing_within_the_task_is_linear(step, temperature):
    relaxation = Annealed(1.0, 1.0, inner_end=0.05)
    torch.testing.assert_close(relaxation.weights(ALPHA, at(step, 0.5)), cooled(temperature), rtol=1e-6, atol=1e-9)


def test_both_schedules_multiply():
    found = Annealed(1.0, 0.1, 0.0, 1.0, inner_end=0.5).weights(ALPHA, at(1, 0.5))
    torch.testing.assert_close(found, cooled(math.sqrt(0.1) * 0.75), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("relaxation", [Gumbel(0.5, 0.5), GDAS(0.5, 0.5)], ids=repr)
def test_draws_follow_the_softmax_of_the_alphas(relaxation):
    """The largest of alpha + Gumbel noise is distributed as softmax(alpha): 20,000 draws, 5 standard errors."""
    draws = 20_000
    noise = relaxation.noise((draws, 1, 2, 4), KEY)[:, 0]
    drawn = relaxation.weights(ALPHA.expand(draws, 2, 4), at(0, 0.5), noise).argmax(-1)
    shares = torch.stack([(drawn == index).double().mean(0) for index in range(4)], dim=-1)
    expected = ALPHA[0].softmax(-1)
    assert bool(((shares - expected).abs() < 5 * (expected * (1 - expected) / draws).sqrt()).all())


def gradients(weights, alpha, readout):
    """First derivatives in alpha of sum(readout * weights), and of their own weighted sum."""
    (first,) = torch.autograd.grad((readout * weights).sum(), alpha, create_graph=True)
    (second,) = torch.autograd.grad((first * readout.flip(-1)).sum(), alpha)
    return first, second


@pytest.mark.parametrize(
    ("hard", "soft"),
    [
        (Gumbel(0.7, 0.7, hard=True), Gumbel(0.7, 0.7)),
        (Hard(0.7), Softmax(0.7)),
        (Hard(0.7, passes="query"), Softmax(0.7)),
    ],
    ids=repr,
)
def test_straight_through_has_the_value_of_the_choice_and_both_derivatives_of_the_soft_weights(hard, soft):
    alpha, readout = ALPHA.clone().requires_grad_(), torch.randn(1, 2, 4, dtype=torch.float64, generator=KEY.torch())
    weights = hard.weights(alpha, at(2, 0.5), NOISE[:, 2])
    surrogate = soft.weights(alpha, at(2, 0.5), NOISE[:, 2])
    assert torch.equal(weights.detach(), torch.nn.functional.one_hot(surrogate.argmax(-1), 4).double())
    for found, expected in zip(gradients(weights, alpha, readout), gradients(surrogate, alpha, readout), strict=True):
        assert torch.equal(found, expected)
        assert bool((expected != 0).all())


def test_gdas_differentiates_the_chosen_weight_alone():
    alpha, readout = ALPHA.clone().requires_grad_(), torch.randn(1, 2, 4, dtype=torch.float64, generator=KEY.torch())
    weights = GDAS(0.7, 0.7).weights(alpha, at(0, 0.5), NOISE[:, 0])
    p = ((alpha.log_softmax(-1) + NOISE[:, 0].double()) / 0.7).softmax(-1)
    chosen = weights.detach()
    assert sorted(chosen.unique().tolist()) == [0.0, 1.0]
    expected = gradients(chosen * p, alpha, readout)
    for found, truth in zip(gradients(weights, alpha, readout), expected, strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-14)


def test_only_the_query_pass_is_hard_where_it_is_asked_for():
    relaxation = Hard(passes="query")
    assert torch.equal(relaxation.weights(ALPHA, at(1, 1.0)), ALPHA.softmax(-1))
    assert sorted(relaxation.weights(ALPHA, at(2, 1.0)).unique().tolist()) == [0.0, 1.0]
    assert sorted(relaxation.weights(ALPHA, FINISHED).unique().tolist()) == [0.0, 1.0]


def test_a_path_is_drawn_once_for_a_task_and_costs_alphas_no_graph():
    noise = Paths().noise((6, 3, 2, 4), KEY)
    assert torch.equal(noise[:, 0], noise[:, 2])
    assert len({tuple(row.argmax(-1).tolist()) for row in noise[:, 0]}) > 1
    weights = Paths().weights(ALPHA.expand(6, 2, 4).clone().requires_grad_(), at(0, 0.0), noise[:, 0])
    assert not weights.requires_grad
    assert bool((weights.sum(-1) == 1).all())


@pytest.mark.parametrize("make", [Sparsemax, Entmax])
@pytest.mark.parametrize("temperature", [20.0, 1.0, 0.2])
def test_projections_are_distributions_with_exact_zeros(make, temperature):
    p = make(temperature).weights(ALPHA, FINISHED)
    torch.testing.assert_close(p.sum(-1), torch.ones(1, 2, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert bool((p >= 0).all())
    assert bool((p == 0).any()) == (temperature < 20.0)


def test_projections_are_those_of_their_definition():
    """Sparsemax minimises |p - z|^2 on the simplex; 1.5-entmax weights are max(z/2 - tau, 0)^2 for one tau a row."""
    z, p = ALPHA, Sparsemax().weights(ALPHA, FINISHED)
    draw = torch.rand(500, 2, 4, dtype=torch.float64, generator=KEY.child("others").torch())
    others = draw / draw.sum(-1, keepdim=True)
    assert bool(((p - z).square().sum(-1) <= (others - z).square().sum(-1)).all())
    p = Entmax().weights(ALPHA, FINISHED)
    tau = torch.where(p > 0, z / 2 - p.sqrt(), math.nan)
    assert bool((tau - tau.nanmean(-1, keepdim=True)).nan_to_num().abs().max() < 1e-12)
    assert bool((z / 2 - tau.nanmean(-1, keepdim=True))[p == 0].max() <= 0)


@pytest.mark.parametrize("relaxation", [Sparsemax(0.2), Entmax(0.2)], ids=repr)
def test_second_derivatives_are_finite_at_exact_zeros(relaxation):
    alpha = ALPHA.clone().requires_grad_()
    assert bool((relaxation.weights(alpha, FINISHED) == 0).any())
    assert gradcheck(lambda own: relaxation.weights(own, FINISHED), alpha)
    assert gradgradcheck(lambda own: relaxation.weights(own, FINISHED), alpha)


@pytest.mark.parametrize("relaxation", [Sparsemax(), Entmax()], ids=repr)
def test_equal_alphas_share_alike(relaxation):
    torch.testing.assert_close(relaxation.weights(torch.zeros(2, 4), FINISHED), torch.full((2, 4), 0.25))


def test_relus_take_over_within_the_task():
    relaxation = ReluSoftmax()
    assert torch.equal(relaxation.weights(ALPHA, at(0, 0.0)), ALPHA.softmax(-1))
    positive = ALPHA.relu() / ALPHA.relu().sum(-1, keepdim=True)
    torch.testing.assert_close(relaxation.weights(ALPHA, at(2, 0.0)), positive)
    torch.testing.assert_close(relaxation.weights(ALPHA, at(1, 0.0)), (positive + ALPHA.softmax(-1)) / 2)
    assert torch.equal(relaxation.weights(-ALPHA.abs(), at(2, 0.0)), (-ALPHA.abs()).softmax(-1))


def test_sigmoids_do_not_compete():
    other = ALPHA.clone()
    other[..., 0] += 1.0
    assert torch.equal(Sigmoid().weights(other, FINISHED)[..., 1:], Sigmoid().weights(ALPHA, FINISHED)[..., 1:])


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (Softmax, {"temperature": 0.0}),
        (Annealed, {"end": -1.0}),
        (Annealed, {"begin": 0.9, "finish": 0.3}),
        (Annealed, {"finish": 1.5}),
        (Gumbel, {"start": float("nan")}),
        (GDAS, {"end": 0.0}),
        (Hard, {"temperature": 0.0}),
        (Hard, {"passes": "queri"}),
        (Sparsemax, {"temperature": -1.0}),
        (Entmax, {"temperature": 0.0}),
    ],
)
def test_options_that_make_no_sense_are_refused(make, options):
    with pytest.raises(ConfigError, match="relaxation "):
        make(**options)


def test_all_are_in_the_table():
    expected = {
        "annealed",
        "dirichlet",
        "entmax",
        "gdas",
        "gumbel",
        "hard",
        "paths",
        "relu_softmax",
        "sigmoid",
        "softmax",
        "sparsemax",
    }
    assert set(RELAXATIONS) == expected
    relaxation: Relaxation = RELAXATIONS["annealed"](end=0.1)
    assert relaxation == Annealed(end=0.1)
