"""An outer rule of one's own: Reptile (Nichol et al., 2018, equation 9), towards the mean of the adapted parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from metadarts.core.types import Params, TaskBatch, batched, group_of
from metadarts.inner import adapt
from metadarts.meta import MetaStep, Objective, TaskGradients


@dataclass(frozen=True)
class Reptile:
    """The way back from where a task ended: start - end, for what the task shares with the others.

    Args:
        pull: what the difference is multiplied by.
    """

    pull: float = 1.0
    stores: ClassVar[Literal["ends"]] = "ends"

    def gradient(self, objective: Objective, shared: Params, batch: TaskBatch, step: MetaStep) -> TaskGradients:
        with torch.no_grad():
            own = batched(shared, batch.tasks)
            rates = None if step.rates is None else batched(step.rates, batch.tasks)
            start = objective.start(own, batch, step.stage(0))
            adapted = adapt(
                objective.support_loss,
                start,
                batch,
                step.inner,
                rates=rates,
                engine=step.engine,
                progress=step.progress,
            )
            losses, accuracies = objective.query_loss(adapted.params, batch, step.stage(step.inner.steps))
            # `start` makes a head for the ways of each task: it has another shape than the shared one, which stays.
            ends = {name: own[name] if group_of(name) == "head" else adapted.params[name] for name in own}
            gradients = {name: self.pull * (own[name] - ends[name]) for name in own}
            gradients |= {name: torch.zeros_like(rate) for name, rate in (rates or {}).items()}
        return TaskGradients(gradients, losses, accuracies, adapted.losses)


RULE = Reptile
