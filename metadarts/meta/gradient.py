"""The meta-gradient of a batch of tasks: d/d(shared) of the mean query loss after the inner loop (MAML, equation 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metadarts.core.errors import NumericsError
from metadarts.core.types import Params, TaskBatch
from metadarts.inner import Engine, InnerLoop

from .rules import DEFAULT_RULE, MetaRule, MetaStep, Objective, TaskGradients


@dataclass(frozen=True)
class MetaGradient:
    """The outcome of one meta-batch.

    Args:
        gradients: mean over the finite tasks, by shared parameter and rate name.
        losses: [T] query losses after adaptation.
        accuracies: [T] query accuracies after adaptation.
        support_losses: [K, T] support losses before each inner step.
        finite: [T] tasks whose loss and whole gradient were finite; the others are excluded from the mean.
    """

    gradients: Params
    losses: Tensor
    accuracies: Tensor
    support_losses: Tensor
    finite: Tensor


def meta_gradient(
    objective: Objective,
    params: Params,
    batch: TaskBatch,
    inner: InnerLoop,
    *,
    rates: Params | None = None,
    engine: Engine | None = None,
    micro_batch: int | None = None,
    rule: MetaRule = DEFAULT_RULE,
    progress: Tensor | float = 1.0,
) -> MetaGradient:
    """The meta-gradient with respect to the shared parameters, and to the learned rates if given.

    Each task has its own copy of the shared parameters, so that its gradient can be checked before it enters the mean:
    a task with non-finite values cannot affect the others.

    Args:
        objective: start, support loss and query loss.
        params: shared parameters (no task axis).
        batch: T tasks.
        inner: the inner loop; its ``order`` selects exact second order or first order.
        rates: learned rates (no task axis), see `metadarts.inner.rate_shapes`.
        engine: as in `metadarts.inner.adapt`.
        micro_batch: tasks per pass; None for all T at once. The mean is the same; memory falls with it.
        rule: computes a task's meta-gradient; by default MAML.
        progress: progress of the run, see `metadarts.core.types.Stage`.

    Raises:
        NumericsError: when no task of the batch is finite.
    """
    found = mean_gradient(
        objective, params, batch, inner, rates=rates, engine=engine, micro_batch=micro_batch, rule=rule,
        progress=progress,
    )  # fmt: skip
    require_finite(found)
    return found


def mean_gradient(
    objective: Objective,
    params: Params,
    batch: TaskBatch,
    inner: InnerLoop,
    *,
    rates: Params | None = None,
    engine: Engine | None = None,
    micro_batch: int | None = None,
    rule: MetaRule = DEFAULT_RULE,
    progress: Tensor | float = 1.0,
) -> MetaGradient:
    """`meta_gradient` without reading a number, so that a GPU is never synchronised; arguments as there.

    If no task is finite, the gradients are zero, see `require_finite`.
    """
    size, batch = micro_batch or batch.tasks, batch.channels_last()
    parts = [batch.slice(i, min(i + size, batch.tasks)) for i in range(0, batch.tasks, size)]
    step = MetaStep(inner, rates, engine, progress)
    like = params | (rates or {})
    results = [_masked(rule.gradient(objective, params, part, step), like) for part in parts]
    losses, accuracies, finite = (
        torch.cat([getattr(r, name) for r in results]) for name in ("losses", "accuracies", "finite")
    )
    total = results[0].total if len(results) == 1 else torch.stack([r.total for r in results]).sum(0)
    gradients = _apart(total / finite.sum().clamp(min=1), like)
    support = torch.cat([r.support_losses for r in results], dim=1)
    return MetaGradient(gradients, losses, accuracies, support, finite)


def require_finite(found: MetaGradient) -> None:
    """Raises NumericsError when no task of the batch stayed finite."""
    if not bool(found.finite.any()):
        raise NumericsError(
            f"no task of this batch stayed finite (query losses {found.losses.tolist()}): "
            "lower inner.weight_rate or inner.alpha_rate, set inner.clip, or use precision fp32"
        )


@dataclass(frozen=True)
class _Pass:
    """What one pass over some tasks comes to; fields as in `MetaGradient`, but ``total``.

    Args:
        total: the gradients of all parameters, then of all rates, one after another: summed over the finite tasks. One
            tensor, since a GPU takes as long for a small one as for them all.
    """

    total: Tensor
    losses: Tensor
    accuracies: Tensor
    support_losses: Tensor
    finite: Tensor


def _masked(tasks: TaskGradients, like: Params) -> _Pass:
    """The sum over the tasks that stayed finite, in the order of ``like``.

    Raises:
        TypeError: where the outer rule gave other gradients than those of ``like``.
    """
    if odd := sorted(tasks.gradients.keys() ^ like.keys()):
        raise TypeError(f"an outer rule gives a gradient of every shared parameter and learned rate; check {odd[0]!r}")
    flat = torch.cat([tasks.gradients[name].reshape(len(tasks.losses), -1) for name in like], dim=1)
    finite = torch.isfinite(tasks.losses) & torch.isfinite(flat).all(1)
    total = torch.where(finite[:, None], flat, 0.0).sum(0)
    return _Pass(total, tasks.losses, tasks.accuracies, tasks.support_losses, finite)


def _apart(flat: Tensor, like: Params) -> Params:
    """The numbers of ``flat`` in the shapes of ``like``, in its order."""
    parts = flat.split([tensor.numel() for tensor in like.values()])
    return {name: part.view(tensor.shape) for part, (name, tensor) in zip(parts, like.items(), strict=True)}
