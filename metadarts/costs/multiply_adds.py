"""Multiply-adds on the edges of the cells for one image; batch norms and pools are excluded, as in FLOP counters."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ._types import CostedNetwork, EdgeUse, Weights, over_edges


@dataclass(frozen=True)
class MultiplyAdds:
    """Multiply-adds of the edges of all cells.

    Args:
        height, width: of an image.
    """

    height: int
    width: int

    def __call__(self, network: CostedNetwork, weights: Weights) -> Tensor:
        return over_edges(network, weights, _price, (self.height, self.width))


def _price(use: EdgeUse) -> float:
    return use.operation.cost(use.channels, use.stride, use.positions)


COST = MultiplyAdds
