"""The reference of the separable convolution: its four stages in plain torch, one after the other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.ops.statistics import normalised


def separable(
    x: Tensor,
    depthwise: Tensor | None,
    pointwise: Tensor,
    rows: Tensor | None = None,
    stride: int = 1,
    dilation: int = 1,
    eps: float = 1e-5,
    needed: Tensor | None = None,
) -> Tensor:
    """See `op.separable`."""
    tasks, edges, channels, _ = pointwise.shape
    d = F.relu(x).expand(tasks, edges, *x.shape[2:])
    if depthwise is not None:
        kernel = depthwise.shape[-1]
        maps = d.permute(2, 0, 1, 5, 3, 4).flatten(1, 3)
        filters = depthwise.reshape(-1, 1, kernel, kernel)
        maps = F.conv2d(maps, filters, None, stride, dilation * (kernel // 2), dilation, filters.shape[0])
        d = maps.unflatten(1, (tasks, edges, channels)).permute(1, 2, 0, 4, 5, 3)
    u = torch.einsum("tenhwi,teio->tenhwo", d, pointwise)
    return masked(normalised(u, rows, eps), needed)


def masked(y: Tensor, needed: Tensor | None) -> Tensor:
    """y [T, E, N, h, w, O] where ``needed`` [T, E], else zero."""
    return y if needed is None else torch.where(needed[:, :, None, None, None, None].bool(), y, 0.0)
