"""Accuracy on held-out tasks, with its interval and its curve over the inner steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metadarts.core.progress import Watch, tell_mean
from metadarts.core.types import Params, Stage, TaskBatch, batched
from metadarts.inner import InnerLoop, adapt
from metadarts.stats import interval95

from .rules import Objective


def _scored(loss: Tensor, accuracy: Tensor) -> Tensor:
    return torch.where(torch.isfinite(loss), accuracy, 0.0)


@dataclass(frozen=True)
class Evaluation:
    """Per-task results.

    Args:
        accuracies: [tasks] query accuracy after the last inner step, 0 to 1. A task with non-finite values has no
            predictions and scores 0.
        losses: [tasks] query losses, with the penalty for the architecture's cost if the objective has one.
        curve: [steps + 1, curve tasks] query accuracy after 0..K steps, on the first tasks only.
        loss_curve: the same for the query loss; non-finite values are kept.
    """

    accuracies: Tensor
    losses: Tensor
    curve: Tensor
    loss_curve: Tensor = field(default_factory=lambda: torch.zeros(0))

    @property
    def finite_tasks(self) -> int:
        """Tasks whose query loss is a finite number."""
        return int(torch.isfinite(self.losses).sum())

    @property
    def accuracy(self) -> float:
        return float(self.accuracies.mean())

    @property
    def interval95(self) -> float:
        """Half width: 1.96 standard errors over tasks."""
        return interval95(self.accuracies)


def evaluate(
    objective: Objective,
    params: Params,
    batches: Callable[[int, int], TaskBatch],
    inner: InnerLoop,
    *,
    tasks: int,
    rates: Params | None = None,
    batch_size: int = 8,
    curve_tasks: int = 0,
    progress: Watch | None = None,
    run_progress: float = 1.0,
) -> Evaluation:
    """Adapt to ``tasks`` held-out tasks and evaluate each on its queries. No shared parameter changes.

    Args:
        params: shared parameters (no task axis).
        batches: (first, last) -> those tasks, so that tasks can be drawn as they are needed.
        inner: the inner loop to run; its order does not matter here.
        rates: learned rates, or None.
        curve_tasks: number of tasks on which to measure the accuracy after every inner step.
        progress: reports the tasks done and their mean accuracy.
        run_progress: progress of the run when ``params`` were saved, for a relaxation with a schedule.
    """
    accuracies, losses, at = [], [], Stage(0, inner.steps, run_progress)
    curves: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for first in range(0, tasks, batch_size):
            batch = batches(first, min(first + batch_size, tasks)).channels_last()
            own = batched(params, batch.tasks)
            own_rates = None if rates is None else batched(rates, batch.tasks)
            curve: list[tuple[Tensor, Tensor]] = []
            wanted = min(batch.tasks, max(0, curve_tasks - first))

            def observe(step: int, now: Params, batch: TaskBatch = batch, curve: list[Any] = curve) -> None:
                loss, accuracy = objective.query_loss(now, batch, at.at(step))
                curve.append((_scored(loss, accuracy), loss))

            start = objective.start(own, batch, at)
            adapted = adapt(
                objective.support_loss,
                start,
                batch,
                inner,
                rates=own_rates,
                observe=observe if wanted else None,
                progress=run_progress,
            ).params
            loss, accuracy = objective.query_loss(adapted, batch, at.at(inner.steps))
            accuracies.append(_scored(loss, accuracy))
            losses.append(loss)
            if wanted:
                curve_accuracies, curve_losses = (torch.stack(parts)[:, :wanted] for parts in zip(*curve, strict=True))
                curves.append((curve_accuracies, curve_losses))
            if progress:
                tell_mean(progress, first + batch.tasks, tasks, float(torch.cat(accuracies).mean()))
    empty = torch.zeros(inner.steps + 1, 0)
    joined = [torch.cat(parts, dim=1) for parts in zip(*curves, strict=True)] if curves else [empty, empty]
    return Evaluation(torch.cat(accuracies), torch.cat(losses), *joined)
