"""From task parameters and a support set to a plain classifier's tensors: batch norm becomes a factor and an offset.

Under the policy ``support`` a batch norm's mean m and variance v are those of the support set alone, whatever else is
in the batch: constants of the task. So weight * (u - m) / sqrt(v + eps) + bias is affine in u, and what computes u
takes it in, together with the edge's weight p in the mixture:

    s = p * weight / sqrt(v + eps),   W <- s W,   b <- p bias - s m

The statistics of a layer depend on the layers before it, so the support set is run through once, in double precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.core.types import Params
from metadarts.networks import Network

EPS = 1e-5
"""Of every batch norm in `metadarts.ops`."""

Edge = tuple[int, int, str, int]
"""(node, source state, operation, stride)."""


def freeze(
    network: Network, params: Params, images: Tensor, weights: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Any], Params]:
    """The structure and the tensors of the plain classifier equal to ``network`` under its support set's statistics.

    Args:
        network: supernet or discrete network.
        params: of one task, without a task axis, `head.weight` [ways, F] and `head.bias` [ways] among them.
        images: the support set [S, C, H, W] as the network takes it: scaled, normalised.
        weights: cell kind -> [E, P] in place of the softmax of the alphas.

    Returns:
        {"stem", "cells"} for `plain.Classifier`, and its float32 tensors but "mean" and "std".
    """
    walk = _Walk({name: tensor.detach().cpu().double() for name, tensor in params.items()})
    mixing = _mixing(network, walk.params, weights)
    with torch.no_grad():
        x = walk.stem(images.detach().cpu().double())
        before, cells = x, []
        for index, cell in enumerate(network.cells):
            edges = _edges(network, index, mixing)
            before, x = x, walk.cell(network, index, edges, mixing.get(cell.kind), before, x)
            spec = {"kind": cell.kind, "channels": cell.channels, "inputs": list(cell.inputs)}
            cells.append(spec | {"concat": list(cell.concat), "edges": [list(edge) for edge in edges]})
    tensors = walk.tensors | {f"head.{part}": walk.params[f"head.{part}"] for part in ("weight", "bias")}
    structure = {"stem": list(network.spec.stem), "cells": cells}
    return structure, {name: tensor.float().contiguous() for name, tensor in tensors.items()}


def _mixing(network: Network, params: Params, weights: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    if network.genotype is not None:
        return {}
    tables = network.weights_of(params) if weights is None else weights
    return {kind: table.detach().cpu().double() for kind, table in tables.items()}


def _edges(network: Network, index: int, mixing: Mapping[str, Tensor]) -> list[Edge]:
    """What runs in cell ``index``, by node, source and operation; in a mixture only what has a weight."""
    cell, space = network.cells[index], network.space
    found = [
        (node, source, name, cell.stride(source))
        for name, edges in cell.active.items()
        for node, source in edges
        if not mixing or mixing[cell.kind][space.edge_index(node, source), space.primitives.index(name)] != 0
    ]
    return sorted(found, key=lambda edge: (edge[0], edge[1], space.primitives.index(edge[2])))


@dataclass
class _Walk:
    """One pass of the support set through a network, in the course of which the plain tensors come into being."""

    params: Params
    tensors: Params = field(default_factory=dict)

    def stem(self, x: Tensor) -> Tensor:
        for index, place in ((1, 0), (2, 3)):
            kernel = self.params[f"stem.conv{index}"]
            u = F.conv2d(F.relu(x) if index == 2 else x, kernel, padding=kernel.shape[-1] // 2)
            scale, bias = _folded(u, self._affine(f"stem.norm{index}", None))
            self._convolution(f"stem.{place}", kernel, scale, bias)
            x = F.max_pool2d(_scaled(u, scale, bias), 2)
        return x

    def cell(
        self, network: Network, index: int, edges: list[Edge], table: Tensor | None, before: Tensor, last: Tensor
    ) -> Tensor:
        spec, space, prefix = network.cells[index], network.space, f"cells.{index}"
        if before.shape[-2:] != last.shape[-2:]:
            before = before[:, :, ::2, ::2]
        states = [self._preprocess(f"{prefix}.preprocess{j}", prefix, j, x) for j, x in enumerate((before, last))]
        for node in range(spec.nodes):
            total = None
            for place, (to, source, name, stride) in enumerate(edges):
                if to != node:
                    continue
                share = 1.0
                if table is not None:
                    share = float(table[space.edge_index(node, source), space.primitives.index(name)])
                at_stride = [edge for edge in spec.active[name] if spec.stride(edge[1]) == stride]
                own = f"{prefix}.{name}." + ("stride2." if stride == 2 else "")
                edge = _Edge(own, at_stride.index((node, source)), f"{prefix}.edges.{place}", share, spec.pool_norm)
                y = self._operation(edge, name, stride, states[source])
                total = y if total is None else total + y
            if total is None:
                raise ValueError(f"node {node} of cell {index} has no edge of weight above 0")
            states.append(total)
        return torch.cat([states[state] for state in spec.concat], dim=1)

    def _preprocess(self, name: str, prefix: str, place: int, x: Tensor) -> Tensor:
        mixing = self.params[f"{name}.conv"].T[:, :, None, None]
        u = F.conv2d(F.relu(x), mixing)
        scale, bias = _folded(u, self._affine(f"{name}.norm", None))
        self._convolution(f"{prefix}.preprocess.{place}.1", mixing, scale, bias)
        return _scaled(u, scale, bias)

    def _operation(self, edge: _Edge, name: str, stride: int, x: Tensor) -> Tensor:
        if name == "skip_connect":
            return self._halve(edge, x) if stride == 2 else self._keep(edge, x)
        if "pool" in name:
            return self._pool(edge, name, stride, x)
        dilation, halves = (2, 1) if name.startswith("dil") else (1, 2)
        for half in range(1, halves + 1):
            last = half == halves
            x = self._separable(edge, half, stride if half == 1 else 1, dilation, edge.share if last else 1.0, x)
        return x

    def _separable(self, edge: _Edge, half: int, stride: int, dilation: int, share: float, x: Tensor) -> Tensor:
        filters = self._own(edge, f"depthwise{half}").unsqueeze(1)
        mixing = self._own(edge, f"pointwise{half}").T[:, :, None, None]
        padding = dilation * (filters.shape[-1] // 2)
        u = F.conv2d(F.conv2d(F.relu(x), filters, None, stride, padding, dilation, len(filters)), mixing)
        scale, bias = _folded(u, self._affine(f"{edge.params}norm{half}", edge.row), share)
        place = 3 * (half - 1)  # each half is a ReLU and two convolutions
        self.tensors[f"{edge.target}.{place + 1}.weight"] = filters
        self._convolution(f"{edge.target}.{place + 2}", mixing, scale, bias)
        return _scaled(u, scale, bias)

    def _pool(self, edge: _Edge, name: str, stride: int, x: Tensor) -> Tensor:
        if name.startswith("max"):
            u = F.max_pool2d(x, 3, stride, 1)
        else:
            u = F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
        if edge.pool_norm:
            scale, bias = _folded(u, None, edge.share)
        else:
            scale, bias = u.new_full((u.shape[1],), edge.share), u.new_zeros(u.shape[1])
        self._scale(f"{edge.target}.1", scale, bias)
        return _scaled(u, scale, bias)

    def _keep(self, edge: _Edge, x: Tensor) -> Tensor:
        self._scale(edge.target, x.new_full((x.shape[1],), edge.share), x.new_zeros(x.shape[1]))
        return edge.share * x

    def _halve(self, edge: _Edge, x: Tensor) -> Tensor:
        x = F.relu(x)
        even, odd = (self._own(edge, part).T[:, :, None, None] for part in ("even", "odd"))
        shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        u = torch.cat([F.conv2d(x, even, stride=2), F.conv2d(shifted, odd, stride=2)], dim=1)
        scale, bias = _folded(u, self._affine(f"{edge.params}norm", edge.row), edge.share)
        cut = len(even)
        self._convolution(f"{edge.target}.even", even, scale[:cut], bias[:cut])
        self._convolution(f"{edge.target}.odd", odd, scale[cut:], bias[cut:])
        return _scaled(u, scale, bias)

    def _own(self, edge: _Edge, name: str) -> Tensor:
        return self.params[edge.params + name][edge.row]

    def _affine(self, name: str, row: int | None) -> tuple[Tensor, Tensor] | None:
        """The learned weight and bias of norm ``name``, where it has them."""
        if f"{name}.weight" not in self.params:
            return None
        weight, bias = self.params[f"{name}.weight"], self.params[f"{name}.bias"]
        return (weight, bias) if row is None else (weight[row], bias[row])

    def _convolution(self, name: str, kernel: Tensor, scale: Tensor, bias: Tensor) -> None:
        self.tensors[f"{name}.weight"] = kernel * scale[:, None, None, None]
        self.tensors[f"{name}.bias"] = bias

    def _scale(self, name: str, scale: Tensor, bias: Tensor) -> None:
        self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"] = scale[:, None, None], bias[:, None, None]


@dataclass(frozen=True)
class _Edge:
    """Where an edge's tensors come from and go to.

    Args:
        params: what the names of the network's own tensors begin with; they hold one slice per edge.
        row: this edge's slice.
        target: what the names of the plain tensors begin with.
        share: the operation's weight in the mixture, 1 in a discrete cell.
        pool_norm: whether pools are followed by batch norm.
    """

    params: str
    row: int
    target: str
    share: float
    pool_norm: bool


def _folded(u: Tensor, affine: tuple[Tensor, Tensor] | None, share: float = 1.0) -> tuple[Tensor, Tensor]:
    """Factor and offset [C] that normalise u [S, C, h, w] by its own statistics, see the module's formula."""
    mean = u.mean((0, 2, 3))
    variance = u.var((0, 2, 3), correction=0)
    weight, bias = affine if affine is not None else (torch.ones_like(mean), torch.zeros_like(mean))
    scale = share * weight / (variance + EPS).sqrt()
    return scale, share * bias - scale * mean


def _scaled(u: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return u * scale[:, None, None] + bias[:, None, None]
