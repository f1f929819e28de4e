"""1.5-entmax: between softmax and sparsemax (Peters et al., ACL 2019, algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metadarts.core.types import Stage

from ._tempered import Tempered


@dataclass(frozen=True)
class Entmax(Tempered):
    """p = max(alpha / (2 temperature) - tau, 0)^2, tau such that a row sums to 1.

    tau is a closed form of the candidates above 0, so that every second derivative is finite, at exact zeros too.
    """

    sparse: ClassVar[bool] = True

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        z = alpha / (2.0 * self.temperature)
        z = z - z.detach().amax(-1, keepdim=True)
        kept = _support(z.detach())
        size = kept.sum(-1, keepdim=True)
        mean = torch.where(kept, z, 0.0).sum(-1, keepdim=True) / size
        spread = torch.where(kept, z - mean, 0.0).square().sum(-1, keepdim=True)
        tau = mean - ((1.0 - spread) / size).sqrt()
        return torch.where(kept, z - tau, 0.0).square()


def _support(z: Tensor) -> Tensor:
    """[..., candidates] bool: whose weight is above 0."""
    ordered = z.sort(-1, descending=True).values
    count = torch.arange(1, z.shape[-1] + 1, device=z.device)
    mean = ordered.cumsum(-1) / count
    spread = ordered.square().cumsum(-1) - count * mean.square()
    tau = mean - ((1.0 - spread) / count).clamp(min=0.0).sqrt()
    size = (tau < ordered).sum(-1, keepdim=True).clamp(min=1)
    return z >= ordered.gather(-1, size - 1)


RELAXATION = Entmax
