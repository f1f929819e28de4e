"""The T-NAS search network (Lian et al., ICLR 2020) in plain PyTorch: one module per edge, one call per candidate.

Parameter names, with ``c`` in {0: normal cell, 1: reduction cell}, ``e`` in 0..13 and shapes for C channels (16 or 32):

| name | shape |
| --- | --- |
| ``stem.conv1.weight`` | [24, in, 3, 3] |
| ``stem.norm1.{weight,bias}`` | [24] |
| ``stem.conv2.weight`` | [48, 24, 3, 3] |
| ``stem.norm2.{weight,bias}`` | [48] |
| ``cells.{c}.preprocess{0,1}.conv.weight`` | [C, in, 1, 1], in = 48, but 64 for ``cells.1.preprocess1`` |
| ``cells.{c}.edges.{e}.sep_conv_{3x3,5x5}.depthwise{1,2}.weight`` | [C, 1, k, k] |
| ``cells.{c}.edges.{e}.sep_conv_{3x3,5x5}.pointwise{1,2}.weight`` | [C, C, 1, 1] |
| ``cells.{c}.edges.{e}.dil_conv_{3x3,5x5}.depthwise1.weight`` | [C, 1, k, k] |
| ``cells.{c}.edges.{e}.dil_conv_{3x3,5x5}.pointwise1.weight`` | [C, C, 1, 1] |
| ``cells.1.edges.{e}.skip_connect.{even,odd}.weight``, edges of stride 2 only | [C / 2, C, 1, 1] |
| ``alphas.{normal,reduce}`` | [14, 8], columns in the order of `CANDIDATES` |
| ``head.weight``, ``head.bias`` | [ways, 128], [ways] |

Edges are numbered node by node, and within node i by input 0..i+1, where inputs 0 and 1 are the two cell inputs. All
batch norms use the statistics of the batch at hand, in training and evaluation alike (transductive).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NODES = 4
EDGES = sum(node + 2 for node in range(NODES))


def batch_norm(channels: int, affine: bool = False) -> nn.BatchNorm2d:
    """Batch norm on the statistics of the batch at hand."""
    return nn.BatchNorm2d(channels, eps=1e-5, affine=affine, track_running_stats=False)


def depthwise(channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A depthwise convolution: [N, C, H, W] to [N, C, ceil(H / stride), ceil(W / stride)]."""
    padding = dilation * (kernel - 1) // 2
    return nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)


def pointwise(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution."""
    return nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)


class Zero(nn.Module):
    """The candidate ``none``: zeros [N, C, ceil(H / stride), ceil(W / stride)]."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class FactorizedReduce(nn.Module):
    """The skip of stride 2: even and odd pixels through a 1x1 convolution each, [N, C, H, W] to [N, C, H / 2, W / 2].

    An odd size is padded at the bottom or right, so both halves have ceil(H / 2) rows and ceil(W / 2) columns.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.even = pointwise(channels, channels // 2, stride=2)
        self.odd = pointwise(channels, channels // 2, stride=2)
        self.norm = batch_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        shifted = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1:, 1:]
        reduced: Tensor = self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))
        return reduced


def max_pool(channels: int, stride: int) -> nn.Module:
    """Max-pool 3x3, batch norm."""
    return nn.Sequential(nn.MaxPool2d(3, stride, padding=1), batch_norm(channels))


def avg_pool(channels: int, stride: int) -> nn.Module:
    """Average pool 3x3 over the pixels inside the image, batch norm."""
    return nn.Sequential(nn.AvgPool2d(3, stride, padding=1, count_include_pad=False), batch_norm(channels))


def skip_connect(channels: int, stride: int) -> nn.Module:
    """The input itself, or at stride 2 its `FactorizedReduce`."""
    return nn.Identity() if stride == 1 else FactorizedReduce(channels)


def sep_conv(channels: int, stride: int, kernel: int) -> nn.Module:
    """ReLU, depthwise, pointwise, batch norm; applied twice, the stride in the first."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, step in ((1, stride), (2, 1)):
        layers[f"relu{index}"] = nn.ReLU()
        layers[f"depthwise{index}"] = depthwise(channels, kernel, step)
        layers[f"pointwise{index}"] = pointwise(channels, channels)
        layers[f"norm{index}"] = batch_norm(channels)
    return nn.Sequential(layers)


def dil_conv(channels: int, stride: int, kernel: int) -> nn.Module:
    """ReLU, depthwise of dilation 2, pointwise, batch norm."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["relu1"] = nn.ReLU()
    layers["depthwise1"] = depthwise(channels, kernel, stride, dilation=2)
    layers["pointwise1"] = pointwise(channels, channels)
    layers["norm1"] = batch_norm(channels)
    return nn.Sequential(layers)


CANDIDATES: dict[str, Callable[[int, int], nn.Module]] = {
    "none": lambda channels, stride: Zero(stride),
    "max_pool_3x3": max_pool,
    "avg_pool_3x3": avg_pool,
    "skip_connect": skip_connect,
    "sep_conv_3x3": lambda channels, stride: sep_conv(channels, stride, 3),
    "sep_conv_5x5": lambda channels, stride: sep_conv(channels, stride, 5),
    "dil_conv_3x3": lambda channels, stride: dil_conv(channels, stride, 3),
    "dil_conv_5x5": lambda channels, stride: dil_conv(channels, stride, 5),
}
"""The eight candidates in DARTS order: name to a function of (channels, stride)."""


def add(terms: list[Tensor]) -> Tensor:
    """The sum of tensors of one shape."""
    return sum(terms[1:], terms[0])


class MixedOp(nn.ModuleDict):
    """One edge: the sum of all candidates' outputs, each times its weight."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__({name: build(channels, stride) for name, build in CANDIDATES.items()})

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Args: x [N, C, H, W], weights [8]. Returns [N, C, ceil(H / stride), ceil(W / stride)]."""
        return add([weight * candidate(x) for weight, candidate in zip(weights, self.values(), strict=True)])


def preprocess(channels_in: int, channels_out: int) -> nn.Sequential:
    """ReLU, 1x1 convolution, batch norm: [N, channels_in, H, W] to [N, channels_out, H, W]."""
    conv, norm = pointwise(channels_in, channels_out), batch_norm(channels_out)
    return nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=conv, norm=norm))


class Cell(nn.Module):
    """Four nodes, each the sum of an edge from both cell inputs and from every node before it.

    Args:
        channels_in: channels of the two cell inputs.
        channels: channels C of every node.
        reduction: edges from the cell inputs have stride 2.
    """

    def __init__(self, channels_in: tuple[int, int], channels: int, reduction: bool) -> None:
        super().__init__()
        self.preprocess0 = preprocess(channels_in[0], channels)
        self.preprocess1 = preprocess(channels_in[1], channels)
        self.edges = nn.ModuleList()
        for node in range(NODES):
            for source in range(node + 2):
                self.edges.append(MixedOp(channels, stride=2 if reduction and source < 2 else 1))

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        """Args: s0, s1 [N, C_in, H, W], weights [14, 8]. Returns [N, 4 C, H, W], or half the size in a reduction."""
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        offset = 0
        for _ in range(NODES):
            incoming = [self.edges[offset + j](state, weights[offset + j]) for j, state in enumerate(states)]
            offset += len(states)
            states.append(add(incoming))
        return torch.cat(states[2:], dim=1)


class Alphas(nn.Module):
    """The architecture parameters of both cells, [14, 8] each, drawn from 1e-3 * N(0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.normal = nn.Parameter(1e-3 * torch.randn(EDGES, len(CANDIDATES)))
        self.reduce = nn.Parameter(1e-3 * torch.randn(EDGES, len(CANDIDATES)))

    def forward(self) -> tuple[Tensor, Tensor]:
        """The softmax over the candidates of each edge, normal and reduction, [14, 8] each."""
        return F.softmax(self.normal, dim=-1), F.softmax(self.reduce, dim=-1)


def stem(channels: int) -> nn.Sequential:
    """[N, channels, H, W] to [N, 48, H // 4, W // 4]."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv1"] = nn.Conv2d(channels, 24, 3, padding=1, bias=False)
    layers["norm1"] = batch_norm(24, affine=True)
    layers["pool1"] = nn.MaxPool2d(2)
    layers["relu"] = nn.ReLU()
    layers["conv2"] = nn.Conv2d(24, 48, 3, padding=1, bias=False)
    layers["norm2"] = batch_norm(48, affine=True)
    layers["pool2"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)


class SearchNetwork(nn.Module):
    """Stem, normal cell of 16 channels, reduction cell of 32, global average pool, linear head.

    Args:
        channels: image channels.
        ways: classes per task.
    """

    def __init__(self, channels: int = 3, ways: int = 5) -> None:
        super().__init__()
        self.stem = stem(channels)
        self.cells = nn.ModuleList(
            [Cell((48, 48), 16, reduction=False), Cell((48, 64), 32, reduction=True)],
        )
        self.alphas = Alphas()
        self.head = nn.Linear(NODES * 32, ways)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x [N, channels, H, W]. Returns logits [N, ways]."""
        normal, reduce = self.alphas()
        s0 = self.stem(x)
        s1 = self.cells[0](s0, s0, normal)
        s2 = self.cells[1](s0, s1, reduce)
        logits: Tensor = self.head(s2.mean(dim=(2, 3)))
        return logits
