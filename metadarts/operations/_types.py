"""The definition of an operation of an edge, and its context."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.ops.statistics import normalised

from ._folding import Folding, Map

Shapes = dict[str, tuple[int, ...]]
EPS = 1e-5
"""Of every batch norm."""


@dataclass(frozen=True)
class Statistics:
    """The images over whose activations batch norm averages.

    Args:
        rows: [T, N], the weight of image n in task t's statistics, summing to 1 over n; None weighs all images equally.
        images: the smallest number of images in any task's statistics; None when ``rows`` is None.
    """

    rows: Tensor | None = None
    images: int | None = None

    @staticmethod
    def over(mask: Tensor, images: int | None = None) -> Statistics:
        """Statistics with equal weights for each task's masked images.

        Args:
            mask: [T, N] bool.
            images: smallest number of images that it marks in a task; None reads it, which synchronises a GPU.
        """
        counts = mask.sum(1, keepdim=True)
        rows = mask.double() / counts.clamp(min=1)
        return Statistics(rows, int(counts.min()) if images is None else images)


@dataclass(frozen=True)
class EdgeContext:
    """The context of an operation: its parameters on the edges that leave one source state, the stride, the statistics.

    Args:
        params: the operation's own tensors [T, E, ...].
        stride: 1, or 2 on the edges from the inputs of a reduction cell.
        pool_norm: whether pools are followed by batch norm (search networks) or not (evaluation networks).
        needed: [T, E] bool, the edges of each task on which the output counts; None for all.
    """

    params: Mapping[str, Tensor]
    stride: int
    statistics: Statistics
    pool_norm: bool
    needed: Tensor | None = None

    def affine(self, y: Tensor, name: str) -> Tensor:
        """Apply weight and bias [T, E, C] of norm ``name`` to normalised y [T, E, N, h, w, C], if it has any."""
        weight, bias = (self.params.get(f"{name}.{part}") for part in ("weight", "bias"))
        return y if weight is None or bias is None else affine(y, weight, bias)

    def batch_norm(self, u: Tensor, name: str) -> Tensor:
        """Batch norm ``name`` of u [T, E, N, h, w, C] in plain torch, for operations without a fused kernel."""
        return self.affine(batch_norm(u, self.statistics), name)


class EdgeCost(Protocol):
    """The cost of one edge: (channels, stride, output positions) -> multiply-adds for one image."""

    def __call__(self, channels: int, stride: int, positions: int) -> int: ...


def no_shapes(channels: int, stride: int) -> Shapes:
    """An operation without parameters."""
    return {}


def no_norms(stride: int) -> tuple[str, ...]:
    """An operation without affine batch norms."""
    return ()


def no_cost(channels: int, stride: int, positions: int) -> int:
    """The cost of an operation without multiplications."""
    return 0


def convolution_init(name: str, shape: tuple[int, ...], key: Key) -> Tensor:
    """Torch's default initialisation for convolutions: uniform within 1/sqrt(fan in).

    For filters [E, C, k, k] with "depthwise" in their name, and mixtures of channels [E, C, O].

    Raises:
        ConfigError: for another shape, whose fan in is unknown.
    """
    if len(shape) != (4 if "depthwise" in name else 3):
        raise ConfigError(f"parameter {name!r} of shape {list(shape[1:])}: give its operation an `init` of its own")
    fan_in = math.prod(shape[-2:]) if "depthwise" in name else shape[-2]
    return uniform(shape, fan_in, key)


def uniform(shape: tuple[int, ...], fan_in: int, key: Key) -> Tensor:
    """Float32 numbers drawn uniformly between -1/sqrt(fan in) and 1/sqrt(fan in)."""
    return (2.0 * torch.rand(shape, generator=key.torch()) - 1.0) * (1.0 / math.sqrt(fan_in))


@dataclass(frozen=True)
class Operation:
    """A candidate operation of an edge, computed for all tasks and all edges that leave one state.

    Args:
        run: (state [T, N, H, W, C], context) -> [T, E, N, h, w, C], the outputs of the E edges, or [T, 1, N, h, w, C]
            if they are all equal (pools, identity). None for the zero operation.
        fold: (folding, state) -> output: the same operation on one edge as plain layers, for export.
        shapes: (channels, stride) -> its parameter shapes on one edge, norms left out.
        norms: stride -> names of its batch norms that can be affine.
        init: (own name, shape [E, ...], key) -> initial float32 parameters.
        cost: (channels, stride, output positions) -> multiply-adds of one edge for one image, batch norms excluded.
        shade: its colour in pictures, "#rrggbb"; empty for any.
    """

    run: Callable[[Tensor, EdgeContext], Tensor] | None
    fold: Callable[[Folding, Map], Map] | None = None
    shapes: Callable[[int, int], Shapes] = no_shapes
    norms: Callable[[int], tuple[str, ...]] = no_norms
    init: Callable[[str, tuple[int, ...], Key], Tensor] = convolution_init
    cost: EdgeCost = no_cost
    shade: str = ""

    def weights(self, channels: int, stride: int) -> int:
        """Parameters on one edge, norms left out."""
        return sum(math.prod(shape) for shape in self.shapes(channels, stride).values())


def batch_norm(u: Tensor, statistics: Statistics) -> Tensor:
    """u [T, N, h, w, C] or [T, E, N, h, w, C] normalised per task and channel; half-precision numbers in float32."""
    wide, rows = u.to(torch.promote_types(u.dtype, torch.float32)), statistics.rows
    return normalised(wide, None if rows is None else rows.to(wide), EPS).to(u.dtype)


def affine(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """weight * y + bias, of one number per task, edge and channel; y is [T, E, N, h, w, C], the others [T, E, C]."""
    weight, bias = (t[:, :, None, None, None] for t in (weight, bias))
    return torch.addcmul(bias, y, weight)
