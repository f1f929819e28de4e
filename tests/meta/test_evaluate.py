"""Evaluation on held-out tasks: figures that agree with one another, and nothing that is learned from them."""

from __future__ import annotations

import math

import pytest
import torch

from metadarts.core.rng import Key
from metadarts.inner import InnerLoop, rate_shapes
from metadarts.meta import evaluate
from metadarts.testing import generic_params, random_tasks, tiny_learner

LEARNER = tiny_learner(head="prototype")
PARAMS = generic_params(LEARNER, Key.from_seed(1))
INNER = InnerLoop(steps=2, weight_rate=0.05, alpha_rate=2.0)
TASKS = random_tasks(Key.from_seed(3), tasks=5, ways=3, shots=1, queries=4)


def run(**options):
    return evaluate(LEARNER, PARAMS, TASKS.slice, INNER, **({"tasks": 5, "batch_size": 2} | options))


@pytest.fixture(scope="module")
def result():
    return run(curve_tasks=5)


def test_the_curve_ends_at_the_accuracies_and_starts_before_the_first_step(result):
    assert result.curve.shape == (INNER.steps + 1, 5)
    assert torch.equal(result.curve[-1], result.accuracies)
    start = evaluate(LEARNER, PARAMS, TASKS.slice, InnerLoop(steps=0), tasks=5)
    assert torch.equal(result.curve[0], start.accuracies)
    assert not torch.equal(start.losses, result.losses)


def test_the_curve_covers_the_first_tasks_only(result):
    part = run(curve_tasks=3)
    assert torch.equal(part.curve, result.curve[:, :3])
    assert torch.equal(part.accuracies, result.accuracies)
    assert run().curve.shape == (INNER.steps + 1, 0)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_batches_change_nothing(result, size):
    other = run(batch_size=size, curve_tasks=5)
    torch.testing.assert_close(other.losses, result.losses, rtol=1e-11, atol=0.0)
    assert torch.equal(other.accuracies, result.accuracies)
    assert torch.equal(other.curve, result.curve)


def test_a_task_is_judged_by_itself(result):
    for task in range(5):
        alone = evaluate(LEARNER, PARAMS, lambda first, last, task=task: TASKS.task(task), INNER, tasks=1)
        torch.testing.assert_close(alone.losses[0], result.losses[task], rtol=1e-11, atol=0.0)


def test_no_parameter_changes_and_none_gets_a_gradient():
    before = {name: tensor.clone() for name, tensor in PARAMS.items()}
    run(curve_tasks=5)
    for name, tensor in PARAMS.items():
        assert torch.equal(tensor, before[name])
        assert tensor.grad is None


def test_progress_is_told_after_every_batch(result):
    calls = []
    run(progress=lambda now: calls.append((now.done, now.value)))
    assert [done for done, _ in calls] == [2, 4, 5]
    assert calls[0][1] == pytest.approx(float(result.accuracies[:2].mean()))
    assert calls[-1][1] == pytest.approx(result.accuracy)


def test_learned_rates_are_used(result):
    names = list(LEARNER.start({n: t.unsqueeze(0) for n, t in PARAMS.items()}, TASKS.task(0)))
    rates = {name: torch.tensor(value).double() for name, (_, value) in rate_shapes(INNER, names).items()}
    torch.testing.assert_close(run(rates=rates).losses, result.losses, rtol=1e-6, atol=0.0)
    assert not torch.allclose(run(rates={n: 2.0 * t for n, t in rates.items()}).losses, result.losses, rtol=1e-6)


def test_mean_and_interval(result):
    values = result.accuracies.tolist()
    mean = sum(values) / 5
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / 4)
    assert result.accuracy == pytest.approx(mean)
    assert result.interval95 == pytest.approx(1.96 * spread / math.sqrt(5))
