"""Gumbel-softmax: soft samples of the candidates (SNAS, Xie et al., ICLR 2019, equation 3)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Stage

from ._checks import require_positive, require_span
from ._gumbel import gumbel, straight_through
from ._schedules import geometric, passed


@dataclass(frozen=True)
class Gumbel:
    """p = softmax((alpha + g) / T), g standard Gumbel noise; without noise outside training.

    T falls from ``start`` at ``begin`` of the run by equal factors to ``end`` at ``finish``.

    Args:
        start, end: temperatures over the run.
        begin, finish: shares of the run between which it falls.
        hard: the largest weight counts as 1 and the others as 0; the gradient is that of p (straight-through; Jang et
            al., ICLR 2017, section 2.2). Its second derivatives are those of p, too.

    Raises:
        ConfigError: for temperatures of 0 or less, or shares out of order.
    """

    start: float = 1.0
    end: float = 1.0
    begin: float = 0.0
    finish: float = 1.0
    hard: bool = False

    def __post_init__(self) -> None:
        require_positive("gumbel", start=self.start, end=self.end)
        require_span("gumbel", self.begin, self.finish)

    def noise(self, shape: tuple[int, ...], key: Key) -> Tensor | None:
        return gumbel(shape, key)

    @property
    def zeros_learn(self) -> bool:
        return self.hard

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        temperature = geometric(self.start, self.end, passed(at.progress, self.begin, self.finish))
        moved = alpha if noise is None else alpha + noise.to(alpha.dtype)
        p = (moved / temperature).softmax(-1)
        return straight_through(p) if self.hard else p

    def scores(self, alpha: Tensor) -> Tensor:
        return alpha.double().softmax(-1)


RELAXATION = Gumbel
