"""From task parameters and a support set to a plain classifier's tensors: batch norm becomes a factor and an offset.

Under the policy ``support``, a batch norm's mean m and variance v come only from the support set and do not depend on
the rest of the batch: they are constants of the task. So weight * (u - m) / sqrt(v + eps) + bias is affine in u, and
the layer that computes u absorbs it, together with the edge's weight p in the mixture:

    s = p * weight / sqrt(v + eps),   W <- s W,   b <- p bias - s m

The statistics of a layer depend on the layers before it, so the support set runs through the network once, in double
precision. Blocks and operations describe their layers (`Block.fold`, `Operation.fold`); this module knows none by name.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.core.types import Params
from metadarts.networks import Block, Network
from metadarts.operations import EPS, Map, Pair


def freeze(
    network: Network, params: Params, images: Tensor, weights: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Any], Params]:
    """The structure and the tensors of the plain classifier that equals ``network`` with its support set's statistics.

    Args:
        network: supernet or discrete network.
        params: of one task, without a task axis, `head.weight` [ways, F] and `head.bias` [ways] among them.
        images: the support set [S, C, H, W] as the network takes it: scaled, normalised.
        weights: cell type -> [E, P] instead of the relaxed alphas.

    Returns:
        {"layers", "features"} for `plain.Classifier`, and its float32 tensors except "mean" and "std".

    Raises:
        ConfigError: for an operation without ``fold``.
    """
    record = _Record()
    double = {name: tensor.detach().cpu().double() for name, tensor in params.items()}
    tables = None if weights is None else {kind: table.detach().cpu().double() for kind, table in weights.items()}

    def layers_of(block: Block) -> _Layers:
        own = {name[len(block.prefix) :]: t for name, t in double.items() if name.startswith(block.prefix)}
        return _Layers(record, block.prefix.rstrip("."), own)

    with torch.no_grad():
        features = network.fold(layers_of, double, Map(images.detach().cpu().double(), 0), tables)
    layers, tensors = record.finished()
    tensors |= {f"head.{part}": double[f"head.{part}"] for part in ("weight", "bias")}
    structure = {"layers": layers, "features": features.values.shape[1]}
    return structure, {name: tensor.float().contiguous() for name, tensor in tensors.items()}


class _Layer(NamedTuple):
    """A layer that was written down: where, what it reads, its kind and options for `plain`, its tensors."""

    scope: str
    reads: tuple[int, ...]
    kind: str
    options: tuple[Any, ...]
    tensors: Params


@dataclass
class _Record:
    """The layers of a network as they come into being.

    Args:
        layers: in order.
        again: weight -> output and tensors of the last layer, where it is affine.
    """

    layers: list[_Layer] = field(default_factory=list)
    again: Callable[[float], tuple[Tensor, Params]] | None = None

    def add(self, layer: _Layer, values: Tensor) -> Map:
        self.layers.append(layer)
        self.again = None
        return Map(values, len(self.layers))

    def finished(self) -> tuple[list[list[Any]], Params]:
        """The layers as JSON, and the tensors, named after their scope and, where that has several layers, a place."""
        sizes, places = Counter(layer.scope for layer in self.layers), Counter[str]()
        told: list[list[Any]] = []
        tensors: Params = {}
        for scope, reads, kind, options, own in self.layers:
            name = scope if sizes[scope] == 1 else f"{scope}.{places[scope]}"
            places[scope] += 1
            plain = [list(option) if isinstance(option, tuple) else option for option in options]
            told.append([name if own else "", list(reads), kind, *plain])
            tensors |= _under(name, own)
        return told, tensors


@dataclass(frozen=True)
class _Layers:
    """Writes down the layers of a block, of a part of it or of an operation: `metadarts.networks.BlockFolding`.

    Args:
        record: of the whole network.
        scope: what the names of the tensors begin with.
        params: the own parameters, in double precision.
        stride, pool_norm: of an edge.
    """

    record: _Record
    scope: str
    params: Params
    stride: int = 1
    pool_norm: bool = False

    def part(self, name: str) -> _Layers:
        return _Layers(self.record, f"{self.scope}.{name}", self.params)

    def edge(self, name: str, own: Params, *, stride: int, pool_norm: bool) -> _Layers:
        return _Layers(self.record, f"{self.scope}.{name}", own, stride, pool_norm)

    def own(self, name: str) -> Tensor:
        return self.params[name]

    def relu(self, x: Map) -> Map:
        return self._plain("relu", (x,), F.relu(x.values))

    def max_pool(self, x: Map, kernel: Pair, *, stride: Pair, padding: Pair = 0) -> Map:
        window, step, spare = _pairs(kernel, stride, padding)
        return self._plain("max_pool", (x,), F.max_pool2d(x.values, window, step, spare), window, step, spare)

    def average_pool(self, x: Map, kernel: Pair, *, stride: Pair, padding: Pair = 0) -> Map:
        window, step, spare = _pairs(kernel, stride, padding)
        pooled = F.avg_pool2d(x.values, window, step, spare, count_include_pad=False)
        return self._plain("avg_pool", (x,), pooled, window, step, spare)

    def add(self, *maps: Map) -> Map:
        return self._plain("add", maps, functools.reduce(torch.add, [x.values for x in maps]))

    def concatenate(self, *maps: Map) -> Map:
        return self._plain("cat", maps, torch.cat([x.values for x in maps], dim=1))

    def every_second(self, x: Map) -> Map:
        return self._plain("every_second", (x,), x.values[:, :, ::2, ::2])

    def mean(self, x: Map) -> Map:
        return self._plain("mean", (x,), x.values.mean((2, 3)))

    def flatten(self, x: Map) -> Map:
        return self._plain("flatten", (x,), x.values.permute(0, 2, 3, 1).flatten(1))

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
        spread = _pairs(stride, padding, dilation)
        u = F.conv2d(x.values, kernel, bias, spread[0], spread[1], spread[2], groups)
        biased = bias is not None or norm is not None

        def tensors(scale: Tensor, offset: Tensor) -> Params:
            whole = offset if bias is None else offset + scale * bias
            return {"weight": kernel * _wide(scale)[..., None]} | ({"bias": whole} if biased else {})

        outer, inner, *size = kernel.shape
        options = (inner * groups, outer, tuple(size), *spread, groups, biased)
        return self._affine("conv", (x,), u, norm, tensors, *options)

    def halve(self, x: Map, even: Tensor, odd: Tensor, norm: str) -> Map:
        rectified = F.relu(x.values)
        shifted = F.pad(rectified, (0, 1, 0, 1))[:, :, 1:, 1:]
        u = torch.cat([F.conv2d(rectified, even, stride=2), F.conv2d(shifted, odd, stride=2)], dim=1)
        kernels = torch.cat([even, odd])

        def tensors(scale: Tensor, offset: Tensor) -> Params:
            whole, cut = kernels * _wide(scale)[..., None], len(even)
            first, second = {"weight": whole[:cut], "bias": offset[:cut]}, {"weight": whole[cut:], "bias": offset[cut:]}
            return _under("even", first) | _under("odd", second)

        return self._affine("halve", (x,), u, norm, tensors, even.shape[1])

    def batch_norm(self, x: Map, name: str) -> Map:
        return self._scale(x, name)

    def weighed(self, x: Map, weight: float) -> Map:
        record = self.record
        last = x.number == len(record.layers) and record.layers[-1].scope == self.scope
        if not (last and record.again):
            x = self._scale(x, None)
        assert record.again is not None
        values, tensors = record.again(weight)
        record.layers[-1], record.again = record.layers[-1]._replace(tensors=tensors), None
        return Map(values, x.number)

    def _scale(self, x: Map, norm: str | None) -> Map:
        def tensors(scale: Tensor, offset: Tensor) -> Params:
            return {"weight": _wide(scale), "bias": _wide(offset)}

        return self._affine("scale", (x,), x.values, norm, tensors, x.values.shape[1])

    def _plain(self, kind: str, reads: tuple[Map, ...], values: Tensor, *options: Any) -> Map:
        """A layer without tensors."""
        return self.record.add(_Layer(self.scope, tuple(x.number for x in reads), kind, options, {}), values)

    def _affine(
        self,
        kind: str,
        reads: tuple[Map, ...],
        u: Tensor,
        norm: str | None,
        tensors: Callable[[Tensor, Tensor], Params],
        *options: Any,
    ) -> Map:
        """A layer that computes u and takes ``norm`` in; ``tensors`` are its own, of factor and offset [C]."""
        record = self.record

        def weighed(weight: float) -> tuple[Tensor, Params]:
            scale, offset = self._folded(u, norm, weight)
            return u * _wide(scale) + _wide(offset), tensors(scale, offset)

        values, own = weighed(1.0)
        made = record.add(_Layer(self.scope, tuple(x.number for x in reads), kind, options, own), values)
        record.again = weighed
        return made

    def _folded(self, u: Tensor, norm: str | None, share: float) -> tuple[Tensor, Tensor]:
        """Factor and offset [C] that normalise u [S, C, h, w] by its own statistics, see the module's formula."""
        if norm is None:
            return u.new_full((u.shape[1],), share), u.new_zeros(u.shape[1])
        mean = u.mean((0, 2, 3))
        variance = u.var((0, 2, 3), correction=0)
        weight = self.params.get(f"{norm}.weight", torch.ones_like(mean))
        bias = self.params.get(f"{norm}.bias", torch.zeros_like(mean))
        scale = share * weight / (variance + EPS).sqrt()
        return scale, share * bias - scale * mean


def _pairs(*sizes: Pair) -> tuple[tuple[int, int], ...]:
    return tuple((size, size) if isinstance(size, int) else size for size in sizes)


def _wide(channels: Tensor) -> Tensor:
    """[C] -> [C, 1, 1]."""
    return channels[:, None, None]


def _under(name: str, tensors: Params) -> Params:
    return {f"{name}.{part}": tensor for part, tensor in tensors.items()}
