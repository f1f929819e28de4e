"""What writes a network down as plain layers, see `metadarts.export`: the vocabulary, for operations and for blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Pair = int | tuple[int, int]
"""Of the height and the width; a number stands for both."""


@dataclass(frozen=True, eq=False)
class Map:
    """What a layer gave. Other layers take it; nothing else may be computed from it, as nothing else is written down.

    Args:
        values: [S, C, H, W], on the support set; [S, F] of a feature vector.
        number: of the layer; 0 is the image.
    """

    values: Tensor
    number: int


class Layers(Protocol):
    """Writes layers down while they run on the support set. Every method returns its layer's output."""

    def own(self, name: str) -> Tensor:
        """The parameter of this own name of the block, or of the operation on its one edge."""
        ...

    def relu(self, x: Map) -> Map: ...

    def convolution(
        self,
        x: Map,
        kernel: Tensor,
        *,
        bias: Tensor | None = None,
        norm: str | None = None,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
    ) -> Map:
        """torch's conv2d with ``kernel`` [out, in / groups, h, w], and batch norm ``norm``, see `batch_norm`."""
        ...

    def batch_norm(self, x: Map, name: str) -> Map:
        """By the support set's statistics; affine where there are own parameters ``name``.weight and ``name``.bias."""
        ...

    def max_pool(self, x: Map, kernel: Pair, *, stride: Pair, padding: Pair = 0) -> Map: ...

    def average_pool(self, x: Map, kernel: Pair, *, stride: Pair, padding: Pair = 0) -> Map:
        """Padding does not count."""
        ...

    def halve(self, x: Map, even: Tensor, odd: Tensor, norm: str) -> Map:
        """ReLU, 1x1 convolutions of the even and of the odd pixels side by side, batch norm ``norm``."""
        ...

    def add(self, *maps: Map) -> Map: ...

    def concatenate(self, *maps: Map) -> Map:
        """Channels side by side."""
        ...

    def every_second(self, x: Map) -> Map:
        """Every second pixel of every second row."""
        ...

    def mean(self, x: Map) -> Map:
        """The mean over positions, [S, C]."""
        ...

    def flatten(self, x: Map) -> Map:
        """The positions side by side, the channels of one next to each other, [S, H * W * C]."""
        ...

    def weighed(self, x: Map, weight: float) -> Map:
        """``weight`` times x, which has just been made here: taken in by its layer, or by a layer of its own."""
        ...


class Folding(Layers, Protocol):
    """Writes an operation on one edge down. The operation's weight in the mixture is taken in afterwards."""

    @property
    def stride(self) -> int: ...

    @property
    def pool_norm(self) -> bool:
        """Whether pools are followed by batch norm."""
        ...
