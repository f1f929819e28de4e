"""From a softmax to normalised ReLUs within the task (an option of MetaNAS, Elsken et al., CVPR 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metadarts.core.types import Stage

from ._tempered import Relaxed


@dataclass(frozen=True)
class ReluSoftmax(Relaxed):
    """p = (1 - l) softmax(alpha) + l relu(alpha) / sum relu(alpha); l rises from 0 to 1 over the inner steps.

    A row without a positive alpha keeps its softmax. Scores are those of the softmax, because a ReLU does not rank
    values below 0.
    """

    zeros_learn: ClassVar[bool] = True

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        soft, positive = alpha.softmax(-1), alpha.relu()
        total = positive.sum(-1, keepdim=True)
        shares = torch.where(total > 0.0, positive / torch.where(total > 0.0, total, 1.0), soft)
        return soft + at.fraction * (shares - soft)


RELAXATION = ReluSoftmax
