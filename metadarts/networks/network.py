"""Networks as pure functions of their parameters: the T-NAS stem, a row of cells, global average pooling, a head;
without cells, MAML's 4CONV.

The same code runs one set of parameters (no task axis) and T sets at once (leading task axis on every tensor).
Source of the macro structure: T-NAS (Lian et al., ICLR 2020), its search network.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.core.errors import ConfigError, NumericsError
from metadarts.core.rng import Key
from metadarts.core.types import ALPHA_PREFIX, Params, is_alpha
from metadarts.ops import conv_block
from metadarts.spaces import Genotype, SearchSpace

from .cell import CellSpec, cell_shapes, chosen_edges, mixed_edges, run_cell
from .primitives import PRIMITIVES, Shapes, Statistics

HEADS = ("shared", "prototype")
CELL_INPUTS = 2


@dataclass(frozen=True)
class NetworkSpec:
    """The macro structure around the cells.

    Args:
        in_channels: channels of an image.
        stem: channels of the 3x3 stem convolutions; each is followed by batch norm and 2x2 max pooling, with a ReLU
            between one and the next.
        channels: channels of the first cell's nodes; reduction cells double them.
        cells: the kinds of the cells in order. None at all leaves a row of convolutional blocks: with a stem of four,
            MAML's 4CONV (Finn et al., 2017, section 5.2; a bias before batch norm has no effect, and is not there).
        affine: whether batch norms of the cells have weight and bias (those of the stem always do).
        pool_norm: whether pools of the cells are followed by batch norm.
        head: "shared" (one class vector, copied for every class of a task) or "prototype" (support class means).
        logit_scale: initial logit scale of the prototype head.
        flat: of a network without cells, how many positions its last map has: their channels side by side are the
            features. 0 takes the mean over positions instead.
    """

    in_channels: int = 3
    stem: tuple[int, ...] = (24, 48)
    channels: int = 16
    cells: tuple[str, ...] = ("normal", "reduce")
    affine: bool = False
    pool_norm: bool = True
    head: str = "shared"
    logit_scale: float = 0.1
    flat: int = 0

    def __post_init__(self) -> None:
        if not self.stem or min(self.stem) < 1:
            raise ConfigError(f"network.stem: expected the channels of at least one convolution, got {self.stem}")
        if self.flat < 0 or (self.flat and self.cells):
            raise ConfigError(f"network.flat: expected 0, or positions where there are no cells, got {self.flat}")
        if self.head not in HEADS:
            raise ConfigError(f"network.head: expected one of {', '.join(HEADS)}, got {self.head!r}")
        if self.channels % 2:
            raise ConfigError(f"network.channels: expected an even number, got {self.channels}")


@dataclass(frozen=True)
class Network:
    """A cell network without parameters of its own; see `supernet` and `discrete_network`.

    Args:
        spec: the macro structure.
        space: the search space its cells come from.
        genotype: None for the supernet, whose edges mix all primitives; else the cell every cell of its kind has.
    """

    spec: NetworkSpec
    space: SearchSpace
    genotype: Genotype | None = None
    cells: tuple[CellSpec, ...] = field(init=False)

    def __post_init__(self) -> None:
        if unknown := [name for name in self.space.primitives if name not in PRIMITIVES]:
            raise ConfigError(f"no implementation for primitives {unknown}; known: {', '.join(PRIMITIVES)}")
        if self.spec.cells and self.space.inputs != CELL_INPUTS:
            raise ConfigError(
                f"a cell of a network reads the {CELL_INPUTS} before it: expected a space of {CELL_INPUTS} inputs, got "
                f"{self.space.name!r} of {self.space.inputs}; give another space, or a NetworkSpec without cells"
            )
        if self.genotype is not None:
            self.genotype.validate(self.space)
        object.__setattr__(self, "cells", _cell_specs(self))

    @property
    def features(self) -> int:
        """F, the length of the vector that reaches the head."""
        return self.cells[-1].out_channels if self.cells else self.spec.stem[-1] * max(1, self.spec.flat)

    @property
    def mixes(self) -> bool:
        """Whether there are alphas: a supernet has them, a discrete network and one without cells do not."""
        return self.genotype is None and bool(self.cells)

    def shapes(self) -> Shapes:
        """Names and shapes of all shared parameters (no task axis), alphas included."""
        shapes: Shapes = {
            f"stem.conv{index}": (channels, before, 3, 3)
            for index, (before, channels) in enumerate(pairwise((self.spec.in_channels, *self.spec.stem)), start=1)
        }
        for index, channels in enumerate(self.spec.stem, start=1):
            shapes |= {f"stem.norm{index}.weight": (channels,), f"stem.norm{index}.bias": (channels,)}
        for index, cell in enumerate(self.cells):
            shapes |= {f"cells.{index}.{name}": shape for name, shape in cell_shapes(cell).items()}
        shapes |= (
            {"head.vector": (self.features,), "head.bias": ()} if self.spec.head == "shared" else {"head.scale": ()}
        )
        if self.mixes:
            shapes |= {ALPHA_PREFIX + kind: self.space.alpha_shape for kind in self.space.cell_types}
        return shapes

    def init(self, key: Key) -> Params:
        """Fresh float32 parameters: convolutions as torch's default (uniform, 1/sqrt(fan in)), alphas 1e-3 N(0, 1)."""
        return {name: self._init_one(name, shape, key.child(name)) for name, shape in self.shapes().items()}

    def _init_one(self, name: str, shape: tuple[int, ...], key: Key) -> Tensor:
        if is_alpha(name):
            return 1e-3 * torch.randn(shape, generator=key.torch())
        if ".norm" in name:
            return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
        if name == "head.scale":
            return torch.tensor(self.spec.logit_scale)
        bound = 1.0 / math.sqrt(_fan_in(name, shape, self.features))
        return (2.0 * torch.rand(shape, generator=key.torch()) - 1.0) * bound

    def count(self, ways: int) -> tuple[int, int]:
        """(weights, alphas), the head counted as the linear layer of a ``ways``-way task."""
        sizes = {name: math.prod(shape) for name, shape in self.shapes().items()}
        alphas = sum(size for name, size in sizes.items() if is_alpha(name))
        body = sum(size for name, size in sizes.items() if not is_alpha(name) and not name.startswith("head."))
        return body + ways * (self.features + 1), alphas

    def weights_of(self, params: Params) -> dict[str, Tensor]:
        """cell kind -> relaxed weights [..., E, P]: the softmax of its alphas (DARTS, equation 2)."""
        return {kind: params[ALPHA_PREFIX + kind].softmax(-1) for kind in self.space.cell_types}

    def embed(
        self,
        params: Params,
        images: Tensor,
        statistics: Statistics | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Feature vectors before the head.

        Args:
            params: with a task axis [T, ...], or without one.
            images: [T, N, C, H, W], or [N, C, H, W] without a task axis.
            statistics: of batch norm; by default every image of a task counts alike.
            weights: cell kind -> [T, E, P] (or [E, P]) in place of the softmax of the alphas. For ablations.

        Returns:
            [T, N, F], or [N, F].

        Raises:
            NumericsError: when a batch norm would see fewer than two values per channel.
        """
        if images.dim() == 4:
            lifted = {name: tensor.unsqueeze(0) for name, tensor in params.items()}
            return self.embed(lifted, images.unsqueeze(0), statistics, weights)[0]
        tasks, count, _, height, width = images.shape
        statistics = statistics or Statistics()
        self._check_statistics(count, height, width, statistics)
        x = self._stem(params, images.permute(0, 1, 3, 4, 2).contiguous(), statistics)
        mixing = self._mixing(params, weights, tasks)
        if not self.cells:
            x = F.relu(x)
            return x.flatten(2) if self.spec.flat else x.mean((2, 3))
        before = x
        for index, cell in enumerate(self.cells):
            own = _under(params, f"cells.{index}.")
            before, x = x, run_cell(cell, own, _aligned(before, x), mixing.get(cell.kind), statistics)
        return x.mean((2, 3))

    def logits(
        self,
        params: Params,
        images: Tensor,
        statistics: Statistics | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Class scores [T, N, ways] of task parameters (`head.weight` [T, ways, F], `head.bias` [T, ways])."""
        features = self.embed(params, images, statistics, weights)
        return features @ params["head.weight"].mT + params["head.bias"].unsqueeze(-2)

    def _stem(self, params: Params, x: Tensor, statistics: Statistics) -> Tensor:
        for index in range(1, len(self.spec.stem) + 1):
            scale, bias = (params[f"stem.norm{index}.{part}"] for part in ("weight", "bias"))
            x = conv_block(x, params[f"stem.conv{index}"], scale, bias, statistics.rows, rectify=index > 1)
        return x

    def _mixing(self, params: Params, weights: Mapping[str, Tensor] | None, tasks: int) -> dict[str, dict[int, Tensor]]:
        """cell kind -> source state -> [K, T, E] weights of the running candidates."""
        if not self.mixes:
            return {}
        weights = self.weights_of(params) if weights is None else weights
        running = [i for i, name in enumerate(self.space.primitives) if PRIMITIVES[name].run is not None]
        sources = [s for s in range(self.space.inputs + self.space.nodes) if self.space.edges_from(s)]
        mixing = {}
        for kind, table in weights.items():
            table = table.expand(tasks, *self.space.alpha_shape)
            by_candidate = table.permute(2, 0, 1).index_select(0, _positions(tuple(running), table.device))
            mixing[kind] = {
                s: by_candidate.index_select(2, _positions(tuple(self.space.edges_from(s)), table.device))
                for s in sources
            }
        return mixing

    def _check_statistics(self, count: int, height: int, width: int, statistics: Statistics) -> None:
        smallest = 2 ** len(self.spec.stem)
        if min(height, width) < smallest:
            raise NumericsError(
                f"{len(self.spec.stem)} convolutional blocks halve an image as often and need at least "
                f"{smallest}x{smallest} pixels, got {height}x{width}: use larger images"
            )
        for kind in (*("stem" for _ in self.spec.stem), *(cell.kind for cell in self.cells)):
            if kind == "stem":
                height, width = height // 2, width // 2
            elif kind == "reduce":
                height, width = (height + 1) // 2, (width + 1) // 2
        images = count if statistics.images is None else statistics.images
        if images * height * width < 2:
            raise NumericsError(
                f"batch statistics need at least 2 values per channel, got {images} image(s) with a last map of "
                f"{height}x{width}: use more support images or larger ones"
            )


@functools.cache
def _positions(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Made once: a list as an index would be sent to a GPU at every step."""
    with torch.inference_mode(False):  # whoever asks first, others will differentiate with it
        return torch.tensor(numbers, device=device)


def supernet(space: SearchSpace, spec: NetworkSpec | None = None) -> Network:
    """The network whose every edge mixes all primitives of ``space``, weighted by the softmax of its alphas."""
    return Network(spec or NetworkSpec(), space)


def discrete_network(genotype: Genotype, space: SearchSpace, spec: NetworkSpec | None = None) -> Network:
    """The network that runs only the operations ``genotype`` kept."""
    return Network(spec or NetworkSpec(), space, genotype)


def inherit(network: Network, params: Params, parent: Network) -> Params:
    """The parameters of the discrete ``network``, cut out of its ``parent`` supernet's (with or without a task axis).

    Both must agree on everything but the genotype: same spec, same space.
    """
    if parent.spec != network.spec or parent.space != network.space:
        raise ConfigError("inherit: expected a parent of the same spec and space; build both from one NetworkSpec")
    shapes = network.shapes()
    return {name: _inherit_one(name, params, network, parent, len(shape)) for name, shape in shapes.items()}


def _inherit_one(name: str, params: Params, network: Network, parent: Network, dims: int) -> Tensor:
    if not name.startswith("cells.") or ".preprocess" in name:
        return params[name]
    _, index, primitive, rest = name.split(".", 3)
    stride = 2 if rest.startswith("stride2.") else 1
    ours, theirs = (net.cells[int(index)] for net in (network, parent))
    rows = [edge for edge in theirs.active[primitive] if theirs.stride(edge[1]) == stride]
    picks = [rows.index(edge) for edge in ours.active[primitive] if ours.stride(edge[1]) == stride]
    axis = params[name].dim() - dims
    return params[name].index_select(axis, torch.tensor(picks, device=params[name].device))


def _cell_specs(network: Network) -> tuple[CellSpec, ...]:
    spec, space, genotype = network.spec, network.space, network.genotype
    channels, outputs, cells = spec.channels, [spec.stem[-1]] * space.inputs, []
    for kind in spec.cells:
        channels = channels * 2 if kind == "reduce" else channels
        active = mixed_edges(space) if genotype is None else chosen_edges(genotype, kind)
        concat = space.concat if genotype is None else genotype.concat(kind)
        inputs = tuple(outputs[-space.inputs :])
        cell = CellSpec(kind, channels, inputs, space.nodes, active, concat, spec.affine, spec.pool_norm)
        cells.append(cell)
        outputs.append(cell.out_channels)
    return tuple(cells)


def _aligned(before: Tensor, x: Tensor) -> list[Tensor]:
    """The two input states of a cell at one size: after a reduction the older one is taken at every second pixel."""
    if before.shape[2:4] != x.shape[2:4]:
        before = before[:, :, ::2, ::2].contiguous()
    return [before, x]


def _fan_in(name: str, shape: tuple[int, ...], features: int) -> int:
    if name.startswith("head."):
        return features
    if "depthwise" in name:
        return math.prod(shape[-2:])
    return math.prod(shape[1:]) if name.startswith("stem.") else shape[-2]


def _under(params: Params, prefix: str) -> Params:
    return {name[len(prefix) :]: tensor for name, tensor in params.items() if name.startswith(prefix)}
