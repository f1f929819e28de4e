"""Softmax whose temperature falls over the run, within the task, or both.

Sources: DOTS (Gu et al., CVPR 2021) over the run; MetaNAS (Elsken et al., CVPR 2020, section 3.3) within the task.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metadarts.core.types import Stage

from ._tempered import Cooled


@dataclass(frozen=True)
class Annealed(Cooled):
    """p = softmax(alpha / (T u)), T as in `Cooled`. Scores are those of the end of both schedules.

    Args:
        inner_end: u after the last inner step; it falls linearly from 1. 1 for no schedule within the task.

    Raises:
        ConfigError: for temperatures of 0 or less, or shares out of order.
    """

    end: float = 0.05
    begin: float = 0.3
    finish: float = 0.9
    inner_end: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive("inner_end")

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        return (alpha / (self.temperature(at) * (1.0 - (1.0 - self.inner_end) * at.fraction))).softmax(-1)

    def scores(self, alpha: Tensor) -> Tensor:
        return (alpha.double() / (self.end * self.inner_end)).softmax(-1)


RELAXATION = Annealed
