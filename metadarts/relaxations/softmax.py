"""Softmax over the candidates (DARTS, Liu et al., ICLR 2019, equation 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Stage

from ._checks import require_positive


@dataclass(frozen=True)
class Softmax:
    """p = softmax(alpha / temperature).

    Raises:
        ConfigError: for a temperature of 0 or less.
    """

    temperature: float = 1.0
    zeros_learn: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_positive("softmax", temperature=self.temperature)

    def noise(self, shape: tuple[int, ...], key: Key) -> Tensor | None:
        return None

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        return self._cooled(alpha).softmax(-1)

    def scores(self, alpha: Tensor) -> Tensor:
        return self._cooled(alpha.double()).softmax(-1)

    def _cooled(self, alpha: Tensor) -> Tensor:
        return alpha if self.temperature == 1.0 else alpha / self.temperature


RELAXATION = Softmax
