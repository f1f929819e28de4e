"""Parameters on the edges of the cells; the stem, projections, norms and the head are the same for every cell."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ._types import CostedNetwork, EdgeUse, Weights, over_edges


@dataclass(frozen=True)
class EdgeWeights:
    """The number of parameters on the edges of all cells.

    Args:
        height, width: of an image; they make no difference.
    """

    height: int
    width: int

    def __call__(self, network: CostedNetwork, weights: Weights) -> Tensor:
        return over_edges(network, weights, _price, (self.height, self.width))


def _price(use: EdgeUse) -> float:
    return use.operation.weights(use.channels, use.stride)


COST = EdgeWeights
