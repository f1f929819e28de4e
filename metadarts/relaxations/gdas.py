"""GDAS: only the sampled candidate runs, and only its logit learns (Dong and Yang, CVPR 2019, equation 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Stage

from ._checks import require_positive
from ._gumbel import gumbel, one_hot_of
from ._schedules import geometric, passed


@dataclass(frozen=True)
class GDAS:
    """1 for the largest of p = softmax((log softmax(alpha) + g) / T), 0 for the others; no noise outside training.

    The gradient of the 1 is that of its p; a 0 has none, so its candidate need not run at all.

    Args:
        start, end: temperatures over the run, between which it falls by equal factors.

    Raises:
        ConfigError: for temperatures of 0 or less.
    """

    start: float = 10.0
    end: float = 0.1
    zeros_learn: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_positive("gdas", start=self.start, end=self.end)

    def noise(self, shape: tuple[int, ...], key: Key) -> Tensor | None:
        return gumbel(shape, key)

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        temperature = geometric(self.start, self.end, passed(at.progress, 0.0, 1.0))
        logits = alpha.log_softmax(-1)
        p = ((logits if noise is None else logits + noise.to(alpha.dtype)) / temperature).softmax(-1)
        hard = one_hot_of(p)
        return hard + hard * (p - p.detach())

    def scores(self, alpha: Tensor) -> Tensor:
        return alpha.double().softmax(-1)


RELAXATION = GDAS
