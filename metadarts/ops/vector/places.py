"""Where a tensor [T, E or 1, N, H, W, C] lies in memory, as kernels address it.

Channels are side by side and pixels evenly spaced; tasks, edges and images may be anywhere. So one kernel reads tensors
whose tasks are folded into channels ([N, H, W, T, E, C] in memory) and such whose tasks come first, without a copy.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import torch
from numba import njit
from torch import Tensor

from .lanes import argument, pointer, shifted

# start, and the numbers from one task, edge, image and pixel to the next; edge is 0 where all edges share.
Place = namedtuple("Place", "start task edge image row")
PLACE = 5
"""Words of a place in an argument block."""


def placed(x: Tensor) -> tuple[Tensor, Sequence[Tensor | int]]:
    """x [T, E or 1, N, H, W, C], copied where it must be, and its place for an argument block."""
    if x.stride(5) != 1 or x.stride(3) != x.shape[4] * x.stride(4) or 0 in x.stride():
        # Not contiguous(): it leaves a stride of 0 alone along an axis of length 1.
        x = x.clone(memory_format=torch.contiguous_format)
    shared = 0 if x.shape[1] == 1 else x.stride(1)
    return x, [x, x.stride(0), shared, x.stride(2), x.stride(4)]


@njit
def place(block: Any, at: int) -> Any:
    """The place at ``at`` of an argument block."""
    return Place(
        pointer(block, at), argument(block, at + 1), argument(block, at + 2), argument(block, at + 3),
        argument(block, at + 4),
    )  # fmt: skip


@njit
def image_of(p: Any, task: int, edge: int, image: int) -> Any:
    """A pointer to the first pixel."""
    return shifted(p.start, task * p.task + edge * p.edge + image * p.image)
