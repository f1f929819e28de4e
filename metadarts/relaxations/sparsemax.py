"""Sparsemax: the nearest point of the simplex, with exact zeros (Martins and Astudillo, ICML 2016, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metadarts.core.types import Stage

from ._tempered import Tempered


@dataclass(frozen=True)
class Sparsemax(Tempered):
    """p = max(alpha / temperature - tau, 0), tau such that a row sums to 1.

    Piecewise linear: its second derivatives are 0, and between two pieces it has a kink.
    """

    sparse: ClassVar[bool] = True

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        z = alpha / self.temperature
        kept = _support(z.detach())
        tau = (torch.where(kept, z, 0.0).sum(-1, keepdim=True) - 1.0) / kept.sum(-1, keepdim=True)
        return torch.where(kept, z - tau, 0.0)


def _support(z: Tensor) -> Tensor:
    """[..., candidates] bool: whose weight is above 0."""
    ordered = z.sort(-1, descending=True).values
    count = torch.arange(1, z.shape[-1] + 1, device=z.device)
    size = (1.0 + count * ordered > ordered.cumsum(-1)).sum(-1, keepdim=True)
    return z >= ordered.gather(-1, size - 1)


RELAXATION = Sparsemax
