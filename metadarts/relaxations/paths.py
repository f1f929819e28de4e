"""Sampled paths: every task runs its own discrete path (single-path one-shot, Guo et al., ECCV 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Stage

from ._gumbel import gumbel, one_hot_of
from ._tempered import Relaxed
from ._types import CLOSED


@dataclass(frozen=True)
class Paths(Relaxed):
    """1 for one candidate drawn for the task, 0 for the others; the largest alpha outside training.

    A draw holds for all inner steps and the query pass of its task. Alphas get no gradient: weights are meta-learned
    for every path, and a cell is chosen afterwards. In a space with alphas for inputs, a path also draws its inputs.

    Args:
        by_alphas: draw with probabilities softmax(alpha) instead of equal ones.
    """

    sparse: ClassVar[bool] = True

    by_alphas: bool = False

    def noise(self, shape: tuple[int, ...], key: Key) -> Tensor | None:
        tasks, _, *table = shape
        return gumbel((tasks, 1, *table), key).expand(shape)

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        logits = alpha.detach()
        if noise is None:
            return one_hot_of(logits)
        drawn = noise.to(alpha.dtype)
        return one_hot_of(logits + drawn if self.by_alphas else torch.where(logits > CLOSED, drawn, CLOSED))


RELAXATION = Paths
