"""The zero-one loss, which drives every mixing weight to 0 or 1 (FairDARTS, Chu et al., ECCV 2020, equation 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ._types import CostedNetwork, Weights


@dataclass(frozen=True)
class ZeroOne:
    """mean w (1 - w) over all mixing weights, [T], which is 1/4 - mean (w - 1/2)^2; 0 for a discrete architecture.

    FairDARTS uses the strength 10.

    Args:
        height, width: of an image; they have no effect.
    """

    height: int
    width: int

    def __call__(self, network: CostedNetwork, weights: Weights) -> Tensor:
        tables = [weights[cell].flatten(1) for cell in sorted({cell.kind for cell in network.cells})]
        joined = torch.cat(tables, dim=1)
        return (joined * (1.0 - joined)).mean(1)


COST = ZeroOne
