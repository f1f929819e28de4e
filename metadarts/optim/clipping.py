"""Clipping of gradients by their joint norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metadarts.core.types import Params

from ._arithmetic import scaled
from ._types import Transform, Update


def clip(limit: float | None) -> Transform:
    """`clip_by_norm` as a transform of a chain."""

    def transform(seen: Update) -> Update:
        return seen._replace(grads=clip_by_norm(seen.grads, limit))

    return transform


def clip_by_norm(grads: Params, limit: float | None) -> Params:
    """Scale each task's gradients down to a joint norm of at most ``limit``; None does not change them.

    The tiny constant under the root keeps the derivative finite if a task's gradient is zero.
    """
    if limit is None:
        return grads
    squares = torch.stack([grad.reshape(grad.shape[0], -1).square().sum(1) for grad in grads.values()]).sum(0)
    scale = limit / (squares + 1e-24).sqrt().clamp(min=limit)
    return scaled(grads, dict.fromkeys(grads, scale))


def clip_by_total_norm(grads: Params, limit: float | None) -> tuple[Params, Tensor]:
    """Scale gradients without a task axis, as ``torch.nn.utils.clip_grad_norm_`` does. Not to be differentiated.

    Returns:
        The scaled gradients, and their joint norm before; 0-dim.
    """
    norm = torch.nn.utils.get_total_norm(list(grads.values()))
    share = torch.clamp((math.inf if limit is None else limit) / (norm + 1e-6), max=1.0)
    return scaled(grads, share), norm
