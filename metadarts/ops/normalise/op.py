"""Batch normalisation without affine terms, statistics weighted per image, with a closed-form second derivative.

Notation of README.md, per channel; i runs over the pixels of all images, sum(w) = 1:

    m = sum w x,   r = (sum w (x - m)^2 + eps)^(-1/2),   y = (x - m) r
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from metadarts.core.types import HALF_WIDTH

_aten = torch.ops.aten


def normalise(x: Tensor, rows: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Normalise every channel to mean 0 and variance 1 with the given statistics.

    With tasks folded into channels, this is a separate batch norm for each task.

    Args:
        x: [N, H, W, K] folded images.
        rows: [N, K], the weight of image n in channel k's statistics, summing to 1 over n; None is 1/N each. Rows of
            zero are normalised but do not contribute: padding, or queries under the `support` policy.
        eps: added to the variance.

    Returns:
        [N, H, W, K]
    """
    wide = x.float() if x.dtype in HALF_WIDTH else x  # statistics of half-width activations lose what they measure
    y: Tensor = _Normalise.apply(wide, rows, eps)[0]
    return y.to(x.dtype)


def _per_pixel(rows: Tensor | None, x: Tensor) -> Tensor | float:
    """The weight w of each pixel: [N, 1, 1, K], or one number when uniform."""
    pixels = x.shape[1] * x.shape[2]
    return 1.0 / (x.shape[0] * pixels) if rows is None else (rows / pixels)[:, None, None, :]


def _total(x: Tensor) -> Tensor:
    """[N, H, W, K] -> [K], the sum over pixels."""
    return x.sum((0, 1, 2))


def _weighted(x: Tensor, w: Tensor | float) -> Tensor:
    """[N, H, W, K] -> [K], the weighted sum over pixels; pixels are summed first, so that w costs next to nothing."""
    if isinstance(w, float):
        return _total(x) * w
    return (x.sum((1, 2)) * w[:, 0, 0]).sum(0)


def _statistics(x: Tensor, rows: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """y and r."""
    if rows is None:
        y, _, r = _aten.native_batch_norm(x.permute(0, 3, 1, 2), None, None, None, None, True, 0.0, eps)
        return y.permute(0, 2, 3, 1).contiguous(), r
    w = _per_pixel(rows, x)
    centred = x - _weighted(x, w)
    r = (_weighted(centred * centred, w) + eps).rsqrt()
    return centred * r, r


def _first(g: Tensor, g_r: Tensor | None, y: Tensor, r: Tensor, rows: Tensor | None) -> Tensor:
    """dx = r (g - w (sum g + y sum(g y))) - g_r r^2 w y."""
    w = _per_pixel(rows, y)
    along_y = r * _total(g * y)
    if g_r is not None:
        along_y = along_y + g_r * r * r
    constant = r * _total(g)
    if isinstance(w, float):
        dx = torch.addcmul(-constant * w, g, r)
        return dx.addcmul_(y, along_y, value=-w)
    return torch.addcmul(g * r, torch.addcmul(constant, y, along_y), w, value=-1.0)


class _Normalise(Function):
    """x -> (y, r). Both are outputs, so the second derivative may flow through either without keeping x."""

    @staticmethod
    def forward(x: Tensor, rows: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
        return _statistics(x.contiguous(), rows, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output, inputs[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, g_r: Tensor | None) -> tuple[Any, ...]:
        y, r, rows = ctx.saved_tensors
        if g is None and g_r is None:
            return None, None, None
        g = torch.zeros_like(y) if g is None else g
        return _NormaliseGradient.apply(g, g_r, y, r, rows), None, None


class _NormaliseGradient(Function):
    """(g, g_r, y, r) -> dx. Differentiable once more; a third derivative is refused rather than wrong."""

    @staticmethod
    def forward(g: Tensor, g_r: Tensor | None, y: Tensor, r: Tensor, rows: Tensor | None) -> Tensor:
        return _first(g, g_r, y, r, rows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("normalise: no third derivative; differentiate the meta-gradient no further")
        g, _, y, r, rows = ctx.saved_tensors  # g_r is None here: it exists from the second derivative on
        w = _per_pixel(rows, y)
        sum_g, sum_gy = _total(g), _total(g * y)
        mean_v, vy = _weighted(v, w), v * y
        mean_vy = _weighted(vy, w)
        d_g = torch.addcmul(torch.addcmul(-r * mean_v, v, r), y, r * mean_vy, value=-1.0)
        wv = v * w
        d_y = torch.addcmul(wv * (-r * sum_gy), g, r * mean_vy, value=-1.0)
        d_r = _total(v * g) - mean_v * sum_g - mean_vy * sum_gy
        return d_g, None, d_y, d_r, None
