"""Hard forward, soft backward, without noise: the network that runs is one that derivation could give."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metadarts.core.errors import ConfigError, nearest
from metadarts.core.rng import Key
from metadarts.core.types import Stage

from ._checks import require_positive
from ._gumbel import straight_through

PASSES = ("all", "query")


@dataclass(frozen=True)
class Hard:
    """1 for the candidate of the largest alpha, 0 for the others, with the gradient of softmax(alpha / temperature).

    Args:
        temperature: of the gradient, and of the passes that are not hard.
        passes: "all", or "query" for the pass after the last inner step alone; inner steps are soft then.

    Raises:
        ConfigError: for a temperature of 0 or less, or other passes.
    """

    temperature: float = 1.0
    passes: str = "all"

    def __post_init__(self) -> None:
        require_positive("hard", temperature=self.temperature)
        if self.passes not in PASSES:
            raise ConfigError(f"relaxation 'hard': passes {self.passes!r} is unknown; {nearest(self.passes, PASSES)}")

    def noise(self, shape: tuple[int, ...], key: Key) -> Tensor | None:
        return None

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        p = (alpha / self.temperature).softmax(-1)
        return p if self.passes == "query" and at.step < at.steps else straight_through(p)

    def scores(self, alpha: Tensor) -> Tensor:
        return (alpha.double() / self.temperature).softmax(-1)


RELAXATION = Hard
