"""A warm start of the inner loop on one edge: a mixture of all operations, from given alphas, adapted a few steps."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import ALPHA_PREFIX, FINISHED, Params, TaskBatch
from metadarts.inner import InnerLoop, adapt, unstaged
from metadarts.networks.learner import masked_accuracy
from metadarts.relaxations import DEFAULT_RELAXATION

from .edge import channels_last, edge_shapes, fresh, fresh_head, losses, output, pooled, standardised
from .family import SyntheticTasks

ALPHAS = ALPHA_PREFIX + "normal"
INNER = InnerLoop(steps=10, rule="adam", weight_rate=0.05, alpha_rate=0.05, order="first")


def warm_start(
    tasks: SyntheticTasks,
    alphas: Tensor,
    key: Key,
    inner: InnerLoop = INNER,
    at_once: int = 16,
    measured: Collection[int] | None = None,
) -> Tensor:
    """Query accuracies [K + 1, T] of one-edge supernets after 0 to K inner steps on weights and alphas together.

    Args:
        tasks: T tasks; their truth is not looked at.
        alphas: [P] for all of them, or [T, P], where each starts from; columns as the family's operations.
        key: of the first weights. The same key gives the same weights, whatever the alphas: runs from two starts are
            paired.
        inner: the K steps.
        at_once: tasks that are adapted in one pass.
        measured: after which steps to measure, ascending; None for all. Only these rows are returned.
    """
    batch, operations = tasks.batch, tasks.family.operations
    steps = range(inner.steps + 1) if measured is None else measured
    alphas, parts = alphas.expand(batch.tasks, len(operations)), []
    for start in range(0, batch.tasks, at_once):
        stop = min(batch.tasks, start + at_once)
        part = batch.slice(start, stop)
        params = _start(part, alphas[start:stop], key.child(start), operations)
        parts.append(_curve(part, params, inner, operations, steps))
    return torch.cat(parts, dim=1)


def _curve(
    batch: TaskBatch, start: Params, inner: InnerLoop, operations: tuple[str, ...], steps: Collection[int]
) -> Tensor:
    images, queries = channels_last(batch.support_images), channels_last(batch.query_images)
    curve: list[Tensor] = []

    def measure(step: int, params: Params) -> None:
        if step not in steps:
            return
        with torch.no_grad():
            curve.append(masked_accuracy(_logits(params, queries, operations), batch.query_labels, batch.query_mask))

    def loss(params: Params, support: TaskBatch) -> Tensor:
        return losses(_logits(params, images, operations), support.support_labels)

    adapt(unstaged(loss), start, batch, inner, observe=measure)
    return torch.stack(curve)


def _start(batch: TaskBatch, alphas: Tensor, key: Key, operations: tuple[str, ...]) -> Params:
    channels = batch.support_images.shape[2]
    params = {ALPHAS: alphas.unsqueeze(1).clone(), **fresh_head(channels, batch.ways, batch.tasks, key.child("head"))}
    for operation in operations:
        own = fresh(operation, channels, batch.tasks, key.child(operation))
        params |= {f"{operation}.{name}": tensor for name, tensor in own.items()}
    return params


def _logits(params: Params, images: Tensor, operations: tuple[str, ...]) -> Tensor:
    """[T, N, ways] of the mixture, weighted by the softmax of the alphas."""
    weights = DEFAULT_RELAXATION.weights(params[ALPHAS], FINISHED)
    mixed = torch.zeros_like(images)
    for column, operation in enumerate(operations):
        own = {name: params[f"{operation}.{name}"] for name in edge_shapes(operation, images.shape[-1])}
        mixed = mixed + weights[:, :, column].view(-1, 1, 1, 1, 1) * output(operation, own, images)
    return standardised(pooled(mixed)) @ params["head.weight"] + params["head.bias"]
