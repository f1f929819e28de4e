"""Pool: 3x3 maximum or average, then batch norm, as one operator with exact second derivatives.

Once the positions of the maxima are known, both pools are linear, y = normalise(P x), so the derivatives are those of
`normalise` between P and its transpose (README.md). The Function's outputs are (y, r), as there.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from metadarts.core.errors import ConfigError, nearest
from metadarts.ops.choice import AUTO, choose
from metadarts.ops.normalise.op import normalise
from metadarts.ops.shapes import check_shape
from metadarts.ops.statistics import folded_rows, shares

from . import reference

OFFERED = ("cpu", "triton", "folded", "reference")
bare_pool = reference.bare_pool
KINDS = ("max", "avg")
MOST_PIXELS = 2**24
"""On the CPU the places of maxima are kept as float32, which counts so far."""


class Options(NamedTuple):
    """Which pool, its stride, what is added to the variance; "cpu" or "triton"."""

    kind: str
    stride: int
    eps: float
    kernels: str


def pool(
    x: Tensor,
    kind: str,
    stride: int = 1,
    rows: Tensor | None = None,
    eps: float = 1e-5,
    implementation: str = AUTO,
) -> Tensor:
    """y = normalise(pool(x)) over windows of 3x3; pixels beyond the border count in neither pool.

    Args:
        x: [T, N, H, W, C].
        kind: "max" or "avg".
        stride: of the windows.
        rows: [T, N], the weight of image n in task t's statistics, summing to 1 over n; None is 1/N each.
        eps: added to the variance.
        implementation: "auto", "cpu", "triton", "folded" or "reference"; see `metadarts.ops.choice`.

    Returns:
        [T, N, ceil(H / stride), ceil(W / stride), C]

    Raises:
        ConfigError: for an unknown kind, or an implementation that cannot run.
        ValueError: for inconsistent shapes.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown pool {kind!r}: {nearest(kind, KINDS)}")
    check_shape("pool", "x", x, (None,) * 5)
    if stride < 1:
        raise ValueError(f"pool: expected a stride of at least 1, got {stride}")
    if rows is not None:
        check_shape("pool", "rows", rows, tuple(x.shape[:2]))
    chosen = choose("pool", implementation, OFFERED, x)
    if chosen == "cpu" and x.shape[2] * x.shape[3] > MOST_PIXELS:
        raise ValueError(f"pool: expected images of at most {MOST_PIXELS} pixels, got {x.shape[2]}x{x.shape[3]}")
    if chosen == "reference":
        return reference.pool(x, kind, stride, rows, eps)
    options = Options(kind, stride, float(eps), chosen)
    if chosen == "folded":
        return _folded(x, rows, options)
    weights = shares(rows, x, x.shape[1], -(-x.shape[2] // stride) * -(-x.shape[3] // stride))
    y: Tensor = _Pool.apply(x, weights, options)[0]
    return y


def _folded(x: Tensor, rows: Tensor | None, options: Options) -> Tensor:
    """Tasks folded into channels, then torch's pool and our normalise."""
    a = bare_pool(x, options.kind, options.stride).permute(1, 2, 3, 0, 4)
    folded = a.flatten(3)
    y: Tensor = normalise(folded, folded_rows(rows, folded), options.eps).unflatten(-1, a.shape[3:])
    return y.permute(3, 0, 1, 2, 4)


def _kernels(options: Options) -> ModuleType:
    """The module of the kernels chosen; its `forward`, `gradient` and `second` are never mixed with another's."""
    if options.kernels == "triton":
        from . import triton_kernels

        return triton_kernels
    from . import cpu

    return cpu


class _Pool(Function):
    """x -> (y, r, which): [T, N, h, w, C], [T, C], and the place of each maximum (empty for averages)."""

    @staticmethod
    def forward(x: Tensor, shares: Tensor, options: Options) -> tuple[Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor] = _kernels(options).forward(x, shares, options)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[2])
        ctx.save_for_backward(inputs[1], *output)
        ctx.size, ctx.options = tuple(inputs[0].shape), inputs[2]

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, pull_r: Tensor | None, _: Any) -> tuple[Any, ...]:
        shares, y, r, which = ctx.saved_tensors
        if g is None and pull_r is None:
            return None, None, None
        g = torch.zeros_like(y) if g is None else g
        if pull_r is None:
            return _PoolGradient.apply(g, y, r, which, shares, ctx.size, ctx.options), None, None
        if torch.is_grad_enabled():
            raise RuntimeError("pool: no third derivative; differentiate the meta-gradient no further")
        d_x = _kernels(ctx.options).gradient(g, pull_r, y, r, which, shares, ctx.size, ctx.options)
        return d_x, None, None


class _PoolGradient(Function):
    """(g, y, r) -> dx. Differentiable once more; a third derivative is refused rather than wrong."""

    @staticmethod
    def forward(
        g: Tensor, y: Tensor, r: Tensor, which: Tensor, shares: Tensor, size: tuple[int, ...], options: Options
    ) -> Tensor:
        d_x: Tensor = _kernels(options).gradient(g, None, y, r, which, shares, size, options)
        return d_x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:5])
        ctx.options = inputs[6]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("pool: no third derivative; differentiate the meta-gradient no further")
        g, y, r, which, shares = ctx.saved_tensors
        return *_kernels(ctx.options).second(v, g, y, r, which, shares, ctx.options), None, None, None, None
