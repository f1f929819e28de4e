"""Sigmoid of each alpha: candidates do not compete (FairDARTS, Chu et al., ECCV 2020, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Stage


@dataclass(frozen=True)
class Sigmoid:
    """p = sigmoid(alpha)."""

    zeros_learn: ClassVar[bool] = False

    def noise(self, shape: tuple[int, ...], key: Key) -> Tensor | None:
        return None

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        return alpha.sigmoid()

    def scores(self, alpha: Tensor) -> Tensor:
        return alpha.double().sigmoid()


RELAXATION = Sigmoid
