"""Separable convolutions in ReLU-conv-BN order (DARTS, Liu et al., ICLR 2019, section 2.1)."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from metadarts.ops import separable

from ._folding import Folding, Map
from ._types import EdgeContext, Operation, Shapes


def separable_operation(kernel: int, halves: int, dilation: int, shade: str) -> Operation:
    """ReLU, depthwise ``kernel`` x ``kernel``, pointwise, batch norm: ``halves`` times, the first at the stride."""
    return Operation(
        run=partial(_run, halves=halves, dilation=dilation),
        fold=partial(_fold, halves=halves, dilation=dilation),
        shapes=partial(_shapes, kernel=kernel, halves=halves),
        norms=partial(_norms, halves=halves),
        cost=partial(_cost, kernel=kernel, halves=halves),
        shade=shade,
    )


def _run(state: Tensor, context: EdgeContext, *, halves: int, dilation: int) -> Tensor:
    x = _half(state.unsqueeze(1), context, 1, context.stride, dilation)
    for half in range(2, halves + 1):
        x = _half(x, context, half, 1, dilation)
    return x


def _half(x: Tensor, context: EdgeContext, half: int, stride: int, dilation: int) -> Tensor:
    """x is [T, E or 1, N, H, W, C]."""
    depthwise, mixing = context.params[f"depthwise{half}"], context.params[f"pointwise{half}"]
    rows, needed = context.statistics.rows, context.needed
    return context.affine(separable(x, depthwise, mixing, rows, stride, dilation, needed=needed), f"norm{half}")


def _fold(layers: Folding, x: Map, *, halves: int, dilation: int) -> Map:
    for half in range(1, halves + 1):
        filters = layers.own(f"depthwise{half}").unsqueeze(1)
        mixing = layers.own(f"pointwise{half}").T[:, :, None, None]
        stride, padding = layers.stride if half == 1 else 1, dilation * (filters.shape[-1] // 2)
        x = layers.convolution(
            layers.relu(x), filters, stride=stride, padding=padding, dilation=dilation, groups=len(filters)
        )
        x = layers.convolution(x, mixing, norm=f"norm{half}")
    return x


def _shapes(channels: int, stride: int, *, kernel: int, halves: int) -> Shapes:
    table: Shapes = {}
    for half in range(1, halves + 1):
        table[f"depthwise{half}"] = (channels, kernel, kernel)
        table[f"pointwise{half}"] = (channels, channels)
    return table


def _norms(stride: int, *, halves: int) -> tuple[str, ...]:
    return tuple(f"norm{half}" for half in range(1, halves + 1))


def _cost(channels: int, stride: int, positions: int, *, kernel: int, halves: int) -> int:
    return halves * positions * channels * (kernel * kernel + channels)
