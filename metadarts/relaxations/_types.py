"""The protocol of a relaxation."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Stage

CLOSED = -1e9
"""The alpha of a permanently dropped candidate: its weight is exactly 0 (MetaNAS, Elsken et al., 2020)."""


class Relaxation(Protocol):
    """Computes the mixing weights of the candidates of one decision from its alphas. A frozen value.

    An attribute ``zeros_learn`` of False promises that weights of exactly 0 have no derivative, first or second: a CPU
    then does not run their candidates. See `zeros_learn`. An attribute ``sparse`` of True states that such weights
    exist: on a GPU, and in a recorded step, operations then get a mask of where they count. See `is_sparse`.
    """

    def noise(self, shape: tuple[int, ...], key: Key) -> Tensor | None:
        """The random draw for weights of this shape [T, K + 1, rows, candidates]: one for each task, each inner step
        and the query pass. None for a relaxation without noise."""
        ...

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        """Mixing weights of ``alpha`` [..., rows, candidates], differentiable in it to second order.

        Args:
            at: the inner step and the progress of the run.
            noise: the draw for this stage, with the shape of ``alpha``; None outside training.
        """
        ...

    def scores(self, alpha: Tensor) -> Tensor:
        """The scores by which derivation ranks candidates: [..., rows, candidates] in double precision, none below
        0."""
        ...
