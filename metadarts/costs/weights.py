"""Parameters of the operations on the edges of the cells.

The stem, the projections of a cell's inputs and the head are the same for every architecture and are not counted. Scale
and offset of batch norm, which edges have if ``affine`` is set, are not counted either.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ._types import CostedNetwork, EdgeUse, Weights, over_edges


@dataclass(frozen=True)
class EdgeWeights:
    """The number of parameters on the edges of all cells.

    Args:
        height, width: of an image; they have no effect.
    """

    height: int
    width: int

    def __call__(self, network: CostedNetwork, weights: Weights) -> Tensor:
        return over_edges(network, weights, _price, (self.height, self.width))


def _price(use: EdgeUse) -> float:
    return use.operation.weights(use.channels, use.stride)


COST = EdgeWeights
