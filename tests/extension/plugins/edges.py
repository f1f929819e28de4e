"""A cost of one's own: how many edges carry an operation with parameters."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metadarts.costs import CostedNetwork, EdgeUse, Weights, over_edges


@dataclass(frozen=True)
class HeavyEdges:
    """The expected number of edges with parameters, over all cells.

    Args:
        height, width: of an image; every cost is told.
        least: parameters from which an operation counts.
    """

    height: int
    width: int
    least: int = 1

    def __call__(self, network: CostedNetwork, weights: Weights) -> Tensor:
        return over_edges(network, weights, self._price, (self.height, self.width))

    def _price(self, use: EdgeUse) -> float:
        return float(use.operation.weights(use.channels, use.stride) >= self.least)


COST = HeavyEdges
