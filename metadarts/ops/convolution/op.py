"""Folded convolution with exact derivatives of every order.

A convolution is bilinear in (x, weight), so three maps close under differentiation (README.md):

    F(x, w) -> y        B(g, w) -> dx        W(x, g) -> dw

torch's own double backward loops over the groups in Python-sized pieces; with tasks folded into groups that loop is the
whole cost of second order. Here each map's backward calls the other two.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

_aten = torch.ops.aten


class Shape(NamedTuple):
    """Static facts of one convolution: kernel size, groups, stride, dilation, and the input's height and width."""

    kernel: int
    groups: int
    stride: int
    dilation: int
    height: int
    width: int

    @property
    def padding(self) -> int:
        return self.dilation * (self.kernel // 2)


def convolution(x: Tensor, weight: Tensor, groups: int, stride: int = 1, dilation: int = 1) -> Tensor:
    """Grouped convolution with zero padding ``dilation * (kernel // 2)`` ("same" for stride 1).

    Args:
        x: [N, H, W, K] folded images.
        weight: [K_out, K / groups, k, k], k odd. ``groups == K == K_out`` is the depthwise case.
        groups: T for a dense convolution of T tasks, K for depthwise.

    Returns:
        [N, ceil(H / stride), ceil(W / stride), K_out]
    """
    shape = Shape(weight.shape[-1], groups, stride, dilation, x.shape[1], x.shape[2])
    y: Tensor = _Forward.apply(x, weight, shape)
    return y


def _nchw(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _folded(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def _forward(x: Tensor, weight: Tensor, s: Shape) -> Tensor:
    steps, pads, spread = [s.stride] * 2, [s.padding] * 2, [s.dilation] * 2
    y = _aten.convolution(_nchw(x.contiguous()), weight, None, steps, pads, spread, False, [0, 0], s.groups)
    return _folded(y)


def _is_depthwise(weight: Tensor, s: Shape) -> bool:
    return weight.shape[0] == s.groups and weight.shape[1] == 1


def _input_gradient(g: Tensor, weight: Tensor, s: Shape) -> Tensor:
    """B: the transposed convolution, [N, h, w, K_out] -> [N, H, W, K]."""
    if _is_depthwise(weight, s):
        return _depthwise_input_gradient(g, weight, s)
    return _native_gradients(None, g, weight, s, (True, False))[0]


def _depthwise_input_gradient(g: Tensor, weight: Tensor, s: Shape) -> Tensor:
    """As a forward convolution with flipped taps: oneDNN's forward is up to 100x faster than its dilated backward."""
    if s.stride > 1:
        spread = g.new_zeros(g.shape[0], s.height, s.width, g.shape[3])
        spread[:, :: s.stride, :: s.stride] = g
        g = spread
    return _forward(g, weight.flip(2, 3), s._replace(stride=1))


def _weight_gradient(x: Tensor, g: Tensor, s: Shape) -> Tensor:
    """W: the correlation of x with g, -> [K_out, K / groups, k, k]."""
    depthwise = x.shape[3] == s.groups == g.shape[3]
    slow_natively = s.kernel * s.dilation > 3 and x.device.type == "cpu" and x.dtype == torch.float32
    if depthwise and slow_natively:
        return _depthwise_weight_gradient(x, g, s)
    weight = x.new_empty(g.shape[3], x.shape[3] // s.groups, s.kernel, s.kernel)
    return _native_gradients(x, g, weight, s, (False, True))[1]


def _depthwise_weight_gradient(x: Tensor, g: Tensor, s: Shape) -> Tensor:
    """As a depthwise convolution whose channels are (image, channel) and whose kernel is g; stride and dilation swap.

    oneDNN's weight gradient of a 5x5 or dilated depthwise is 2 to 10 times slower than this (measured, AVX-512).
    """
    n, h, w, k = g.shape
    images = x.permute(1, 2, 0, 3).reshape(1, s.height, s.width, n * k)
    kernels = g.permute(1, 2, 0, 3).reshape(h, w, n * k).permute(2, 0, 1).unsqueeze(1)
    pads, steps, spread = [s.padding] * 2, [s.dilation] * 2, [s.stride] * 2
    taps = _aten.convolution(_nchw(images), kernels, None, steps, pads, spread, False, [0, 0], n * k)
    taps = taps.reshape(n, k, *taps.shape[2:]).sum(0)
    gradient: Tensor = taps[:, None, : s.kernel, : s.kernel].contiguous()
    return gradient


def _native_gradients(
    x: Tensor | None, g: Tensor, weight: Tensor, s: Shape, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """torch's first-order gradients. With ``x`` None only its shape is needed, and an empty stand-in gives it."""
    if x is None:
        x = g.new_empty(1).expand(g.shape[0], s.height, s.width, weight.shape[1] * s.groups)
    steps, pads, spread = [s.stride] * 2, [s.padding] * 2, [s.dilation] * 2
    mask = [*wanted, False]
    args = (_nchw(g.contiguous()), _nchw(x), weight, None, steps, pads, spread, False, [0, 0], s.groups, mask)
    dx, dw, _ = _aten.convolution_backward(*args)
    return (_folded(dx) if wanted[0] else dx), dw


class _Forward(Function):
    """F(x, w) = y."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, shape: Shape) -> Tensor:
        return _forward(x, weight, shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.shape = inputs[2]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        need_x, need_w, _ = ctx.needs_input_grad
        dx = _InputGradient.apply(g, weight, ctx.shape) if need_x else None
        dw = _WeightGradient.apply(x, g, ctx.shape) if need_w else None
        return dx, dw, None


class _InputGradient(Function):
    """B(g, w) = dx."""

    @staticmethod
    def forward(g: Tensor, weight: Tensor, shape: Shape) -> Tensor:
        return _input_gradient(g, weight, shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.shape = inputs[2]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Any, ...]:
        g, weight = ctx.saved_tensors
        need_g, need_w, _ = ctx.needs_input_grad
        dg = _Forward.apply(v, weight, ctx.shape) if need_g else None
        dw = _WeightGradient.apply(v, g, ctx.shape) if need_w else None
        return dg, dw, None


class _WeightGradient(Function):
    """W(x, g) = dw."""

    @staticmethod
    def forward(x: Tensor, g: Tensor, shape: Shape) -> Tensor:
        return _weight_gradient(x, g, shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.shape = inputs[2]

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Any, ...]:
        x, g = ctx.saved_tensors
        need_x, need_g, _ = ctx.needs_input_grad
        dx = _InputGradient.apply(g, u, ctx.shape) if need_x else None
        dg = _Forward.apply(x, u, ctx.shape) if need_g else None
        return dx, dg, None
