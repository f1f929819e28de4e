"""The table of primitives: what each operation of an edge stores and how it runs on all the edges that leave one state.

Every function takes the images [T, N, H, W, C] of one source state and returns [T, E, N, h, w, C]: the outputs of the E
edges for which the candidate is active, or [T, 1, N, h, w, C] where they would all be equal (pools, identity).
Operations are those of DARTS (Liu et al., ICLR 2019, section 2.1): ReLU-conv-BN order, separable convolutions applied
twice, batch norm after pools in the search network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.core.types import Params
from metadarts.ops import bare_pool, pool, separable

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Statistics:
    """Whose activations batch norm averages over.

    Args:
        rows: [T, N], the share of image n in task t's statistics, summing to 1 over n; None is every image alike.
        images: the smallest number of images that any task's statistics rest on; None when ``rows`` is None.
    """

    rows: Tensor | None = None
    images: int | None = None

    @staticmethod
    def over(mask: Tensor, images: int | None = None) -> Statistics:
        """Each task's masked images alike.

        Args:
            mask: [T, N] bool.
            images: how many it marks in the task of the fewest; None to look, which makes a GPU wait.
        """
        counts = mask.sum(1, keepdim=True)
        rows = mask.double() / counts.clamp(min=1)
        return Statistics(rows, int(counts.min()) if images is None else images)


@dataclass(frozen=True)
class EdgeContext:
    """Where a candidate runs: its parameters on this source state's edges, the stride, the statistics.

    Args:
        params: the candidate's own tensors [T, E, ...].
        stride: 1, or 2 on the edges from the inputs of a reduction cell.
        pool_norm: whether pools are followed by batch norm (search networks) or not (evaluation networks).
        needed: [T, E] bool, on which edges of which tasks the output counts; None for everywhere.
    """

    params: Mapping[str, Tensor]
    stride: int
    statistics: Statistics
    pool_norm: bool
    needed: Tensor | None = None

    def affine(self, y: Tensor, name: str) -> Tensor:
        """Weight and bias [T, E, C] of norm ``name`` on normalised y [T, E, N, h, w, C], where it has any."""
        weight, bias = (self.params.get(f"{name}.{part}") for part in ("weight", "bias"))
        return y if weight is None or bias is None else affine(y, weight, bias)


@dataclass(frozen=True)
class Primitive:
    """One operation of the search space.

    Args:
        shapes: (channels, stride) -> its parameter shapes on one edge, without norms.
        norms: (stride) -> names of its batch norms that can be affine.
        run: (state, place) -> outputs, see the module docstring. None for the zero operation.
    """

    shapes: Callable[[int, int], Shapes]
    norms: Callable[[int], tuple[str, ...]]
    run: Callable[[Tensor, EdgeContext], Tensor] | None


def affine(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """weight * y + bias, of one number per task, edge and channel; y is [T, E, N, h, w, C], the others [T, E, C]."""
    weight, bias = (t[:, :, None, None, None] for t in (weight, bias))
    return torch.addcmul(bias, y, weight)


def _half(x: Tensor, place: EdgeContext, half: int, stride: int, dilation: int) -> Tensor:
    """ReLU, depthwise k x k, pointwise, batch norm; x is [T, E or 1, N, H, W, C]."""
    depthwise, mixing = place.params[f"depthwise{half}"], place.params[f"pointwise{half}"]
    rows, needed = place.statistics.rows, place.needed
    return place.affine(separable(x, depthwise, mixing, rows, stride, dilation, needed=needed), f"norm{half}")


def _sep_conv(state: Tensor, place: EdgeContext) -> Tensor:
    return _half(_half(state.unsqueeze(1), place, 1, place.stride, 1), place, 2, 1, 1)


def _dil_conv(state: Tensor, place: EdgeContext) -> Tensor:
    return _half(state.unsqueeze(1), place, 1, place.stride, 2)


def _pool(kind: str) -> Callable[[Tensor, EdgeContext], Tensor]:
    def run(state: Tensor, place: EdgeContext) -> Tensor:
        if place.pool_norm:
            return pool(state, kind, place.stride, place.statistics.rows).unsqueeze(1)
        return bare_pool(state, kind, place.stride).unsqueeze(1)

    return run


def _skip_connect(state: Tensor, place: EdgeContext) -> Tensor:
    """Identity, or at stride 2 two 1x1 convolutions of the even and the odd pixels, side by side (FactorizedReduce).

    Batch norm is per channel, so that normalising the halves apart is normalising them together.
    """
    if place.stride == 1:
        return state.unsqueeze(1)
    odd = F.pad(state, (0, 0, 0, 1, 0, 1))[:, :, 1::2, 1::2]  # padded, so that odd sizes give maps of one size
    halves = [
        separable(pixels.unsqueeze(1), None, place.params[name], place.statistics.rows, needed=place.needed)
        for pixels, name in ((state[:, :, ::2, ::2], "even"), (odd, "odd"))
    ]
    return place.affine(torch.cat(halves, dim=-1), "norm")


def _separable_shapes(kernel: int, halves: int) -> Callable[[int, int], Shapes]:
    def shapes(channels: int, stride: int) -> Shapes:
        table: Shapes = {}
        for half in range(1, halves + 1):
            table[f"depthwise{half}"] = (channels, kernel, kernel)
            table[f"pointwise{half}"] = (channels, channels)
        return table

    return shapes


def _skip_shapes(channels: int, stride: int) -> Shapes:
    half = (channels, channels // 2)
    return {"even": half, "odd": half} if stride == 2 else {}


def _sep(kernel: int) -> Primitive:
    return Primitive(_separable_shapes(kernel, 2), lambda stride: ("norm1", "norm2"), _sep_conv)


def _dil(kernel: int) -> Primitive:
    return Primitive(_separable_shapes(kernel, 1), lambda stride: ("norm1",), _dil_conv)


PRIMITIVES: Mapping[str, Primitive] = {
    "none": Primitive(lambda c, s: {}, lambda s: (), None),
    "max_pool_3x3": Primitive(lambda c, s: {}, lambda s: (), _pool("max")),
    "avg_pool_3x3": Primitive(lambda c, s: {}, lambda s: (), _pool("avg")),
    "skip_connect": Primitive(_skip_shapes, lambda s: ("norm",) if s == 2 else (), _skip_connect),
    "sep_conv_3x3": _sep(3),
    "sep_conv_5x5": _sep(5),
    "dil_conv_3x3": _dil(3),
    "dil_conv_5x5": _dil(5),
}


def slice_edges(params: Params, prefix: str, sizes: tuple[int, ...]) -> list[dict[str, Tensor]]:
    """Split a candidate's tensors [T, E_total, ...] under ``prefix`` into one dictionary per source state."""
    pieces: list[dict[str, Tensor]] = [{} for _ in sizes]
    for name, tensor in params.items():
        if name.startswith(prefix):
            for piece, part in zip(pieces, tensor.split(sizes, dim=1), strict=True):
                piece[name[len(prefix) :]] = part
    return pieces
