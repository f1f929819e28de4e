"""Gumbel noise and one-hot weights."""

from __future__ import annotations

import torch
from torch import Tensor

from metadarts.core.rng import Key


def gumbel(shape: tuple[int, ...], key: Key) -> Tensor:
    """Standard Gumbel numbers, -log(-log(u)), float32."""
    uniform = torch.rand(shape, generator=key.torch(), dtype=torch.float64)
    tiny = torch.finfo(torch.float64).tiny
    return -(-uniform.clamp(min=tiny).log()).clamp(min=tiny).log().float()


def one_hot_of(p: Tensor) -> Tensor:
    """1 at the largest of each row, the first of equals, and 0 elsewhere; a constant of p's type."""
    hard = torch.zeros_like(p, requires_grad=False)
    return hard.scatter(-1, p.detach().argmax(-1, keepdim=True), 1.0)


def straight_through(p: Tensor) -> Tensor:
    """The value of the one-hot of p with the gradient of p (Bengio et al., 2013): exact zeros, and an exact 1."""
    return one_hot_of(p) + (p - p.detach())
