"""Gamma variates as functions of their shape: the quantile function, differentiable to any order."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

SHAPES = (1e-3, 100.0)
"""Shapes a between which quantiles are exact to rounding."""
TERMS = 192
"""Of the series of the distribution function: enough for the largest shape at the largest number that is drawn."""
STEPS = 40
FAR = -25.0
"""Below this y the series' first term is the distribution function to double precision."""


def uniform_open(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform numbers above 0 and below 1, float32."""
    drawn = torch.rand(shape, generator=generator, dtype=torch.float64)
    return drawn.clamp(2.0**-53, 1.0 - 2.0**-24).float()


def log_gamma_quantile(shape: Tensor, uniform: Tensor) -> Tensor:
    """y with P(a, exp y) = u: the logarithm of a Gamma(a, 1) number, for uniform u.

    It is logarithmic, because variates of small shapes are smaller than any float. Its derivative in a at the same u is
    the implicit one (Figurnov et al., NeurIPS 2018), dy/da = -(dP/da) / (dP/dy): here an explicit function of a and y,
    so that it can be differentiated itself.

    Args:
        shape: a, float64 within `SHAPES`.
        uniform: u of that shape; not differentiated.
    """
    y: Tensor = _LogQuantile.apply(shape, uniform)
    return y


class _LogQuantile(Function):
    """(a, u) -> y."""

    @staticmethod
    def forward(shape: Tensor, uniform: Tensor) -> Tensor:
        return _solved(shape, uniform.log())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream * _slope(*ctx.saved_tensors), None


def _solved(a: Tensor, log_u: Tensor) -> Tensor:
    """Newton's method on log P(a, exp y) = log u from below.

    log P is concave in y, and P(a, x) <= x^a / Gamma(a + 1): each step stays below the root and comes closer.
    """
    log_first = torch.lgamma(a + 1.0)
    y = (log_u + log_first) / a
    for _ in range(STEPS):
        x = y.exp()
        near = torch.special.gammainc(a, x.clamp(min=math.exp(FAR))).log()
        log_p = torch.where(y > FAR, near, a * y - log_first)
        y = y - (log_p - log_u) * (log_p - _log_density(a, y)).exp()
    return y


def _log_density(a: Tensor, y: Tensor) -> Tensor:
    """log dP/dy = a y - exp y - log Gamma(a)."""
    return a * y - y.exp() - torch.lgamma(a)


def _slope(a: Tensor, y: Tensor) -> Tensor:
    """dy/da = (P / P_y) (E digamma(a + n + 1) - y).

    P(a, x) = exp(-x) sum_n x^(a + n) / Gamma(a + n + 1), all terms above 0; E is the mean under them.
    """
    orders = (a.unsqueeze(-1) + torch.arange(TERMS, device=a.device)) + 1.0
    terms = (orders - 1.0) * y.unsqueeze(-1) - torch.lgamma(orders)
    log_p = terms.logsumexp(-1) - y.exp()
    mean = (terms.softmax(-1) * torch.digamma(orders)).sum(-1)
    return (log_p - _log_density(a, y)).exp() * (mean - y)
