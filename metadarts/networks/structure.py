"""The macro structure of a network: the blocks around and between the cells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from metadarts.core.errors import ConfigError

from .blocks import Block, Readout, Stem
from .cell import Cells

HEADS = ("shared", "prototype")


class Image(NamedTuple):
    """The images that a network takes; height and width are 0 if unknown."""

    channels: int
    height: int = 0
    width: int = 0


class Style(NamedTuple):
    """Settings that every macro network gets; see `Structure`."""

    affine: bool = False
    pool_norm: bool = True
    head: str = "shared"
    partial: int = 1


@dataclass(frozen=True, kw_only=True)
class Structure(ABC):
    """The common part of all macro structures. A subclass adds fields and the blocks.

    Args:
        in_channels: channels of an image.
        affine: whether batch norms of the cells have weight and bias.
        pool_norm: whether pools of the cells are followed by batch norm.
        head: "shared" (one class vector, copied for every class of a task) or "prototype" (support class means).
        logit_scale: initial logit scale of the prototype head.
        partial: K: candidates of a supernet run on 1/K of the channels and the others bypass them (PC-DARTS, Xu et al.,
            ICLR 2020, K = 4); 1 for all. A discrete network runs on all.
    """

    in_channels: int = 3
    affine: bool = False
    pool_norm: bool = True
    head: str = "shared"
    logit_scale: float = 0.1
    partial: int = 1

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise ConfigError(f"network.head: expected one of {', '.join(HEADS)}, got {self.head!r}")
        if self.partial < 1:
            raise ConfigError(f"network.partial: expected 1 (all channels) or more, got {self.partial}")

    @abstractmethod
    def blocks(self, cells: Cells) -> tuple[Block, ...]:
        """The sequence of blocks; each reads earlier ones by their position. The last one gives the feature vector."""


@dataclass(frozen=True, kw_only=True)
class NetworkSpec(Structure):
    """A stem, a sequence of cells, global average pooling (T-NAS, Lian et al., ICLR 2020: its search network).

    Args:
        stem: channels of the 3x3 stem convolutions; each is followed by batch norm and 2x2 max pooling, with a ReLU
            between stages.
        channels: channels of the first cell's nodes; reduction cells double them.
        cells: the types of the cells in order. Without cells, the network is a sequence of convolutional blocks: with a
            stem of four, MAML's 4CONV (Finn et al., 2017, section 5.2; a bias before batch norm has no effect and is
            omitted).
        flat: for a network without cells, the number of positions of its last map: their concatenated channels are the
            features. 0 takes the mean over positions instead.
    """

    stem: tuple[int, ...] = (24, 48)
    channels: int = 16
    cells: tuple[str, ...] = ("normal", "reduce")
    flat: int = 0

    def __post_init__(self) -> None:
        if not self.stem or min(self.stem) < 1:
            raise ConfigError(f"network.stem: expected the channels of at least one convolution, got {self.stem}")
        if self.flat < 0 or (self.flat and self.cells):
            raise ConfigError(f"network.flat: expected 0, or positions where there are no cells, got {self.flat}")
        super().__post_init__()
        if self.channels < 2 or self.channels % 2:
            raise ConfigError(f"network.channels: expected an even number from 2 on, got {self.channels}")

    def blocks(self, cells: Cells) -> tuple[Block, ...]:
        row: list[Block] = [Stem((self.in_channels, *self.stem))]
        channels, reads = self.channels, (0, 0)
        for index, kind in enumerate(self.cells):
            channels = channels * 2 if kind == "reduce" else channels
            inputs = tuple(row[place].out_channels for place in reads)
            row.append(cells.cell(f"cells.{index}.", kind, channels, reads, inputs))
            reads = (reads[-1], len(row) - 1)
        bare = not self.cells
        return (*row, Readout((len(row) - 1,), row[-1].out_channels, rectify=bare, positions=self.flat))
