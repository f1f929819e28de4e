"""Students of the teachers' form, each with one given operation, trained on a task's support set alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metadarts.core.errors import ConfigError
from metadarts.core.progress import Watch, tell
from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch
from metadarts.networks.learner import masked_accuracy
from metadarts.optim import adam

from .edge import channels_last, edge_shapes, fresh, fresh_head, losses, output, pooled, standardised
from .family import SyntheticTasks


@dataclass(frozen=True)
class Schedule:
    """How a student is trained; the same for every operation.

    Args:
        starts: number of initialisations of every student; the one with the lowest support loss continues after
            ``first`` steps.
        first: steps of every initialisation, at a constant rate.
        steps: further steps, with cosine decay of the rate to 0.
        rate: of Adam.
        at_once: tasks that are trained in one pass.

    Raises:
        ConfigError: for a number out of range.
    """

    starts: int = 4
    first: int = 15
    steps: int = 80
    rate: float = 0.05
    at_once: int = 16

    def __post_init__(self) -> None:
        if min(self.starts, self.at_once) < 1 or min(self.first, self.steps) < 0 or not 0 < self.rate < math.inf:
            raise ConfigError(f"schedule: expected positive starts, rate and at_once, and steps from 0 on, got {self}")


@dataclass(frozen=True, eq=False)
class Trained:
    """What each operation was worth on each of T tasks, [T, P]; columns as the family's operations.

    Args:
        before: query accuracy of the untrained student.
        accuracies: query accuracy.
        losses: query loss, expected over labels turned round as often as the support's.
        support_losses: support loss.
    """

    before: Tensor
    accuracies: Tensor
    losses: Tensor
    support_losses: Tensor

    @property
    def best(self) -> Tensor:
        """[T], the operation of the highest query accuracy; among equals that of the lowest query loss."""
        ahead = self.accuracies == self.accuracies.amax(1, keepdim=True)
        return self.losses.masked_fill(~ahead, torch.inf).argmin(1)


def train_each(
    tasks: SyntheticTasks,
    key: Key,
    schedule: Schedule | None = None,
    progress: Watch | None = None,
) -> Trained:
    """Train every operation alone on every task, from new weights.

    Args:
        tasks: T tasks; their truth is not used.
        key: of the first weights.
        progress: reports the trainings done.
    """
    schedule, columns, done = schedule or Schedule(), [], 0
    batch, operations, noise = tasks.batch, tasks.family.operations, tasks.family.noise
    for operation in operations:
        parts = []
        for start in range(0, batch.tasks, schedule.at_once):
            part = batch.slice(start, min(batch.tasks, start + schedule.at_once))
            parts.append(_train(operation, part, noise, schedule, key.child(operation, start)))
            done += part.tasks
            tell(progress, done, batch.tasks * len(operations))
        columns.append(torch.cat(parts, dim=1))
    table = torch.stack(columns, dim=-1)
    return Trained(*table)


def _train(operation: str, batch: TaskBatch, noise: float, schedule: Schedule, key: Key) -> Tensor:
    """[4, T]: the fields of `Trained`."""
    images, channels = channels_last(batch.support_images), batch.support_images.shape[2]
    starts = schedule.starts if edge_shapes(operation, channels) else 1
    tasks = batch.tasks * starts
    params = fresh(operation, channels, tasks, key.child("weights"))
    params |= fresh_head(channels, batch.ways, tasks, key.child("head"))
    before = _measured(operation, _picked(params, torch.arange(batch.tasks) * starts), batch, noise)[0]
    if starts > 1:
        support = _Support(
            operation, images.repeat_interleave(starts, 0), batch.support_labels.repeat_interleave(starts, 0)
        )
        params = _descend(support, params, schedule.first, lambda step: schedule.rate)
        with torch.no_grad():
            found = support.losses(params).view(batch.tasks, starts)
        params = _picked(params, found.argmin(1) + torch.arange(batch.tasks) * starts)
    support = _Support(operation, images, batch.support_labels)
    params = _descend(support, params, schedule.steps, lambda step: _cosine(schedule, step))
    with torch.no_grad():
        found = support.losses(params)
    return torch.stack([before, *_measured(operation, params, batch, noise), found])


class _Support:
    """The support sets of T tasks as a loss. What has no parameters runs once."""

    def __init__(self, operation: str, images: Tensor, labels: Tensor) -> None:
        self.operation, self.images, self.labels = operation, images, labels
        fixed = not edge_shapes(operation, images.shape[-1])
        self.features = _features(operation, {}, images) if fixed else None

    def losses(self, params: Params) -> Tensor:
        features = self.features
        if features is None:
            features = _features(self.operation, params, self.images)
        return losses(features @ params["head.weight"] + params["head.bias"], self.labels)


def _features(operation: str, params: Params, images: Tensor) -> Tensor:
    return standardised(pooled(output(operation, params, images)))


def _descend(support: _Support, params: Params, steps: int, rate: Callable[[int], float]) -> Params:
    rule = adam()
    state = rule.init(params)
    for step in range(steps):
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in params.items()}
        grads = torch.autograd.grad(support.losses(leaves).sum(), list(leaves.values()))
        with torch.no_grad():
            rates = {name: torch.full((len(tensor),), rate(step)) for name, tensor in leaves.items()}
            params, state = rule.update(dict(zip(leaves, grads, strict=True)), state, leaves, rates, step)
    return {name: tensor.detach() for name, tensor in params.items()}


def _cosine(schedule: Schedule, step: int) -> float:
    return schedule.rate * 0.5 * (1.0 + math.cos(math.pi * step / schedule.steps))


def _picked(params: Params, rows: Tensor) -> Params:
    return {name: tensor[rows] for name, tensor in params.items()}


def _measured(operation: str, params: Params, batch: TaskBatch, noise: float) -> tuple[Tensor, Tensor]:
    """Query accuracies and losses, each [T]; the queries are normalised by their own statistics."""
    with torch.no_grad():
        features = _features(operation, params, channels_last(batch.query_images))
        logits = features @ params["head.weight"] + params["head.bias"]
        right, wrong = (losses(logits, labels) for labels in (batch.query_labels, 1 - batch.query_labels))
        accuracy = masked_accuracy(logits, batch.query_labels, batch.query_mask)
        return accuracy, (1 - noise) * right + noise * wrong
