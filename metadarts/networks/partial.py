"""Partial channels: 1/K of a state's channels are mixed, the others bypass the candidates (PC-DARTS, Xu et al., ICLR
2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.ops import mix


def mixed_part(state: Tensor, channels: int) -> Tensor:
    """The first ``channels`` of a state [T, N, H, W, C]."""
    return state if state.shape[-1] == channels else state[..., :channels].contiguous()


def passed_parts(state: Tensor, channels: int, stride: int, weights: Tensor) -> tuple[Tensor, ...]:
    """The channels after the first ``channels``, for each edge that leaves the state times its weight [T, E].

    At stride 2 they are max-pooled, 2x2 (the paper's code); an odd last row or column is pooled alone.
    """
    rest = state[..., channels:].contiguous()
    rest = _halved(rest) if stride == 2 else rest
    return mix([rest.unsqueeze(1)], weights.unsqueeze(0))


def _halved(x: Tensor) -> Tensor:
    """[T, N, H, W, C] at half the height and width, rounded up."""
    pooled: Tensor = F.max_pool2d(x.flatten(0, 1).movedim(-1, 1), 2, ceil_mode=True)
    tasks_apart: Tensor = pooled.movedim(1, -1).unflatten(0, x.shape[:2])
    return tasks_apart.contiguous()


def shuffled(mixed: Tensor, passed: Tensor, groups: int) -> Tensor:
    """Both parts of a node, channels interleaved: channel c of group g comes to place c * groups + g.

    The paper shuffles every edge; the order is the same for all, so that their sum may be shuffled instead.
    """
    by_group: Tensor = torch.cat([mixed, passed], dim=-1).unflatten(-1, (groups, -1))
    return by_group.transpose(-1, -2).flatten(-2)
