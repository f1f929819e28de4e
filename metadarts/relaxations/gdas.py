"""GDAS: only the sampled candidate runs, and only its logit learns (Dong and Yang, CVPR 2019, equation 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Stage

from ._gumbel import gumbel, one_hot_of
from ._tempered import Cooled


@dataclass(frozen=True)
class GDAS(Cooled):
    """1 for the largest of p = softmax((log softmax(alpha) + g) / T), 0 for the others; no noise outside training.

    The gradient of the 1 is that of its p; a 0 has none, so its candidate need not run at all. T is as in `Cooled`.
    """

    sparse: ClassVar[bool] = True

    start: float = 10.0
    end: float = 0.1

    def noise(self, shape: tuple[int, ...], key: Key) -> Tensor | None:
        return gumbel(shape, key)

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        logits = alpha.log_softmax(-1)
        moved = logits if noise is None else logits + noise.to(alpha.dtype)
        p = (moved / self.temperature(at)).softmax(-1)
        hard = one_hot_of(p)
        return hard + hard * (p - p.detach())


RELAXATION = GDAS
