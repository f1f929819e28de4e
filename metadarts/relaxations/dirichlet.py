"""Weights drawn from a Dirichlet distribution (DrNAS, Chen et al., ICLR 2021, section 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Stage

from ._gamma import SHAPES, log_gamma_quantile, uniform_open
from ._tempered import Relaxed

LEAST, MOST = (math.log(shape) for shape in SHAPES)


@dataclass(frozen=True)
class Dirichlet(Relaxed):
    """p ~ Dirichlet(elu(alpha) + 1) each step; outside training, and for scores, the mean of that distribution.

    p are Gamma variates divided by their sum, each the quantile of its shape at a uniform number that is drawn outside:
    the distribution is exact, and p a smooth function of alpha for given draws, differentiated exactly to any order.
    (torch's own sampler takes no generator, and its second derivative lacks a term.) elu has a kink in its second
    derivative at 0.

    Concentrations are limited to 100. Below 0.001, draws are those of 0.001 times a factor that falls with the
    concentration, so that an alpha far below all others has a weight of exactly 0. The paper's penalty on the distance
    from Dirichlet(1) and its pruning over the run are not part of this.
    """

    def noise(self, shape: tuple[int, ...], key: Key) -> Tensor | None:
        return uniform_open(shape, key.torch())

    def weights(self, alpha: Tensor, at: Stage, noise: Tensor | None = None) -> Tensor:
        logs = _log_concentration(alpha)
        if noise is not None:
            logs = log_gamma_quantile(logs.clamp(min=LEAST).exp(), noise.double()) + (logs - LEAST).clamp(max=0.0)
        return logs.softmax(-1).to(alpha.dtype)

    def scores(self, alpha: Tensor) -> Tensor:
        return _log_concentration(alpha).softmax(-1)


def _log_concentration(alpha: Tensor) -> Tensor:
    """log(elu(alpha) + 1), in double precision: alpha itself below 0."""
    wide = alpha.double()
    return torch.where(wide > 0.0, wide.clamp(min=0.0).log1p(), wide).clamp(max=MOST)


RELAXATION = Dirichlet
