"""From a softmax to normalised ReLUs within the task (an option of MetaNAS, Elsken et al., CVPR 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Stage


@dataclass(frozen=True)
class ReluSoftmax:
    """p = (1 - l) softmax(alpha) + l relu(alpha) / sum relu(alpha); l rises from 0 to 1 over the inner steps.

    A row without a positive alpha stays at its softmax. Scores are those of the softmax: a ReLU ranks nothing below 0.
    """

    def noise(self, shape: tuple[int, ...], key: Key) -> Tensor | None:
        return None

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        soft, positive = alpha.softmax(-1), alpha.relu()
        total = positive.sum(-1, keepdim=True)
        shares = torch.where(total > 0.0, positive / torch.where(total > 0.0, total, 1.0), soft)
        return soft + at.fraction * (shares - soft)

    def scores(self, alpha: Tensor) -> Tensor:
        return alpha.double().softmax(-1)


RELAXATION = ReluSoftmax
