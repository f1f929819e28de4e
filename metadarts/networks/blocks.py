"""Blocks: the parts of a network, each a pure function of earlier outputs.

A custom macro network combines these, or uses its own class with the same members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Params
from metadarts.operations import Folding, Layers, Map, Shapes, Statistics, uniform
from metadarts.ops import conv_block

IMAGE = -1
"""In ``reads``: the image."""


@dataclass(frozen=True)
class Mixing:
    """The mixing weights of one pass.

    Args:
        tables: cell type -> source state -> for each bundle of candidates that are mixed together, the weights [K, T,
            E] of its K candidates on its E edges.
        skips: whether a weight of exactly 0 has no derivative, so that its candidate need not run.
        masks: whether such weights exist, so that operations get masks without reading the weights.
        edges: cell type -> source state -> [T, E], the weights of all its edges; empty if no channels bypass them.
    """

    tables: Mapping[str, Mapping[int, Sequence[Tensor]]] = field(default_factory=dict)
    skips: bool = False
    masks: bool = False
    edges: Mapping[str, Mapping[int, Tensor]] = field(default_factory=dict)

    def get(self, kind: str) -> Mapping[int, Sequence[Tensor]] | None:
        """The weights for cells of ``kind``; None if nothing is mixed."""
        return self.tables.get(kind)


class BlockFolding(Layers, Protocol):
    """Describes a block as layers. The tensors of its layers are named by the block's prefix and their position among
    its layers."""

    def part(self, name: str) -> Layers:
        """The same for a named part of the block."""
        ...

    def edge(self, name: str, own: Params, *, stride: int, pool_norm: bool) -> Folding:
        """For an operation on one edge, with its ``own`` parameters on it."""
        ...


class Block(Protocol):
    """A part of a network.

    Attributes:
        prefix: what the names of its parameters begin with.
        reads: the earlier blocks whose outputs it takes, by their position in the sequence; `IMAGE` is the image.
        out_channels: of its output; of the last block, the length of the feature vector.
    """

    @property
    def prefix(self) -> str: ...

    @property
    def reads(self) -> tuple[int, ...]: ...

    @property
    def out_channels(self) -> int: ...

    def shapes(self) -> Shapes:
        """Shapes of its parameters by their own names, without a task axis."""
        ...

    def init(self, name: str, shape: tuple[int, ...], key: Key) -> Tensor:
        """Initial float32 values for its parameter of this own name."""
        ...

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output for inputs of this size, the smallest that it reads."""
        ...

    def run(self, params: Params, inputs: Sequence[Tensor], mixing: Mixing, statistics: Statistics) -> Tensor:
        """The output [T, N, h, w, C] of inputs of that form; [T, N, F] of the last block.

        Args:
            params: of the whole network, by full name.
        """
        ...

    def fold(self, layers: BlockFolding, inputs: Sequence[Map], mixing: Mixing) -> Map:
        """The output of the same block as plain layers, batch norm by the support set, for export.

        Args:
            mixing: of one task, T = 1.
        """
        ...


def norm_init(name: str, shape: tuple[int, ...]) -> Tensor:
    """Weight 1 and bias 0 of an affine batch norm."""
    return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)


@dataclass(frozen=True)
class Stem:
    """Stages of 3x3 convolution, affine batch norm and 2x2 max pooling, with a ReLU between stages.

    Two of them are T-NAS's stem (Lian et al., ICLR 2020), four are MAML's 4CONV (Finn et al., ICML 2017, section 5.2).

    Args:
        channels: of the input, then of every stage's output.
    """

    channels: tuple[int, ...]
    reads: tuple[int, ...] = (IMAGE,)
    prefix: str = "stem."

    @property
    def stages(self) -> int:
        """The number of times it halves a map."""
        return len(self.channels) - 1

    @property
    def out_channels(self) -> int:
        return self.channels[-1]

    def shapes(self) -> Shapes:
        pairs = list(enumerate(pairwise(self.channels), start=1))
        shapes: Shapes = {f"conv{index}": (after, before, 3, 3) for index, (before, after) in pairs}
        for index, (_, after) in pairs:
            shapes |= {f"norm{index}.weight": (after,), f"norm{index}.bias": (after,)}
        return shapes

    def init(self, name: str, shape: tuple[int, ...], key: Key) -> Tensor:
        if name.startswith("norm"):
            return norm_init(name, shape)
        return uniform(shape, shape[1] * shape[2] * shape[3], key)

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height >> self.stages, width >> self.stages

    def run(self, params: Params, inputs: Sequence[Tensor], mixing: Mixing, statistics: Statistics) -> Tensor:
        x = inputs[0]
        for index, names in enumerate(self._names):
            kernel, scale, bias = (params[name] for name in names)
            x = conv_block(x, kernel, scale, bias, statistics.rows, rectify=index > 0)
        return x

    def fold(self, layers: BlockFolding, inputs: Sequence[Map], mixing: Mixing) -> Map:
        x = inputs[0]
        for index in range(1, self.stages + 1):
            x = layers.relu(x) if index > 1 else x
            x = layers.convolution(x, layers.own(f"conv{index}"), norm=f"norm{index}", padding=1)
            x = layers.max_pool(x, 2, stride=2)
        return x

    @cached_property
    def _names(self) -> tuple[tuple[str, str, str], ...]:
        """Filter, weight and bias of every stage, among the parameters of the network."""
        own = ((f"conv{i}", f"norm{i}.weight", f"norm{i}.bias") for i in range(1, self.stages + 1))
        return tuple((self.prefix + kernel, self.prefix + scale, self.prefix + bias) for kernel, scale, bias in own)


@dataclass(frozen=True)
class Readout:
    """From the last map to the feature vector: the mean over positions, or the concatenated positions.

    Args:
        channels: of the map.
        rectify: whether a ReLU comes first.
        positions: number of positions of the map to concatenate; 0 takes their mean.
    """

    reads: tuple[int]
    channels: int
    rectify: bool = False
    positions: int = 0
    prefix: str = "readout."

    @property
    def out_channels(self) -> int:
        return self.channels * max(1, self.positions)

    def shapes(self) -> Shapes:
        return {}

    def init(self, name: str, shape: tuple[int, ...], key: Key) -> Tensor:
        raise KeyError(name)

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def run(self, params: Params, inputs: Sequence[Tensor], mixing: Mixing, statistics: Statistics) -> Tensor:
        x = F.relu(inputs[0]) if self.rectify else inputs[0]
        return x.flatten(2) if self.positions else x.mean((2, 3))

    def fold(self, layers: BlockFolding, inputs: Sequence[Map], mixing: Mixing) -> Map:
        x = layers.relu(inputs[0]) if self.rectify else inputs[0]
        return layers.flatten(x) if self.positions else layers.mean(x)
