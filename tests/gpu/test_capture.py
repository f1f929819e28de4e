"""On the GPU: a meta-step recorded as a CUDA graph and replayed is the step taken kernel by kernel, bit for bit.

The kernels, their order and their sums are the same; conftest.py fixes cuBLAS's workspace, the one thing that differs.
"""

from __future__ import annotations

import pytest
import torch

from metadarts.core.rng import Key
from metadarts.inner import InnerLoop
from metadarts.meta import CapturedStep, MetaState, OuterLoop, meta_step
from metadarts.ops import watched
from metadarts.testing import generic_params, random_tasks, tiny_learner

pytestmark = pytest.mark.gpu

STEPS = 4
SETTINGS = [
    ("fp32", "second", 0, None, "all"),
    ("fp32", "first", 0, None, "all"),
    ("fp32", "second", 2, 2, "all"),
    ("bf16", "second", 0, None, "all"),
    ("fp32", "second", 1, None, "two-fold"),
]


def tasks(step, device):
    return random_tasks(Key.from_seed(100 + step), tasks=4, dtype=torch.float32).to(device)


def held(state):
    return {**state.params, **state.log_rates, **state.memory()}


@pytest.mark.parametrize(("precision", "order", "checkpoint", "micro_batch", "images"), SETTINGS)
def test_replays_equal_the_steps_they_stand_for(device, precision, order, checkpoint, micro_batch, images):
    learner = tiny_learner(head="prototype", bn="support", precision=precision)
    inner = InnerLoop(2, weight_rate=0.05, alpha_rate=2.0, order=order, checkpoint=checkpoint, alpha_images=images)
    start = {name: t.to(device, torch.float32) for name, t in generic_params(learner, Key.from_seed(1)).items()}
    states = [MetaState.create(start, [], inner, OuterLoop(final=0.1)) for _ in range(2)]
    recorded, plain = states
    step = CapturedStep(learner, recorded, inner, micro_batch=micro_batch)
    for number in range(STEPS):
        progress = number / STEPS
        with watched() as seen:
            found, norms = step(tasks(number, device), progress)
        batch = tasks(number, device)
        expected, expected_norms = meta_step(learner, plain, batch, inner, progress=progress, micro_batch=micro_batch)
        assert {how for _, how in seen} == ({"triton"} if number < 2 else set()), "a replay runs no Python"
        assert step.is_recorded == (number > 0)
        assert norms == expected_norms
        for name in ("losses", "accuracies", "support_losses"):
            assert torch.equal(getattr(found, name).cpu(), getattr(expected, name).cpu().float()), (number, name)
        for name, tensor in held(plain).items():
            assert torch.equal(held(recorded)[name], tensor), (number, name)
    assert any(not torch.equal(recorded.params[name], start[name]) for name in start), "nothing moved"
