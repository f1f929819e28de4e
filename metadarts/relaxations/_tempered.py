"""Options that several relaxations share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.core.types import Stage


class Relaxed:
    """Without noise, ranked by the softmax; a weight of exactly 0 has no derivative."""

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
        temperature: what alphas are divided by; the lower, the sharper.

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
    """A temperature that falls by equal factors from ``start`` at ``begin`` of the run to ``end`` at ``finish``.

    Args:
        start, end: temperatures, what alphas are divided by; the lower, the sharper.
        begin, finish: shares of the run between which the temperature falls.

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
        """That of the run's progress: a tensor where it is one, so that a recorded step sees it fall."""
        share = (at.progress - self.begin) / (self.finish - self.begin)
        share = share.clamp(0.0, 1.0) if isinstance(share, Tensor) else min(max(share, 0.0), 1.0)
        return self.start * (self.end / self.start) ** share
