"""The table of primitives: what each operation of an edge stores and how it runs on all the edges that leave one state.

Every function takes folded images [N, H, W, T * C] of one source state and returns [N, h, w, T, E, C]: the outputs of
the E edges for which the candidate is active, or [N, h, w, T, 1, C] where they would all be equal (pools, identity).
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
from metadarts.ops import convolution, normalise, pointwise

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Statistics:
    """Whose activations batch norm averages over.

    Args:
        rows: [N, T], the share of image n in task t's statistics, summing to 1 over n; None is every image alike.
        images: the smallest number of images that any task's statistics rest on; None when ``rows`` is None.
    """

    rows: Tensor | None = None
    images: int | None = None

    @staticmethod
    def over(mask: Tensor) -> Statistics:
        """Each task's masked images alike. ``mask``: [T, N] bool."""
        counts = mask.sum(1, keepdim=True)
        rows = mask.double() / counts.clamp(min=1)
        return Statistics(rows.T, int(counts.min()))

    def normalise(self, x: Tensor, tasks: int, affine: tuple[Tensor, ...] | None = None) -> Tensor:
        """Batch norm of [N, H, W, T * ...] under these statistics; ``affine`` is (weight, bias), each [T, ...]."""
        rows = self.rows
        if rows is not None:
            rows = rows.to(torch.promote_types(x.dtype, torch.float32)).repeat_interleave(x.shape[-1] // tasks, dim=1)
        y = normalise(x, rows)
        return y if affine is None else torch.addcmul(affine[1].reshape(-1), y, affine[0].reshape(-1))


@dataclass(frozen=True)
class Place:
    """Where a candidate runs: the tasks, its parameters on this source state's edges, the stride, the statistics.

    Args:
        params: the candidate's own tensors [T, E, ...].
        edges: E, the edges of this source on which it is active.
        tasks: T.
        stride: 1, or 2 on the edges from the inputs of a reduction cell.
        pool_norm: whether pools are followed by batch norm (search networks) or not (evaluation networks).
    """

    params: Mapping[str, Tensor]
    edges: int
    tasks: int
    stride: int
    statistics: Statistics
    pool_norm: bool

    def norm(self, x: Tensor, name: str) -> Tensor:
        affine = (
            (self.params[f"{name}.weight"], self.params[f"{name}.bias"]) if f"{name}.weight" in self.params else None
        )
        return self.statistics.normalise(x, self.tasks, affine)

    def unfold(self, x: Tensor, edges: int) -> Tensor:
        return x.view(*x.shape[:3], self.tasks, edges, -1)


@dataclass(frozen=True)
class Primitive:
    """One operation of the search space.

    Args:
        shapes: (channels, stride) -> its parameter shapes on one edge, without norms.
        norms: (stride) -> names of its batch norms that can be affine.
        run: (inputs, place) -> outputs, see the module docstring. None for the zero operation.
    """

    shapes: Callable[[int, int], Shapes]
    norms: Callable[[int], tuple[str, ...]]
    run: Callable[[EdgeInputs, Place], Tensor] | None


class EdgeInputs:
    """One source state as its edges want it; each form is made once, when first asked for."""

    def __init__(self, state: Tensor, tasks: int) -> None:
        self.state = state
        self.tasks = tasks
        self._rectified: Tensor | None = None
        self._copies: dict[int, Tensor] = {}

    @property
    def rectified(self) -> Tensor:
        """ReLU(state) [N, H, W, T * C]."""
        if self._rectified is None:
            self._rectified = F.relu(self.state)
        return self._rectified

    def copies(self, edges: int) -> Tensor:
        """ReLU(state) once per edge, [N, H, W, T * E * C]: each edge's depthwise filters read their own channels."""
        if edges == 1:
            return self.rectified
        if edges not in self._copies:
            x = self.rectified
            split = x.view(*x.shape[:3], self.tasks, 1, -1)
            self._copies[edges] = split.expand(-1, -1, -1, -1, edges, -1).reshape(*x.shape[:3], -1)
        return self._copies[edges]


def _separable(x: Tensor, place: Place, half: int, stride: int, dilation: int) -> Tensor:
    """Depthwise k x k, pointwise, batch norm."""
    depthwise, mixing = place.params[f"depthwise{half}"], place.params[f"pointwise{half}"]
    kernel = depthwise.shape[-1]
    x = convolution(x, depthwise.reshape(-1, 1, kernel, kernel), x.shape[-1], stride, dilation)
    return place.norm(pointwise(x, mixing.flatten(0, 1)), f"norm{half}")


def _sep_conv(inputs: EdgeInputs, place: Place) -> Tensor:
    x = _separable(inputs.copies(place.edges), place, 1, place.stride, 1)
    return place.unfold(_separable(F.relu(x), place, 2, 1, 1), place.edges)


def _dil_conv(inputs: EdgeInputs, place: Place) -> Tensor:
    return place.unfold(_separable(inputs.copies(place.edges), place, 1, place.stride, 2), place.edges)


def _pooled(x: Tensor, place: Place) -> Tensor:
    x = x.permute(0, 2, 3, 1).contiguous()
    return place.unfold(place.norm(x, "norm") if place.pool_norm else x, 1)


def _max_pool(inputs: EdgeInputs, place: Place) -> Tensor:
    return _pooled(F.max_pool2d(inputs.state.permute(0, 3, 1, 2), 3, place.stride, 1), place)


def _avg_pool(inputs: EdgeInputs, place: Place) -> Tensor:
    x = inputs.state.permute(0, 3, 1, 2)
    return _pooled(F.avg_pool2d(x, 3, place.stride, 1, count_include_pad=False), place)


def _skip_connect(inputs: EdgeInputs, place: Place) -> Tensor:
    """Identity, or at stride 2 two 1x1 convolutions of the even and the odd pixels, side by side (FactorizedReduce)."""
    if place.stride == 1:
        return place.unfold(inputs.state, 1)
    x = inputs.rectified
    odd = F.pad(x, (0, 0, 0, 1, 0, 1))[:, 1::2, 1::2]  # padded, so that odd sizes give maps of one size
    halves = []
    for pixels, name in ((x[:, ::2, ::2], "even"), (odd, "odd")):
        weight = place.params[name]  # [T, E, C, C / 2]: one product per task gives all the edges
        weight = weight.transpose(1, 2).flatten(2)
        halves.append(place.unfold(pointwise(pixels.contiguous(), weight), place.edges))
    joined = torch.cat(halves, dim=-1)
    return place.unfold(place.norm(joined.flatten(3), "norm"), place.edges)


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
    "max_pool_3x3": Primitive(lambda c, s: {}, lambda s: (), _max_pool),
    "avg_pool_3x3": Primitive(lambda c, s: {}, lambda s: (), _avg_pool),
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
