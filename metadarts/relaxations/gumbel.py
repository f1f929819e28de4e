"""Gumbel-softmax: soft samples of the candidates (SNAS, Xie et al., ICLR 2019, equation 3)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Stage

from ._gumbel import gumbel, straight_through
from ._tempered import Cooled


@dataclass(frozen=True)
class Gumbel(Cooled):
    """p = softmax((alpha + g) / T), g standard Gumbel noise, T as in `Cooled`; without noise outside training.

    Args:
        hard: whether the largest weight counts as 1 and the others as 0; both derivatives are those of p
            (straight-through; Jang et al., ICLR 2017, section 2.2).
    """

    hard: bool = False

    @property
    def zeros_learn(self) -> bool:  # type: ignore[override]
        return self.hard

    def noise(self, shape: tuple[int, ...], key: Key) -> Tensor | None:
        return gumbel(shape, key)

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        moved = alpha if noise is None else alpha + noise.to(alpha.dtype)
        p = (moved / self.temperature(at)).softmax(-1)
        return straight_through(p) if self.hard else p


RELAXATION = Gumbel
