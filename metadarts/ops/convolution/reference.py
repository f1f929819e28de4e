"""The reference of the folded convolution: torch's own convolution, differentiated by torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def convolution(x: Tensor, weight: Tensor, groups: int, stride: int = 1, dilation: int = 1) -> Tensor:
    """See `op.convolution`."""
    padding = dilation * (weight.shape[-1] // 2)
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, None, stride, padding, dilation, groups)
    return y.permute(0, 2, 3, 1)
