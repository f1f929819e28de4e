"""The identity; at stride 2 two concatenated 1x1 convolutions of the even and the odd pixels (FactorizedReduce)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.ops import separable

from ._folding import Folding, Map
from ._types import EdgeContext, Operation, Shapes


def _run(state: Tensor, context: EdgeContext) -> Tensor:
    """Batch norm is per channel, so that normalising the halves apart is normalising them together."""
    if context.stride == 1:
        return state.unsqueeze(1)
    odd = F.pad(state, (0, 0, 0, 1, 0, 1))[:, :, 1::2, 1::2]  # padded, so that odd sizes give maps of one size
    halves = [
        separable(pixels.unsqueeze(1), None, context.params[name], context.statistics.rows, needed=context.needed)
        for pixels, name in ((state[:, :, ::2, ::2], "even"), (odd, "odd"))
    ]
    return context.affine(torch.cat(halves, dim=-1), "norm")


def _fold(layers: Folding, x: Map) -> Map:
    if layers.stride == 1:
        return x
    even, odd = (layers.own(part).T[:, :, None, None] for part in ("even", "odd"))
    return layers.halve(x, even, odd, "norm")


def _shapes(channels: int, stride: int) -> Shapes:
    half = (channels, channels // 2)
    return {"even": half, "odd": half} if stride == 2 else {}


def _norms(stride: int) -> tuple[str, ...]:
    return ("norm",) if stride == 2 else ()


def _cost(channels: int, stride: int, positions: int) -> int:
    return positions * channels * channels if stride == 2 else 0


OPERATION = Operation(run=_run, fold=_fold, shapes=_shapes, norms=_norms, cost=_cost, shade="#9aa1ac")
