"""Exponentiated gradient against a descent written on the simplex itself, and its closed form on a linear loss."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from metadarts.core.rng import Key
from metadarts.core.types import Stage
from metadarts.inner import InnerLoop, adapt, unstaged
from metadarts.optim import chain, exponentiated, sgd
from metadarts.relaxations.gumbel import Gumbel
from metadarts.relaxations.softmax import Softmax
from metadarts.relaxations.sparsemax import Sparsemax
from metadarts.testing import ENGINES, check_rule


class OnSimplex(torch.optim.Optimizer):
    """p <- p exp(-lr dL/dp) / Z on the probabilities themselves; the logits keep their constant."""

    def __init__(self, params, lr, floor=1e-5):
        super().__init__(params, {"lr": lr, "floor": floor})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for leaf in group["params"]:
                p = leaf.softmax(-1)
                grown = p * (-group["lr"] * leaf.grad / p.clamp(min=group["floor"])).exp()
                leaf.copy_(grown.log() + leaf.logsumexp(-1, keepdim=True))


def draw(name, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=Key(("exponentiated", name)).torch())


def test_it_conforms():
    check_rule(exponentiated(), OnSimplex)


def test_below_the_floor_it_conforms_too():
    check_rule(exponentiated(floor=0.3), partial(OnSimplex, floor=0.3))


@pytest.mark.parametrize(
    "fault",
    [
        sgd()._replace(simplex=True),
        exponentiated(floor=0.3),
        chain(exponentiated(), lambda seen: seen)._replace(simplex=False),
    ],
    ids=["no division", "another floor", "a scalar is no row"],
)
def test_the_check_sees_another_rule(fault):
    with pytest.raises(AssertionError, match="of task 0 after step 0"):
        check_rule(fault, OnSimplex)


def test_a_chain_is_still_for_alphas_alone():
    assert chain(exponentiated(), lambda seen: seen).simplex


COSTS = draw("costs", 2, 3, 4)


def linear(params, batch):
    """<cost, p> of every task."""
    return (COSTS[batch.own] * params["alphas.x"].softmax(-1)).sum((1, 2))


class Numbered:
    """Tasks that know which they are."""

    def __init__(self, own):
        self.own, self.tasks = own, len(own)

    def task(self, index):
        return Numbered(self.own[index : index + 1])


@pytest.mark.parametrize("engine", ["batched", "loop"])
@pytest.mark.parametrize("rate", [0.1, 0.7])
def test_a_linear_loss_has_a_closed_form(engine, rate):
    """p_K is proportional to p_0 exp(-K rate cost), row by row and task by task."""
    start = {"alphas.x": draw("start", 2, 3, 4)}
    inner = InnerLoop(steps=3, alpha_rate=rate, alpha_rule="exponentiated")
    ends = adapt(unstaged(linear), start, Numbered([0, 1]), inner, engine=ENGINES[engine]).params["alphas.x"]
    expected = (start["alphas.x"] - 3 * rate * COSTS).softmax(-1)
    torch.testing.assert_close(ends.softmax(-1), expected, rtol=1e-12, atol=1e-14)


NOISE = Gumbel().noise((2, 3, 4), Key(("exponentiated", "noise")))


@pytest.mark.parametrize(
    ("relaxation", "noise"),
    [(Softmax(), None), (Softmax(0.3), None), (Gumbel(0.7, 0.7), NOISE), (Sparsemax(2.0), None)],
)
def test_it_descends_on_p_whatever_the_temperature(relaxation, noise):
    """dL/dp by autograd, L as a function of p: weights of log p are those of the logits, whatever their constant."""
    logits = draw("logits", 2, 3, 4).requires_grad_()

    def loss(log_p):
        return (relaxation.weights(log_p, Stage(), noise) - 0.3).mul(COSTS).square().sum()

    (grad,) = torch.autograd.grad(loss(logits), logits)
    moved, _ = exponentiated().update({"x": grad}, {}, {"x": logits}, 0.4, 0)
    p = logits.detach().softmax(-1).requires_grad_()
    (slope,) = torch.autograd.grad(loss(p.log()), p)
    expected = p * (-0.4 * slope).exp()
    torch.testing.assert_close(moved["x"].softmax(-1), expected / expected.sum(-1, keepdim=True), rtol=1e-12, atol=0)
    assert not torch.allclose(moved["x"].softmax(-1), p, rtol=1e-3)


def test_at_a_rate_of_zero_nothing_moves():
    logits = draw("logits", 2, 3, 4)
    moved, _ = exponentiated().update({"x": COSTS}, {}, {"x": logits}, 0.0, 0)
    assert torch.equal(moved["x"], logits)


def test_a_candidate_of_no_weight_keeps_its_derivatives_finite():
    logits = torch.tensor([[0.0, -2000.0, 1.0]], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad((logits.softmax(-1) * COSTS[0, :1, :3]).sum(), logits, create_graph=True)
    moved, _ = exponentiated().update({"x": grad}, {}, {"x": logits}, 0.5, 0)
    (first,) = torch.autograd.grad(moved["x"].softmax(-1)[0, 0], logits, create_graph=True)
    (second,) = torch.autograd.grad(first[0, 0], logits)
    assert bool(torch.isfinite(torch.cat([moved["x"], first, second])).all())
