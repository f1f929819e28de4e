"""Hard forward, soft backward, without noise: the network that runs is one that derivation could return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from metadarts.core.errors import ConfigError, nearest
from metadarts.core.types import Stage

from ._gumbel import straight_through
from ._tempered import Tempered

PASSES = ("all", "query")


@dataclass(frozen=True)
class Hard(Tempered):
    """1 for the candidate of the largest alpha, 0 for the others, with the gradient of softmax(alpha / temperature).

    Args:
        temperature: temperature of the gradient, and of the passes that are not hard.
        passes: hard passes: "all", or "query" for only the pass after the last inner step; inner steps are then soft.

    Raises:
        ConfigError: for a temperature of 0 or less, or unknown passes.
    """

    passes: str = "all"
    zeros_learn: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.passes not in PASSES:
            raise ConfigError(f"relaxation Hard: passes {self.passes!r} is unknown; {nearest(self.passes, PASSES)}")

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        p = (alpha / self.temperature).softmax(-1)
        return p if self.passes == "query" and at.step < at.steps else straight_through(p)


RELAXATION = Hard
