"""The reference of the folded 1x1 convolution: one small matrix product per group."""

from __future__ import annotations

import torch
from torch import Tensor


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """See `op.pointwise`."""
    groups, channels_in, _ = weight.shape
    rows = x.unflatten(-1, (groups, channels_in))
    return torch.einsum("...gi,gio->...go", rows, weight).flatten(-2)
