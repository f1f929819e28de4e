"""A task that leaves the finite numbers has no predictions: it scores 0 and is counted."""

from __future__ import annotations

import torch

from metadarts.core.rng import Key
from metadarts.inner import InnerLoop
from metadarts.meta import evaluate
from metadarts.testing import random_tasks


class Half:
    """Queries of every second task have no finite loss, though all predictions are right."""

    def start(self, params, batch, at=None):
        return params

    def support_loss(self, params, batch, at=None):
        return params["x"].square().sum(1)

    def query_loss(self, params, batch, at=None):
        losses = torch.tensor([float("nan") if task % 2 else 1.0 for task in range(batch.tasks)])
        return losses, torch.ones(batch.tasks)


def test_a_diverged_task_scores_nothing():
    batch = random_tasks(Key.from_seed(0), tasks=4)
    result = evaluate(Half(), {"x": torch.ones(2)}, batch.slice, InnerLoop(1), tasks=4, batch_size=4, curve_tasks=4)
    assert result.accuracies.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert result.finite_tasks == 2
    assert result.curve.mean(1).tolist() == [0.5, 0.5]
