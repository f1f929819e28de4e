"""Options that several relaxations share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.core.types import Stage


class Relaxed:
    """A relaxation without noise, ranked by the softmax; a weight of exactly 0 has no derivative."""

    zeros_learn: ClassVar[bool] = False
    sparse: ClassVar[bool] = False

    def noise(self, shape: tuple[int, ...], key: Key) -> Tensor | None:
        return None

    def scores(self, alpha: Tensor) -> Tensor:
        return alpha.double().softmax(-1)

    def _require_positive(self, *options: str) -> None:
        for option in options:
            value = getattr(self, option)
            if not value > 0.0:
                raise ConfigError(f"relaxation {type(self).__name__}: {option}: expected a number above 0, got {value}")


@dataclass(frozen=True)
class Tempered(Relaxed):
    """One temperature for the whole run.

    Args:
        temperature: divisor of the alphas; lower is sharper.

    Raises:
        ConfigError: for a temperature of 0 or less.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        self._require_positive("temperature")

    def scores(self, alpha: Tensor) -> Tensor:
        return (alpha.double() / self.temperature).softmax(-1)


@dataclass(frozen=True)
class Cooled(Relaxed):
    """A temperature that decays exponentially from ``start`` at ``begin`` of the run to ``end`` at ``finish``.

    Args:
        start, end: initial and final temperature, the divisor of the alphas; lower is sharper.
        begin, finish: fractions of the run between which the temperature falls.

    Raises:
        ConfigError: for temperatures of 0 or less, or shares out of order.
    """

    start: float = 1.0
    end: float = 1.0
    begin: float = 0.0
    finish: float = 1.0

    def __post_init__(self) -> None:
        self._require_positive("start", "end")
        if not 0.0 <= self.begin < self.finish <= 1.0:
            raise ConfigError(
                f"relaxation {type(self).__name__}: expected 0 <= begin < finish <= 1, "
                f"got {self.begin} and {self.finish}"
            )

    def temperature(self, at: Stage) -> Tensor | float:
        """The temperature at the progress of the run: a tensor if the progress is one, so that a recorded step sees it
        fall."""
        share = (at.progress - self.begin) / (self.finish - self.begin)
        share = share.clamp(0.0, 1.0) if isinstance(share, Tensor) else min(max(share, 0.0), 1.0)
        return self.start * (self.end / self.start) ** share
