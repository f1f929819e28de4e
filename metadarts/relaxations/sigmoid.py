"""Sigmoid of each alpha: candidates do not compete (FairDARTS, Chu et al., ECCV 2020, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metadarts.core.types import Stage

from ._tempered import Relaxed


@dataclass(frozen=True)
class Sigmoid(Relaxed):
    """p = sigmoid(alpha)."""

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        return alpha.sigmoid()

    def scores(self, alpha: Tensor) -> Tensor:
        return alpha.double().sigmoid()


RELAXATION = Sigmoid
