"""A relaxation of one's own: a softmax whose temperature falls within the task and over the run."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Stage


@dataclass(frozen=True)
class Cooling:
    """p = softmax(alpha / t); t falls from 1 to ``end`` over the steps of a task, the further the run the more.

    Args:
        end: the temperature after the last inner step at the end of the run.
    """

    end: float = 0.1

    def noise(self, shape: tuple[int, ...], key: Key) -> Tensor | None:
        return None

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        return (alpha / (1.0 - (1.0 - self.end) * at.fraction * at.progress)).softmax(-1)

    def scores(self, alpha: Tensor) -> Tensor:
        return alpha.double().softmax(-1)


RELAXATION = Cooling
