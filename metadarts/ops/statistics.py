"""Batch statistics with unequal weights of images, as used by every operator that normalises.

``rows`` [T, N] is the weight of image n in task t's statistics; it sums to 1 over n, and None is 1/N each.
"""

from __future__ import annotations

import torch
from torch import Tensor


def normalised(u: Tensor, rows: Tensor | None, eps: float) -> Tensor:
    """The definition: (u - mean) / sqrt(variance + eps) per task and channel; u is [T, (E,) N, h, w, C]."""
    tasks, images, height, width = u.shape[0], *u.shape[-4:-1]
    if rows is None:
        rows = u.new_full((tasks, images), 1.0 / images)
    share = (rows / (height * width)).view(tasks, *(1,) * (u.dim() - 5), images, 1, 1, 1)
    mean = (share * u).sum((-4, -3, -2), keepdim=True)
    variance = (share * (u - mean) ** 2).sum((-4, -3, -2), keepdim=True)
    return (u - mean) / (variance + eps).sqrt()


def shares(rows: Tensor | None, like: Tensor, images: int, pixels: int) -> Tensor:
    """[T, N]: the weight of each of an image's pixels, as kernels read it; T is the length of ``like``'s first axis.

    In the type of ``like``, or float32 where that is half-precision.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    if rows is None:
        return like.new_full((like.shape[0], images), 1.0 / (images * pixels), dtype=dtype)
    return (rows / pixels).to(like.device, dtype).contiguous()


def folded_rows(rows: Tensor | None, x: Tensor) -> Tensor | None:
    """[N, K] for `metadarts.ops.normalise`, whose tasks are folded into the K channels of x [N, H, W, K]."""
    if rows is None:
        return None
    wide = rows.T.to(torch.promote_types(x.dtype, torch.float32))
    return wide.repeat_interleave(x.shape[-1] // rows.shape[0], dim=1)
