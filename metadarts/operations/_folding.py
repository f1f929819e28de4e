"""Description of a network as plain layers for `metadarts.export`: the vocabulary for operations and blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Pair = int | tuple[int, int]
"""Of the height and the width; a number stands for both."""


@dataclass(frozen=True, eq=False)
class Map:
    """The output of a layer. Only layers may use it, because nothing else is recorded.

    Args:
        values: [S, C, H, W], on the support set; [S, F] of a feature vector.
        number: of the layer; 0 is the image.
    """

    values: Tensor
    number: int


class Layers(Protocol):
    """Records layers while they run on the support set. Every method returns its layer's output."""

    def own(self, name: str) -> Tensor:
        """The block's own parameter with this name, or that of the operation on its edge."""
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
        """Batch norm with the support set's statistics; affine if own parameters ``name``.weight and ``name``.bias
        exist."""
        ...

    def max_pool(self, x: Map, kernel: Pair, *, stride: Pair, padding: Pair = 0) -> Map: ...

    def average_pool(self, x: Map, kernel: Pair, *, stride: Pair, padding: Pair = 0) -> Map:
        """Padding does not count."""
        ...

    def halve(self, x: Map, even: Tensor, odd: Tensor, norm: str) -> Map:
        """ReLU, concatenated 1x1 convolutions of the even and of the odd pixels, batch norm ``norm``."""
        ...

    def add(self, *maps: Map) -> Map: ...

    def concatenate(self, *maps: Map) -> Map:
        """Concatenation of channels."""
        ...

    def every_second(self, x: Map) -> Map:
        """Every second pixel of every second row."""
        ...

    def mean(self, x: Map) -> Map:
        """The mean over positions, [S, C]."""
        ...

    def flatten(self, x: Map) -> Map:
        """The concatenated positions, with the channels of each position contiguous, [S, H * W * C]."""
        ...

    def weighed(self, x: Map, weight: float) -> Map:
        """``weight`` times x, the output of the last layer: folded into that layer, or into a separate layer."""
        ...


class Folding(Layers, Protocol):
    """Records an operation on one edge. The operation's weight in the mixture is folded in afterwards."""

    @property
    def stride(self) -> int: ...

    @property
    def pool_norm(self) -> bool:
        """Whether pools are followed by batch norm."""
        ...
