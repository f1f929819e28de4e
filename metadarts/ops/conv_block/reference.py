"""The reference of the convolutional block: its stages in plain torch, one after the other."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from metadarts.ops.statistics import normalised


def conv_block(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor,
    rows: Tensor | None = None,
    rectify: bool = False,
    eps: float = 1e-5,
) -> Tensor:
    """See `op.conv_block`."""
    tasks, images = x.shape[:2]
    x = F.relu(x) if rectify else x
    maps = x.permute(1, 0, 4, 2, 3).flatten(1, 2)
    u = F.conv2d(maps, weight.flatten(0, 1), None, 1, weight.shape[-1] // 2, 1, tasks)
    u = u.unflatten(1, (tasks, -1)).permute(1, 0, 3, 4, 2)
    y = normalised(u, rows, eps)
    z = scale[:, None, None, None] * y + bias[:, None, None, None]
    pooled = F.max_pool2d(z.flatten(0, 1).permute(0, 3, 1, 2), 2)
    result: Tensor = pooled.permute(0, 2, 3, 1).unflatten(0, (tasks, images))
    return result
