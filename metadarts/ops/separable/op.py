"""Separable convolution: ReLU, depthwise, pointwise, batch norm, as one operator with exact second derivatives.

It is half of a DARTS separable convolution, or a whole dilated one, for all tasks and all edges that leave one state
(Liu et al., ICLR 2019, section 2.1). The Function's outputs are (y, r, d): everything that its derivatives need is then
an input or an output, and autograd sums all contributions to d and y before either is pulled back (README.md).
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
from metadarts.ops.pointwise.op import pointwise as folded_pointwise
from metadarts.ops.shapes import check_kernel, check_shape
from metadarts.ops.statistics import folded_rows, shares

from . import reference
from .reference import masked

OFFERED = ("cpu", "triton", "folded", "reference")


class Options(NamedTuple):
    """Stride and dilation of the depthwise convolution; what is added to the variance; "cpu" or "triton"."""

    stride: int
    dilation: int
    eps: float
    kernels: str


def separable(
    x: Tensor,
    depthwise: Tensor | None,
    pointwise: Tensor,
    rows: Tensor | None = None,
    stride: int = 1,
    dilation: int = 1,
    eps: float = 1e-5,
    needed: Tensor | None = None,
    implementation: str = AUTO,
) -> Tensor:
    """y = normalise(pointwise(depthwise(relu(x)))), without affine terms.

    Args:
        x: [T, E, N, H, W, C], or [T, 1, N, H, W, C] if all edges read the same.
        depthwise: [T, E, C, k, k], k odd, zero padding ``dilation * (k // 2)``; None for a projection, which has no
            depthwise stage.
        pointwise: [T, E, C, O].
        rows: [T, N], the weight of image n in task t's statistics, summing to 1 over n; None is 1/N each.
        stride: of the depthwise convolution; 1 without one.
        dilation: of the depthwise convolution.
        eps: added to the variance.
        needed: [T, E] bool; where False nothing is computed, y is zero and so are all gradients. None is everywhere.
        implementation: "auto", "cpu", "triton", "folded" or "reference"; see `metadarts.ops.choice`.

    Returns:
        [T, E, N, ceil(H / stride), ceil(W / stride), O]

    Raises:
        ConfigError: when the requested implementation cannot run on these tensors.
        ValueError: for inconsistent shapes, or a stride without a depthwise convolution.
    """
    _check(x, depthwise, pointwise, rows, needed)
    if min(stride, dilation) < 1:
        raise ValueError(f"separable: expected a stride and a dilation of at least 1, got {stride} and {dilation}")
    if depthwise is None and stride != 1:
        raise ValueError(f"separable: expected stride 1 without a depthwise convolution, got {stride}")
    given = (x, pointwise) if depthwise is None else (x, depthwise, pointwise)
    chosen = choose("separable", implementation, OFFERED, *given)
    if chosen == "reference":
        return reference.separable(x, depthwise, pointwise, rows, stride, dilation, eps, needed)
    options = Options(stride, dilation, float(eps), chosen)
    if chosen == "folded":
        return masked(_folded(x, depthwise, pointwise, rows, options), needed)
    if chosen == "triton":  # its kernels read packed memory: copied here once, not in every pass
        x, pointwise = x.contiguous(), pointwise.contiguous()
        depthwise = None if depthwise is None else depthwise.contiguous()
    wanted = None if needed is None else needed.to(x.device, torch.int64).contiguous()  # kernels read 64-bit words
    weights = shares(rows, pointwise, x.shape[2], -(-x.shape[3] // stride) * -(-x.shape[4] // stride))
    y: Tensor = _Separable.apply(x, depthwise, pointwise, weights, wanted, options)[0]
    return y


def _check(x: Tensor, depthwise: Tensor | None, pointwise: Tensor, rows: Tensor | None, needed: Tensor | None) -> None:
    check_shape("separable", "pointwise", pointwise, (None,) * 4)
    tasks, edges, channels, _ = pointwise.shape
    shared = x.dim() == 6 and x.shape[1] == 1
    check_shape("separable", "x", x, (tasks, 1 if shared else edges, None, None, None, channels))
    if depthwise is not None:
        check_shape("separable", "depthwise", depthwise, (tasks, edges, channels, None, None))
        check_kernel("separable", depthwise)
    if rows is not None:
        check_shape("separable", "rows", rows, (tasks, x.shape[2]))
    if needed is not None:
        check_shape("separable", "needed", needed, (tasks, edges))


def _folded(x: Tensor, depthwise: Tensor | None, pointwise: Tensor, rows: Tensor | None, options: Options) -> Tensor:
    """By the operators of the stages, tasks and edges folded into channels."""
    tasks, edges = pointwise.shape[:2]
    x = F.relu(x).expand(tasks, edges, *x.shape[2:]).permute(2, 3, 4, 0, 1, 5).flatten(3)
    if depthwise is not None:
        filters = depthwise.flatten(0, 2).unsqueeze(1)
        x = convolution(x, filters, x.shape[-1], options.stride, options.dilation)
    x = folded_pointwise(x, pointwise.flatten(0, 1))
    y: Tensor = normalise(x, folded_rows(rows, x), options.eps).unflatten(-1, (tasks, edges, -1))
    return y.permute(3, 4, 0, 1, 2, 5)


def _kernels(options: Options) -> ModuleType:
    """The module of the kernels chosen; its `forward`, `gradient` and `second` are never mixed with another's."""
    if options.kernels == "triton":
        from . import triton_kernels

        return triton_kernels
    from . import cpu

    return cpu


class _Separable(Function):
    """(x, depthwise, pointwise) -> (y, r, d): [T, E, N, h, w, O], [T, E, O], [T, E, N, h, w, C]."""

    @staticmethod
    def forward(
        x: Tensor,
        depthwise: Tensor | None,
        pointwise: Tensor,
        shares: Tensor,
        needed: Tensor | None,
        options: Options,
    ) -> tuple[Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor] = _kernels(options).forward(
            x, depthwise, pointwise, shares, needed, options
        )
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:5], *output)
        ctx.options = inputs[5]

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, pull_r: Tensor | None, pull_d: Tensor | None) -> tuple[Any, ...]:
        x, depthwise, pointwise, shares, needed, y, r, d = ctx.saved_tensors
        if g is None and pull_r is None and pull_d is None:
            return (None,) * 6
        g = torch.zeros_like(y) if g is None else g
        if pull_r is None and pull_d is None:
            found = _SeparableGradient.apply(g, x, depthwise, pointwise, y, r, d, shares, needed, ctx.options)
            return *found[:3], None, None, None
        if torch.is_grad_enabled():
            raise RuntimeError("separable: no third derivative; differentiate the meta-gradient no further")
        pull_r = torch.zeros_like(r) if pull_r is None else pull_r
        found = _kernels(ctx.options).gradient(
            g, x, depthwise, pointwise, y, r, d, shares, needed, ctx.options, (pull_r, pull_d)
        )
        return *found[:3], None, None, None


class _SeparableGradient(Function):
    """(g, x, depthwise, pointwise, y, r, d) -> gradients of x, depthwise, pointwise. Differentiable once more."""

    @staticmethod
    def forward(
        g: Tensor, x: Tensor, depthwise: Tensor | None, pointwise: Tensor, y: Tensor, r: Tensor, d: Tensor,
        shares: Tensor, needed: Tensor | None, options: Options,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:  # fmt: skip
        found: tuple[Tensor, Tensor | None, Tensor, Tensor] = _kernels(options).gradient(
            g, x, depthwise, pointwise, y, r, d, shares, needed, options, None
        )
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[3])
        ctx.save_for_backward(*inputs[:9], output[3])
        ctx.options = inputs[9]

    @staticmethod
    def backward(ctx: Any, vx: Tensor | None, vw: Tensor | None, vm: Tensor | None, _: Any) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("separable: no third derivative; differentiate the meta-gradient no further")
        if vx is None and vw is None and vm is None:
            return (None,) * 10
        g, x, depthwise, pointwise, y, r, d, shares, needed, gd = ctx.saved_tensors
        found = _kernels(ctx.options).second(
            vx, vw, vm, g, x, depthwise, pointwise, y, r, d, shares, gd, needed, ctx.options
        )
        return *found, None, None, None
