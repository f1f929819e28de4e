"""Folded 1x1 convolution: one matrix per group (task, edge), no copies to separate the groups.

Bilinear, so the three products y = x w, dx = g w', dw = x' g close under differentiation (README.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """y[..., g, o] = sum_i x[..., g, i] weight[g, i, o].

    Args:
        x: [N, H, W, G * I] folded images.
        weight: [G, I, O].

    Returns:
        [N, H, W, G * O]
    """
    y: Tensor = _Product.apply(x, weight, False)
    return y


def _product(x: Tensor, weight: Tensor, transpose: bool) -> Tensor:
    if transpose:
        weight = weight.mT
    groups, inner, outer = weight.shape
    rows = x.reshape(-1, groups, inner)
    y = x.new_empty(rows.shape[0], groups, outer)
    torch.bmm(rows.transpose(0, 1), weight, out=y.transpose(0, 1))
    return y.view(*x.shape[:-1], groups * outer)


def _outer(x: Tensor, g: Tensor, groups: int) -> Tensor:
    """[N, H, W, G * I], [N, H, W, G * O] -> [G, I, O]: the sum over pixels of their outer products."""
    rows, grads = (t.reshape(-1, groups, t.shape[-1] // groups) for t in (x, g))
    return torch.bmm(rows.permute(1, 2, 0), grads.transpose(0, 1))


class _Product(Function):
    """y = x w, or x w' when ``transpose``."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, transpose: bool) -> Tensor:
        return _product(x, weight, transpose)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.transpose = inputs[2]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        need_x, need_w, _ = ctx.needs_input_grad
        dx = _Product.apply(g, weight, not ctx.transpose) if need_x else None
        pair = (g, x) if ctx.transpose else (x, g)
        dw = _Outer.apply(*pair, weight.shape[0]) if need_w else None
        return dx, dw, None


class _Outer(Function):
    """dw = x' g, per group."""

    @staticmethod
    def forward(x: Tensor, g: Tensor, groups: int) -> Tensor:
        return _outer(x, g, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Any, ...]:
        x, g = ctx.saved_tensors
        need_x, need_g, _ = ctx.needs_input_grad
        dx = _Product.apply(g, u, True) if need_x else None
        dg = _Product.apply(x, u, False) if need_g else None
        return dx, dg, None
