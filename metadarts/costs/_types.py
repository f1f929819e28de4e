"""The protocol of an architecture's cost, and sums of costs over the edges of a network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from metadarts.operations import Operation
from metadarts.spaces import SearchSpace

Weights = Mapping[str, Tensor]
"""cell kind -> mixing weights [T, E, P]."""


class Costed(Protocol):
    """A cell whose edges have a cost; `metadarts.networks.CellBlock` is one."""

    @property
    def kind(self) -> str: ...

    @property
    def channels(self) -> int: ...

    def stride(self, source: int) -> int: ...


class CostedNetwork(Protocol):
    """The interface of a network that a cost requires; `metadarts.networks.Network` is one."""

    @property
    def space(self) -> SearchSpace: ...

    @property
    def operations(self) -> Mapping[str, Operation]: ...

    @property
    def cells(self) -> Sequence[Costed]: ...

    def positions(self, height: int, width: int) -> Sequence[int]:
        """Output positions of every cell for images of this size."""
        ...


class Cost(Protocol):
    """(network, mixing weights [T, E, P] by cell kind) -> [T], differentiable in the weights."""

    def __call__(self, network: CostedNetwork, weights: Weights) -> Tensor: ...


class EdgeUse(NamedTuple):
    """One operation on one edge.

    Args:
        positions: output positions of the edge.
    """

    operation: Operation
    channels: int
    stride: int
    positions: int


def over_edges(
    network: CostedNetwork, weights: Weights, price: Callable[[EdgeUse], float], size: tuple[int, int]
) -> Tensor:
    """The sum of ``price`` over all edges and operations of all cells, each times its mixing weight, [T].

    Exact for one-hot weights; the expected cost for a distribution over operations.

    Args:
        size: height and width of an image.
    """
    total: Tensor | None = None
    for cell, positions in zip(network.cells, network.positions(*size), strict=True):
        table = weights[cell.kind]
        prices = tuple(
            tuple(
                price(EdgeUse(network.operations[name], cell.channels, cell.stride(source), positions))
                for name in network.space.primitives
            )
            for _, source in network.space.edges  # every edge of a cell ends at the size of its output
        )
        part = (table * _table(prices, table.dtype, table.device)).sum((-2, -1))
        total = part if total is None else total + part
    if total is None:
        raise ValueError("a network without cells has no edges to price")
    return total


@functools.cache
def _table(prices: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """[E, P]. Made once: a recorded GPU step cannot copy it from the host."""
    with torch.inference_mode(False):  # whoever asks first, others will differentiate with it
        return torch.tensor(prices, dtype=dtype, device=device)


@dataclass(frozen=True)
class Penalty:
    """The term that a cost adds to the query loss: ``strength`` times the cost."""

    cost: Cost
    strength: float

    def __call__(self, network: CostedNetwork, weights: Weights) -> Tensor:
        """[T]."""
        return self.strength * self.cost(network, weights)
