"""Convolutional block: k x k convolution, batch norm with scale and bias, 2x2 max pooling; exact to second order.

The stage of the T-NAS stem, and of MAML's 4CONV network (there with a ReLU between blocks). The Function's outputs are
(y, normed, r, which), so that everything that its derivatives need is an input or an output (README.md).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from metadarts.ops.choice import AUTO, choose
from metadarts.ops.convolution.op import convolution
from metadarts.ops.normalise.op import normalise
from metadarts.ops.shapes import check_kernel, check_shape
from metadarts.ops.statistics import folded_rows, shares

from . import reference

OFFERED = ("cpu", "triton", "folded", "reference")


class Options(NamedTuple):
    """Whether x goes through a ReLU first; what is added to the variance; "cpu" or "triton"."""

    rectify: bool
    eps: float
    kernels: str


def conv_block(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor,
    rows: Tensor | None = None,
    rectify: bool = False,
    eps: float = 1e-5,
    implementation: str = AUTO,
) -> Tensor:
    """y = max_pool(scale * normalise(convolution(x)) + bias), with relu(x) instead of x if ``rectify``.

    Args:
        x: [T, N, H, W, C], H and W at least 2.
        weight: [T, O, C, k, k], k odd; zero padding "same".
        scale: [T, O].
        bias: [T, O].
        rows: [T, N], the weight of image n in task t's statistics, summing to 1 over n; None is 1/N each.
        rectify: whether a ReLU is applied to x.
        eps: added to the variance.
        implementation: "auto", "cpu", "triton", "folded" or "reference"; see `metadarts.ops.choice`.

    Returns:
        [T, N, H // 2, W // 2, O]

    Raises:
        ConfigError: when the requested implementation cannot run on these tensors.
        ValueError: for inconsistent shapes.
    """
    _check(x, weight, scale, bias, rows)
    chosen = choose("conv_block", implementation, OFFERED, x, weight, scale, bias)
    if chosen == "reference":
        return reference.conv_block(x, weight, scale, bias, rows, rectify, eps)
    options = Options(rectify, float(eps), chosen)
    if chosen == "folded":
        return _folded(x, weight, scale, bias, rows, options)
    weights = shares(rows, x, x.shape[1], x.shape[2] * x.shape[3])
    y: Tensor = _Block.apply(x, weight, scale, bias, weights, options)[0]
    return y


def _check(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, rows: Tensor | None) -> None:
    check_shape("conv_block", "x", x, (None,) * 5)
    tasks, images, height, width, channels = x.shape
    check_shape("conv_block", "weight", weight, (tasks, None, channels, None, None))
    check_kernel("conv_block", weight)
    for what, tensor in (("scale", scale), ("bias", bias)):
        check_shape("conv_block", what, tensor, (tasks, weight.shape[1]))
    if rows is not None:
        check_shape("conv_block", "rows", rows, (tasks, images))
    if min(height, width) < 2:
        raise ValueError(f"conv_block: expected images of at least 2x2 for 2x2 pooling, got {height}x{width}")


def _folded(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, rows: Tensor | None, options: Options) -> Tensor:
    """By torch's operators and ours, tasks folded into channels."""
    tasks = x.shape[0]
    x = x.permute(1, 2, 3, 0, 4).flatten(3)
    x = convolution(F.relu(x) if options.rectify else x, weight.flatten(0, 1), tasks)
    z = torch.addcmul(bias.flatten(), normalise(x, folded_rows(rows, x), options.eps), scale.flatten())
    pooled = F.max_pool2d(z.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    y: Tensor = pooled.unflatten(-1, (tasks, -1))
    return y.permute(3, 0, 1, 2, 4)


def _kernels(options: Options) -> ModuleType:
    """The module of the kernels chosen; its `forward`, `gradient` and `second` are never mixed with another's."""
    if options.kernels == "triton":
        from . import triton_kernels

        return triton_kernels
    from . import cpu

    return cpu


class _Block(Function):
    """(x, weight, scale, bias) -> (y, normed, r, which); normed [T, N, H, W, O] is the normalised convolution."""

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, shares: Tensor, options: Options
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor, Tensor] = _kernels(options).forward(
            x, weight, scale, bias, shares, options
        )
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[3])
        ctx.save_for_backward(*inputs[:3], inputs[4], *output[1:])
        ctx.options = inputs[5]

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, pull: Tensor | None, pull_r: Tensor | None, _: Any) -> tuple[Any, ...]:
        x, weight, scale, shares, normed, r, which = ctx.saved_tensors
        if g is None and pull is None and pull_r is None:
            return (None,) * 6
        if g is None:
            g = torch.zeros_like(which, dtype=normed.dtype)
        wants_x = ctx.needs_input_grad[0]
        if pull is None and pull_r is None:
            found = _BlockGradient.apply(g, x, weight, scale, normed, r, which, shares, ctx.options, wants_x)
            return *found[:4], None, None
        if torch.is_grad_enabled():
            raise RuntimeError("conv_block: no third derivative; differentiate the meta-gradient no further")
        pulls = (
            torch.zeros_like(normed) if pull is None else pull,
            torch.zeros_like(r) if pull_r is None else pull_r,
        )
        found = _kernels(ctx.options).gradient(
            g, x, weight, scale, normed, r, which, shares, ctx.options, wants_x, pulls
        )
        return *found[:4], None, None


class _BlockGradient(Function):
    """(g, x, weight, scale, normed, r) -> gradients of x, weight, scale and bias. Differentiable once more."""

    @staticmethod
    def forward(
        g: Tensor, x: Tensor, weight: Tensor, scale: Tensor, normed: Tensor, r: Tensor, which: Tensor, shares: Tensor,
        options: Options, wants_x: bool,
    ) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        found: tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor] = _kernels(options).gradient(
            g, x, weight, scale, normed, r, which, shares, options, wants_x, None
        )
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[4])
        ctx.save_for_backward(*inputs[:8], output[4])
        ctx.options, ctx.wants_x = inputs[8:]

    @staticmethod
    def backward(
        ctx: Any, vx: Tensor | None, v_weight: Tensor | None, v_scale: Tensor | None, v_bias: Tensor | None, _: Any
    ) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("conv_block: no third derivative; differentiate the meta-gradient no further")
        if vx is None and v_weight is None and v_scale is None and v_bias is None:
            return (None,) * 10
        g, x, weight, scale, normed, r, which, shares, gu = ctx.saved_tensors
        found = _kernels(ctx.options).second(
            vx, v_weight, v_scale, v_bias, g, x, weight, scale, normed, r, which, shares, gu, ctx.options, ctx.wants_x
        )
        return *found, None, None, None, None
