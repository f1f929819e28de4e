"""The protocol of an outer rule: from a batch of tasks to a gradient of the shared parameters for each task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from metadarts.core.types import Params, Stage, TaskBatch
from metadarts.inner import Engine, InnerLoop


class Objective(Protocol):
    """The objective of meta-training; `metadarts.networks.Learner` is one."""

    @property
    def start(self) -> Callable[[Params, TaskBatch, Stage], Params]:
        """(shared parameters [T, ...], batch, stage) -> task parameters before the first step."""
        ...

    @property
    def support_loss(self) -> Callable[[Params, TaskBatch, Stage], Tensor]:
        """(task parameters, batch, stage) -> [T]: the inner loop's loss; [T, 2] for a batch with `TaskBatch.halves`."""
        ...

    @property
    def query_loss(self) -> Callable[[Params, TaskBatch, Stage], tuple[Tensor, Tensor]]:
        """(task parameters, batch, stage) -> loss and accuracy, [T] each: the outer loop's."""
        ...


class MetaStep(NamedTuple):
    """Settings of one pass over some tasks.

    Args:
        inner: the inner loop.
        rates: learned inner rates without a task axis, see `metadarts.inner.rate_shapes`; None for constants.
        engine: as in `metadarts.inner.adapt`.
        progress: progress of the run.
    """

    inner: InnerLoop
    rates: Params | None = None
    engine: Engine | None = None
    progress: Tensor | float = 1.0

    def stage(self, step: int) -> Stage:
        """The stage of a loss after ``step`` inner steps."""
        return Stage(step, self.inner.steps, self.progress)


@dataclass(frozen=True)
class TaskGradients:
    """The result of one pass over T tasks.

    Args:
        gradients: [T, ...] by the name of the shared parameters, then of the rates, in their order.
        losses: [T] query losses after adaptation, detached.
        accuracies: [T] query accuracies after adaptation.
        support_losses: [K, T] support losses before each inner step, detached.
    """

    gradients: Params
    losses: Tensor
    accuracies: Tensor
    support_losses: Tensor


class MetaRule(Protocol):
    """An outer rule. The caller does the masking, splits tasks into passes, and takes the mean and the update.

    Attributes:
        stores: "graph" if the graph of the inner steps is kept for the outer backward, "ends" if only the parameters
            before and after are kept. It determines the memory plan, and whether inner steps can be recomputed.
    """

    @property
    def stores(self) -> Literal["graph", "ends"]: ...

    def gradient(self, objective: Objective, shared: Params, batch: TaskBatch, step: MetaStep) -> TaskGradients:
        """Gradients of the ``shared`` parameters (no task axis) for every task of ``batch``.

        Reads no number, so that a GPU is not synchronised and the step can be recorded.
        """
        ...
