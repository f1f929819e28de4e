"""The reference of the normalised pool: torch's pool, then the definition of normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.ops.statistics import normalised


def pool(x: Tensor, kind: str, stride: int = 1, rows: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """See `op.pool`."""
    return normalised(bare_pool(x, kind, stride), rows, eps)


def bare_pool(x: Tensor, kind: str, stride: int) -> Tensor:
    """The pool without batch norm, by torch; x and result as in `pool`."""
    maps = x.flatten(0, 1).permute(0, 3, 1, 2)
    if kind == "max":
        maps = F.max_pool2d(maps, 3, stride, 1)
    else:
        if maps.is_cuda:  # torch 2.11's backward over channels-last images is wrong there (pytorch #188344)
            maps = maps.clone(memory_format=torch.contiguous_format)
        maps = F.avg_pool2d(maps, 3, stride, 1, count_include_pad=False)
    y: Tensor = maps.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])
    return y
