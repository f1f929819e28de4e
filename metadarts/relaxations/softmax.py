"""Softmax over the candidates (DARTS, Liu et al., ICLR 2019, equation 2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Stage


@dataclass(frozen=True)
class Softmax:
    """p = softmax(alpha)."""

    def noise(self, shape: tuple[int, ...], key: Key) -> Tensor | None:
        return None

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        return alpha.softmax(-1)

    def scores(self, alpha: Tensor) -> Tensor:
        return alpha.double().softmax(-1)


RELAXATION = Softmax
