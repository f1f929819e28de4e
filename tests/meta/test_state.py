"""The outer loop: its schedule, the alphas' warm-up, learned rates that stay positive, gradients that are clipped."""

from __future__ import annotations

import math

import pytest
import torch

from metadarts.core.rng import Key
from metadarts.core.types import is_alpha
from metadarts.inner import InnerLoop
from metadarts.meta import MetaState, OuterLoop, meta_gradient, meta_step
from metadarts.testing import generic_params, random_tasks, tiny_learner

LEARNER = tiny_learner(head="prototype")
PARAMS = generic_params(LEARNER, Key.from_seed(1))
TASKS = random_tasks(Key.from_seed(0))
NAMES = list(LEARNER.start({name: tensor.unsqueeze(0) for name, tensor in PARAMS.items()}, TASKS.task(0)))
INNER = InnerLoop(steps=1, weight_rate=0.05, alpha_rate=2.0)
LEARNED = InnerLoop(steps=1, weight_rate=0.05, alpha_rate=2.0, learn_rates=True, granularity="tensor-step")


def fresh(inner=INNER, **outer):
    return MetaState.create(PARAMS, NAMES, inner, OuterLoop(**outer))


def ones(state):
    return {name: torch.ones_like(tensor) for name, tensor in (state.params | state.log_rates).items()}


def moved(state):
    return {name for name, tensor in state.params.items() if not torch.equal(tensor, PARAMS[name])}


def test_a_state_keeps_copies():
    state = fresh()
    meta_step(LEARNER, state, TASKS, INNER)
    before = generic_params(LEARNER, Key.from_seed(1))
    assert all(torch.equal(PARAMS[name], before[name]) for name in PARAMS)
    assert moved(state) == set(PARAMS)
    assert state.step == 1


def test_one_step_is_one_step_of_adam_along_the_meta_gradient():
    """T-NAS: weights by Adam's defaults, alphas with betas (0.5, 0.999) and weight decay 1e-3."""
    state = fresh(clip=None)
    result, norms = meta_step(LEARNER, state, TASKS, INNER)
    gradients = meta_gradient(LEARNER, PARAMS, TASKS, INNER).gradients
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in PARAMS.items()}
    groups = [[leaf for name, leaf in leaves.items() if is_alpha(name) == alphas] for alphas in (False, True)]
    adam = torch.optim.Adam(
        [{"params": groups[0]}, {"params": groups[1], "betas": (0.5, 0.999), "weight_decay": 1e-3}], lr=1e-3
    )
    for name, leaf in leaves.items():
        leaf.grad = gradients[name]
    adam.step()
    for name, leaf in leaves.items():
        torch.testing.assert_close(state.params[name], leaf.detach(), rtol=1e-12, atol=1e-14)
        assert torch.equal(result.gradients[name], gradients[name])
    assert set(norms) == {"weights", "alphas"}
    squares = sum(float(grad.square().sum()) for name, grad in gradients.items() if not is_alpha(name))
    assert norms["weights"] == pytest.approx(math.sqrt(squares))


def rates_of(state):
    return {group["name"]: group["lr"] for group in state.optimiser.param_groups}


@pytest.mark.parametrize(
    ("progress", "share"), [(0.0, 1.0), (0.25, 0.8682), (0.5, 0.55), (1.0, 0.1), (2.0, 0.1), (-1.0, 1.0)]
)
def test_outer_rates_decay_along_a_cosine_to_their_final_share(progress, share):
    state = fresh(LEARNED, weight_rate=1e-2, alpha_rate=3e-3, rate_rate=5e-2, final=0.1)
    state.apply(ones(state), progress)
    expected = {"weights": 1e-2 * share, "alphas": 3e-3 * share, "rates": 5e-2 * share}
    assert rates_of(state) == pytest.approx(expected, rel=1e-4)


def test_without_a_final_share_rates_are_constant():
    state = fresh()
    for progress in (0.0, 0.7, 1.0):
        state.apply(ones(state), progress)
        assert rates_of(state) == {"weights": 1e-3, "alphas": 1e-3}


def test_alphas_stay_where_they_are_during_their_warm_up():
    state = fresh(alpha_warmup=2)
    for step in range(3):
        state.apply(ones(state), 0.0)
        alphas_moved = {name for name in moved(state) if is_alpha(name)}
        assert bool(alphas_moved) == (step >= 2)
        assert "stem.conv1" in moved(state)


def test_the_norm_is_clipped_group_by_group_and_reported_unclipped():
    state = fresh(clip=1e-3)
    seen = {}
    step = state.optimiser.step

    def spy():
        for group in state.optimiser.param_groups:
            seen[group["name"]] = math.sqrt(sum(float(tensor.grad.square().sum()) for tensor in group["params"]))
        step()

    state.optimiser.step = spy
    norms = state.apply(ones(state), 0.0)
    assert seen == pytest.approx({"weights": 1e-3, "alphas": 1e-3}, rel=1e-2)
    assert norms["alphas"] == pytest.approx(math.sqrt(sum(t.numel() for n, t in PARAMS.items() if is_alpha(n))))


def test_learned_rates_start_at_the_configured_ones():
    rates = fresh(LEARNED).rates
    assert set(rates) == {f"rates.{name}" for name in NAMES}
    for name, rate in rates.items():
        assert rate.shape == (1,)
        assert float(rate) == pytest.approx(2.0 if ".alphas." in name else 0.05)


def test_without_learned_rates_there_are_none():
    assert fresh().rates is None


@pytest.mark.parametrize("push", [1e6, -1e6])
def test_learned_rates_stay_positive(push):
    state = fresh(LEARNED, rate_rate=1.0)
    for _ in range(20):
        state.apply({name: push * grad for name, grad in ones(state).items()}, 0.0)
    assert all(bool((rate > 0.0).all()) and bool(torch.isfinite(rate).all()) for rate in state.rates.values())


def test_learned_rates_follow_the_gradient_of_their_logarithm():
    """d loss / d log(rate) = rate d loss / d rate: a rate whose growth lowers the loss grows."""
    state = fresh(LEARNED, rate_rate=0.01)
    before = state.rates
    result, norms = meta_step(LEARNER, state, TASKS, LEARNED)
    assert norms["rates"] == pytest.approx(
        math.sqrt(sum(float((result.gradients[name] * rate).square().sum()) for name, rate in before.items())), rel=1e-9
    )
    grew = [(name, float(state.rates[name] - rate), float(result.gradients[name])) for name, rate in before.items()]
    assert all(step * grad < 0.0 for _, step, grad in grew if abs(grad) > 1e-9)
    assert any(abs(grad) > 1e-9 for _, _, grad in grew)


def test_meta_steps_learn():
    """Eight steps on the same tasks lower their query loss."""
    state = fresh(weight_rate=3e-2, alpha_rate=1e-2)
    losses = [float(meta_step(LEARNER, state, TASKS, INNER)[0].losses.mean()) for _ in range(8)]
    assert losses[-1] < 0.7 * losses[0]
