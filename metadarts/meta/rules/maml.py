"""MAML: the gradient of the query loss through the inner steps (Finn et al., ICML 2017, equation 1).

The inner loop's ``order`` decides whether it is exact or treats inner gradients as constants (FOMAML, section 5.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from metadarts.core.types import Params, TaskBatch, task_leaves
from metadarts.inner import adapt

from ._types import MetaStep, Objective, TaskGradients


@dataclass(frozen=True)
class MAML:
    """d/d(shared) of the query loss after adaptation."""

    stores: ClassVar[Literal["graph"]] = "graph"

    def gradient(self, objective: Objective, shared: Params, batch: TaskBatch, step: MetaStep) -> TaskGradients:
        own = task_leaves(shared, batch.tasks)
        rates = None if step.rates is None else task_leaves(step.rates, batch.tasks)
        start = objective.start(own, batch, step.stage(0))
        adapted = adapt(
            objective.support_loss, start, batch, step.inner, rates=rates, engine=step.engine, progress=step.progress
        )
        losses, accuracies = objective.query_loss(adapted.params, batch, step.stage(step.inner.steps))
        leaves = own | (rates or {})
        found = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
        grads = {n: torch.zeros_like(leaves[n]) if g is None else g for n, g in zip(leaves, found, strict=True)}
        return TaskGradients(grads, losses.detach(), accuracies, adapted.losses)


RULE = MAML
