"""Softmax whose temperature falls over the run, within the task, or both.

Sources: DOTS (Gu et al., CVPR 2021) over the run; MetaNAS (Elsken et al., CVPR 2020, section 3.3) within the task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Stage

from ._checks import require_positive, require_span
from ._schedules import geometric, passed


@dataclass(frozen=True)
class Annealed:
    """p = softmax(alpha / (T u)).

    T stays at ``start`` until ``begin`` of the run, falls by equal factors to ``end`` at ``finish``, and stays there. u
    falls linearly from 1 before the first inner step to ``inner_end`` after the last. Scores are those of the end.

    Args:
        start, end: temperatures over the run.
        begin, finish: shares of the run between which it falls.
        inner_end: what the temperature is multiplied by after the last inner step; 1 for no schedule within the task.

    Raises:
        ConfigError: for temperatures of 0 or less, or shares out of order.
    """

    start: float = 1.0
    end: float = 0.05
    begin: float = 0.3
    finish: float = 0.9
    inner_end: float = 1.0
    zeros_learn: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_positive("annealed", start=self.start, end=self.end, inner_end=self.inner_end)
        require_span("annealed", self.begin, self.finish)

    def noise(self, shape: tuple[int, ...], key: Key) -> Tensor | None:
        return None

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        temperature = geometric(self.start, self.end, passed(at.progress, self.begin, self.finish))
        return (alpha / (temperature * (1.0 - (1.0 - self.inner_end) * at.fraction))).softmax(-1)

    def scores(self, alpha: Tensor) -> Tensor:
        return (alpha.double() / (self.end * self.inner_end)).softmax(-1)


RELAXATION = Annealed
