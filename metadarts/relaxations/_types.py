"""What a relaxation is."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Stage

CLOSED = -1e9
"""The alpha of a candidate that is dropped for good, so that its weight is exactly 0 (MetaNAS, Elsken et al., 2020)."""


class Relaxation(Protocol):
    """From the alphas of one decision to the weights with which its candidates are mixed. A frozen value.

    An attribute ``zeros_learn`` of False promises that weights of exactly 0 have no derivative, first or second: their
    candidates are then not run at all on a CPU. See `zeros_learn`. An attribute ``sparse`` of True says that there are
    such weights: on a GPU, and in a recorded step, operations are then told where they count. See `is_sparse`.
    """

    def noise(self, shape: tuple[int, ...], key: Key) -> Tensor | None:
        """What is drawn for weights of this shape [T, K + 1, rows, candidates]: one draw for each task, each inner step
        and the query pass. None for a relaxation that draws nothing."""
        ...

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        """Mixing weights of ``alpha`` [..., rows, candidates], differentiable in it to second order.

        Args:
            at: the inner step, and how far the run is.
            noise: this stage's draw, shaped as ``alpha``; None outside training.
        """
        ...

    def scores(self, alpha: Tensor) -> Tensor:
        """What derivation ranks candidates by: [..., rows, candidates] in double precision, none below 0."""
        ...
