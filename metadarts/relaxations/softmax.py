"""Softmax over the candidates (DARTS, Liu et al., ICLR 2019, equation 2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metadarts.core.types import Stage

from ._tempered import Tempered


@dataclass(frozen=True)
class Softmax(Tempered):
    """p = softmax(alpha / temperature)."""

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        return (alpha if self.temperature == 1.0 else alpha / self.temperature).softmax(-1)


RELAXATION = Softmax
