"""The law of the normalised pool: torch's pool, then the definition of normalisation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pool(x: Tensor, kind: str, stride: int = 1, rows: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """See `op.pool`."""
    tasks, images = x.shape[:2]
    maps = x.flatten(0, 1).permute(0, 3, 1, 2)
    if kind == "max":
        a = F.max_pool2d(maps, 3, stride, 1)
    else:
        a = F.avg_pool2d(maps, 3, stride, 1, count_include_pad=False)
    a = a.permute(0, 2, 3, 1).unflatten(0, (tasks, images))
    if rows is None:
        rows = x.new_full((tasks, images), 1.0 / images)
    share = (rows / (a.shape[2] * a.shape[3]))[:, :, None, None, None]
    mean = (share * a).sum((1, 2, 3), keepdim=True)
    variance = (share * (a - mean) ** 2).sum((1, 2, 3), keepdim=True)
    y: Tensor = (a - mean) / (variance + eps).sqrt()
    return y
