"""What these tests share: one thread, tiny tasks, and the meta-gradient written out by hand.

One thread: tensors this small only wait for a second one, and for long where other processes share the cores.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Params, Stage, TaskBatch
from metadarts.inner import InnerLoop, adapt
from metadarts.networks import Learner
from metadarts.testing import generic_params, random_tasks, tiny_learner

Losses = Callable[..., Tensor]


@pytest.fixture(scope="session")
def batch() -> TaskBatch:
    """Three tasks of three classes, two support and two query images each, 12x12."""
    return random_tasks(Key.from_seed(0), tasks=3)


@pytest.fixture(scope="session")
def pair(batch) -> TaskBatch:
    return batch.slice(0, 2)


@pytest.fixture(scope="session")
def prototype() -> tuple[Learner, Params]:
    """A learner whose every parameter has a gradient of its own; T = 1 start values."""
    learner = tiny_learner(head="prototype")
    return learner, generic_params(learner, Key.from_seed(1))


@pytest.fixture(scope="session")
def shared() -> tuple[Learner, Params]:
    learner = tiny_learner(head="shared")
    return learner, generic_params(learner, Key.from_seed(1))


@pytest.fixture(scope="session")
def query_losses() -> Losses:
    """(learner, params, batch, inner, rates, progress) -> losses [T] after the inner loop; parameters without a task
    axis."""

    def losses(
        learner: Learner,
        params: Params,
        batch: TaskBatch,
        inner: InnerLoop,
        rates: Params | None = None,
        progress: float = 1.0,
    ) -> Tensor:
        at = Stage(0, inner.steps, progress)
        own = {name: tensor.expand(batch.tasks, *tensor.shape) for name, tensor in params.items()}
        own_rates = None if rates is None else {name: t.expand(batch.tasks, *t.shape) for name, t in rates.items()}
        start = learner.start(own, batch, at)
        adapted = adapt(learner.support_loss, start, batch, inner, rates=own_rates, progress=progress)
        return learner.query_loss(adapted.params, batch, at.at(inner.steps))[0]

    return losses


@pytest.fixture(scope="session")
def per_task_gradients() -> Callable[..., tuple[Tensor, Params]]:
    """(learner, params, batch, inner) -> losses [T] and gradients [T, ...], each task's own."""

    def gradients(learner: Learner, params: Params, batch: TaskBatch, inner: InnerLoop) -> tuple[Tensor, Params]:
        own = {n: t.expand(batch.tasks, *t.shape).clone().requires_grad_() for n, t in params.items()}
        adapted = adapt(learner.support_loss, learner.start(own, batch), batch, inner)
        losses = learner.query_loss(adapted.params, batch)[0]
        return losses.detach(), dict(zip(own, torch.autograd.grad(losses.sum(), list(own.values())), strict=True))

    return gradients
