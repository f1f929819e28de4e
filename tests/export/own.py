"""An operation, a block and macro networks of a user's own, as metadarts is told of them: nothing in it knows them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from metadarts.networks import IMAGE, Network, Readout, Stem, Structure
from metadarts.operations import OPERATIONS, Operation, batch_norm, uniform
from metadarts.spaces import SearchSpace

# --- a dense convolution of 1x5, then one of 5x1, the first at the stride, each with a bias; one batch norm at the end


def _convolved(x, kernel, bias, **options):
    """x [T, E, N, H, W, C], kernel [T, E, C, C, h, w], bias [T, E, C]: every edge of every task by itself."""
    tasks, edges = x.shape[:2]
    maps = x.movedim(-1, 3).movedim(2, 0).flatten(1, 3)
    y = F.conv2d(maps, kernel.flatten(0, 2), bias.flatten(), groups=tasks * edges, **options)
    return y.unflatten(1, (tasks, edges, -1)).movedim(0, 2).movedim(3, -1)


def _run(state, context):
    own, (edges, stride) = context.params, (context.params["across"].shape[1], context.stride)
    x = F.relu(state).unsqueeze(1).expand(-1, edges, -1, -1, -1, -1)
    x = _convolved(x, own["across"], own["first"], stride=(1, stride), padding=(0, 2))
    x = _convolved(x, own["down"], own["second"], stride=(stride, 1), padding=(2, 0))
    return context.batch_norm(x, "norm")


def _fold(layers, x):
    own, stride = layers.own, layers.stride
    x = layers.convolution(layers.relu(x), own("across"), bias=own("first"), stride=(1, stride), padding=(0, 2))
    return layers.convolution(x, own("down"), bias=own("second"), norm="norm", stride=(stride, 1), padding=(2, 0))


def _shapes(channels, stride):
    dense = (channels, channels)
    return {"across": (*dense, 1, 5), "down": (*dense, 5, 1), "first": (channels,), "second": (channels,)}


def _init(name, shape, key):
    return uniform(shape, 5 * shape[1], key)


def _cost(channels, stride, positions):
    return (stride + 1) * positions * 5 * channels * channels


CROSS = Operation(
    run=_run, fold=_fold, shapes=_shapes, norms=lambda stride: ("norm",), init=_init, cost=_cost, shade="#b0307a"
)
TABLE = OPERATIONS.plus("conv_1x5_5x1", CROSS)
PRIMITIVES = ("none", "conv_1x5_5x1", "max_pool_3x3", "skip_connect", "sep_conv_3x3")

# --- a residual block, and networks that are no stem of two and cells after it


@dataclass(frozen=True)
class Residual:
    """x + norm(conv(relu(x))), then a ReLU: a class that nothing in metadarts derives from or knows."""

    channels: int
    reads: tuple[int, ...]
    prefix: str

    @property
    def out_channels(self):
        return self.channels

    def shapes(self):
        kernel, each = (self.channels, self.channels, 3, 3), (self.channels,)
        return {"conv": kernel, "norm.weight": each, "norm.bias": each}

    def init(self, name, shape, key):
        return uniform(shape, 9 * self.channels, key)

    def size(self, height, width):
        return height, width

    def run(self, params, inputs, mixing, statistics):
        (x,), own = inputs, {name: params[self.prefix + name] for name in self.shapes()}
        kernel = own["conv"].unsqueeze(1)
        maps = F.relu(x).unsqueeze(1)
        y = _convolved(maps, kernel, torch.zeros_like(own["norm.bias"]).unsqueeze(1), padding=1)
        y = batch_norm(y, statistics).squeeze(1)
        weight, bias = (own[f"norm.{part}"][:, None, None, None] for part in ("weight", "bias"))
        return F.relu(x + y * weight + bias)

    def fold(self, layers, inputs, mixing):
        (x,) = inputs
        y = layers.convolution(layers.relu(x), layers.own("conv"), norm="norm", padding=1)
        return layers.relu(layers.add(x, y))


@dataclass(frozen=True)
class Projection:
    """A 1x1 convolution of the image, without batch norm or pooling."""

    before: int
    out_channels: int
    reads: tuple[int, ...] = (IMAGE,)
    prefix: str = "project."

    def shapes(self):
        return {"conv": (self.out_channels, self.before, 1, 1)}

    def init(self, name, shape, key):
        return uniform(shape, self.before, key)

    def size(self, height, width):
        return height, width

    def run(self, params, inputs, mixing, statistics):
        kernel = params[f"{self.prefix}conv"].flatten(2)
        return inputs[0] @ kernel.mT[:, None, None]

    def fold(self, layers, inputs, mixing):
        return layers.convolution(inputs[0], layers.own("conv"))


@dataclass(frozen=True, kw_only=True)
class Flat(Structure):
    """No pooling, a normal cell, a residual block, a normal cell that reads the last ``inputs`` of all these."""

    channels: int = 4
    inputs: int = 2

    def blocks(self, cells):
        row = [Projection(self.in_channels, 6)]
        first = cells.cell("cells.0.", "normal", self.channels, (0,) * self.inputs, (6,) * self.inputs)
        row += [first, Residual(first.out_channels, (1,), "residual.0.")]
        reads = (0, 1, 2)[-self.inputs :]
        channels = tuple(row[read].out_channels for read in reads)
        row.append(cells.cell("cells.1.", "normal", self.channels, reads, channels))
        return (*row, Readout((3,), row[3].out_channels))


@dataclass(frozen=True, kw_only=True)
class Reducing(Structure):
    """One stage of a stem, then normal and reduction cells that read the last ``inputs`` outputs before them."""

    channels: int = 4
    inputs: int = 3

    def blocks(self, cells):
        row, channels = [Stem((self.in_channels, 6))], self.channels
        for index, kind in enumerate(("normal", "reduce", "normal", "reduce")):
            channels *= 2 if kind == "reduce" else 1
            reads = tuple(max(0, len(row) - back) for back in range(self.inputs, 0, -1))
            row.append(cells.cell(f"cells.{index}.", kind, channels, reads, tuple(row[r].out_channels for r in reads)))
        return (*row, Readout((len(row) - 1,), row[-1].out_channels, rectify=True))


def space_of(inputs: int, nodes: int = 2) -> SearchSpace:
    return SearchSpace("own", PRIMITIVES, nodes, inputs=inputs, edges_per_node=min(inputs, 2))


def network_of(structure: Structure, space: SearchSpace, genotype=None) -> Network:
    return Network(structure, space, genotype, TABLE)
