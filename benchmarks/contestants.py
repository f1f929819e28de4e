"""One mixed edge bundle, in three ways: our operators, torch's with tasks and edges folded, torch's task by task.
On a GPU there is a fourth, our operators by their implementation ``folded``.

A bundle is all edges that leave one source state of a DARTS cell, for T tasks: seven candidates on every edge, weighed
and summed (Liu et al., ICLR 2019, equation 2). Each contestant holds its tensors in the layout that suits it, so that
no conversion is timed, and says how to bring them, or their gradients, back to ours: the maps are permutations.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.rows import said
from metadarts.operations import OPERATIONS, EdgeContext, Statistics
from metadarts.ops import implementation, mix
from metadarts.spaces import darts

Tensors = dict[str, Tensor]
CANDIDATES = tuple(name for name in darts().primitives if OPERATIONS[name].run is not None)


@dataclass(frozen=True)
class Bundle:
    """Sizes of one bundle: square images of ``size`` pixels a side before the stride."""

    name: str
    edges: int
    size: int
    channels: int
    stride: int
    tasks: int = 4
    images: int = 25

    def said(self) -> str:
        """For a column."""
        return said(**{key: value for key, value in vars(self).items() if key != "name"})

    @property
    def out_size(self) -> int:
        return -(-self.size // self.stride)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Our layout: x [T, N, H, W, C], weights [K, T, E], the candidates' tensors [T, E, ...] as "candidate/name"."""
        shapes: dict[str, tuple[int, ...]] = {
            "x": (self.tasks, self.images, self.size, self.size, self.channels),
            "weights": (len(CANDIDATES), self.tasks, self.edges),
        }
        for name in CANDIDATES:
            for part, shape in OPERATIONS[name].shapes(self.channels, self.stride).items():
                shapes[f"{name}/{part}"] = (self.tasks, self.edges, *shape)
        return shapes

    def values(self, dtype: torch.dtype, seed: int) -> Tensors:
        """Gaussian numbers of those shapes, and of "upstream" [T, E, N, h, w, C]; weights are a softmax."""
        generator = torch.Generator().manual_seed(seed)
        upstream = (self.tasks, self.edges, self.images, self.out_size, self.out_size, self.channels)
        shapes = self.shapes() | {"upstream": upstream}
        drawn = {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}
        return drawn | {"weights": drawn["weights"].softmax(0)}


BUNDLES = (
    Bundle("normal", edges=1, size=8, channels=16, stride=1),
    Bundle("normal", edges=4, size=8, channels=16, stride=1),
    Bundle("reduce", edges=1, size=8, channels=32, stride=2),
    Bundle("reduce", edges=4, size=8, channels=32, stride=2),
    Bundle("reduced", edges=1, size=4, channels=32, stride=1),
    Bundle("reduced", edges=4, size=4, channels=32, stride=1),
)
"""W1's: an input state of the normal cell, of the reduction cell, and one of the latter's nodes."""
WIDE = (
    Bundle("wide", edges=1, size=8, channels=64, stride=1, tasks=16),
    Bundle("wide", edges=1, size=16, channels=64, stride=1, tasks=16),
    Bundle("wide", edges=4, size=8, channels=64, stride=1, tasks=16),
)
"""For a GPU, which W1's leave idle. The second one's input alone is twice an H100's cache."""
SMALL = (Bundle("small", edges=1, size=2, channels=2, stride=1, tasks=1, images=2),)
"""For a rehearsal."""


@dataclass(frozen=True)
class Contestant:
    """One way to run a bundle.

    Args:
        own: (bundle, tensors of `Bundle.values`) -> the same numbers in its own layout; names may be its own too.
        run: (bundle, its own tensors) -> outputs, one for each of the upstream tensors.
        ours: (bundle, its own tensors or their gradients) -> in our layout, under our names.
        upstream: names of its own tensors that are the outputs' upstream gradients, by (bundle), in order.
    """

    own: Callable[[Bundle, Tensors], Tensors]
    run: Callable[[Bundle, Tensors], Sequence[Tensor]]
    ours: Callable[[Bundle, Tensors], Tensors]
    upstream: Callable[[Bundle], list[str]]


# -------------------------------------------------------------------------------------------------------------- ours


def _edges_apart(bundle: Bundle, values: Tensors) -> Tensors:
    """One upstream gradient per edge, as the nodes of a cell hand them back."""
    parts = values["upstream"].unbind(1)
    rest = {name: tensor.clone() for name, tensor in values.items() if name != "upstream"}
    return rest | {f"upstream/{edge}": part.clone() for edge, part in enumerate(parts)}


def _edges_together(bundle: Bundle, own: Tensors) -> Tensors:
    stacked = torch.stack([own[f"upstream/{edge}"] for edge in range(bundle.edges)], 1)
    return {name: tensor for name, tensor in own.items() if not name.startswith("upstream")} | {"upstream": stacked}


def _run_ours(bundle: Bundle, own: Tensors) -> Sequence[Tensor]:
    outputs = []
    for name in CANDIDATES:
        params = {key.partition("/")[2]: tensor for key, tensor in own.items() if key.startswith(f"{name}/")}
        run = OPERATIONS[name].run
        assert run is not None
        outputs.append(run(own["x"], EdgeContext(params, bundle.stride, Statistics(), pool_norm=True)))
    return mix(outputs, own["weights"])


def _run_ours_folded(bundle: Bundle, own: Tensors) -> Sequence[Tensor]:
    with implementation("folded"):
        return _run_ours(bundle, own)


# ------------------------------------------------------------------------------------------------------------ folded


def _fold(bundle: Bundle, values: Tensors) -> Tensors:
    """x [N, T * C, H, W] and upstream [N, T * E * C, h, w], channels last; filters [T * E * O, 1 or C, k, k]."""
    own = {"weights": values["weights"].clone()}
    own["x"] = values["x"].permute(1, 2, 3, 0, 4).flatten(3).contiguous().permute(0, 3, 1, 2)
    own["upstream"] = values["upstream"].permute(2, 3, 4, 0, 1, 5).flatten(3).contiguous().permute(0, 3, 1, 2)
    for name, tensor in values.items():
        if name.partition("/")[2].startswith("depthwise"):
            own[name] = tensor.flatten(0, 2).unsqueeze(1).clone()
        elif "/" in name:
            own[name] = tensor.mT.flatten(0, 2)[..., None, None].contiguous()
    return own


def _unfold(bundle: Bundle, own: Tensors) -> Tensors:
    tasks, edges = bundle.tasks, bundle.edges
    ours = {"weights": own["weights"]}
    ours["x"] = own["x"].unflatten(1, (tasks, -1)).permute(1, 0, 3, 4, 2)
    ours["upstream"] = own["upstream"].unflatten(1, (tasks, edges, -1)).permute(1, 2, 0, 4, 5, 3)
    for name, tensor in own.items():
        if name.partition("/")[2].startswith("depthwise"):
            ours[name] = tensor.squeeze(1).unflatten(0, (tasks, edges, -1))
        elif "/" in name:
            ours[name] = tensor[..., 0, 0].unflatten(0, (tasks, edges, -1)).mT
    return ours


def _run_folded(bundle: Bundle, own: Tensors) -> Sequence[Tensor]:
    tasks, edges, x = bundle.tasks, bundle.edges, own["x"]
    rectified = F.relu(x)  # by all convolutions alike
    if edges > 1:
        spread = rectified.permute(0, 2, 3, 1).unflatten(3, (tasks, 1, -1)).expand(-1, -1, -1, -1, edges, -1)
        rectified = spread.flatten(3).permute(0, 3, 1, 2)
    total: Tensor | None = None
    for k, name in enumerate(CANDIDATES):
        maps = _candidate(name, x, rectified, own, bundle.stride, tasks * edges).permute(0, 2, 3, 1)
        maps = maps.unflatten(3, (tasks, -1, bundle.channels))  # pools and identity: once for all edges
        weight = own["weights"][k].unsqueeze(-1)
        total = maps * weight if total is None else torch.addcmul(total, maps, weight)
    assert total is not None
    return [total.flatten(3).permute(0, 3, 1, 2)]


# ------------------------------------------------------------------------------------------------------ task by task


def _each(bundle: Bundle) -> list[tuple[int, int]]:
    return [(task, edge) for task in range(bundle.tasks) for edge in range(bundle.edges)]


def _part(values: Tensors, task: int, edge: int) -> Tensors:
    """What one task's edge needs, in torch's own layouts."""
    part = {"upstream": values["upstream"][task, edge].permute(0, 3, 1, 2)}
    for name, tensor in values.items():
        if name.partition("/")[2].startswith("depthwise"):
            part[name] = tensor[task, edge].unsqueeze(1)
        elif "/" in name:
            part[name] = tensor[task, edge].mT[..., None, None]
    return part


def _apart(memory_format: torch.memory_format) -> Callable[[Bundle, Tensors], Tensors]:
    def own(bundle: Bundle, values: Tensors) -> Tensors:
        parts = {f"{t}/x": values["x"][t].permute(0, 3, 1, 2) for t in range(bundle.tasks)}
        for task, edge in _each(bundle):
            parts |= {f"{task}/{edge}/{name}": p for name, p in _part(values, task, edge).items()}
        laid = {name: part.clone(memory_format=memory_format) for name, part in parts.items()}
        weights = {f"{t}/{e}/weights": values["weights"][:, t, e].clone() for t, e in _each(bundle)}
        return laid | weights

    return own


def _together(bundle: Bundle, own: Tensors) -> Tensors:
    def stacked(name: str, back: Callable[[Tensor], Tensor]) -> Tensor:
        rows = [[back(own[f"{t}/{e}/{name}"]) for e in range(bundle.edges)] for t in range(bundle.tasks)]
        return torch.stack([torch.stack(row) for row in rows])

    ours = {"x": torch.stack([own[f"{t}/x"].permute(0, 2, 3, 1) for t in range(bundle.tasks)])}
    ours["weights"] = stacked("weights", lambda p: p).permute(2, 0, 1)
    ours["upstream"] = stacked("upstream", lambda p: p.permute(0, 2, 3, 1))
    for name in bundle.shapes():
        if name.partition("/")[2].startswith("depthwise"):
            ours[name] = stacked(name, lambda p: p.squeeze(1))
        elif "/" in name:
            ours[name] = stacked(name, lambda p: p[..., 0, 0].mT)
    return ours


def _run_apart(bundle: Bundle, own: Tensors) -> Sequence[Tensor]:
    """Every candidate of every edge of every task by itself, as DARTS' own code has it."""
    outputs = []
    for task, edge in _each(bundle):
        x, prefix = own[f"{task}/x"], f"{task}/{edge}/"
        part = {name.removeprefix(prefix): tensor for name, tensor in own.items() if name.startswith(prefix)}
        terms = [
            weight * _candidate(name, x, None, part, bundle.stride, 1)
            for name, weight in zip(CANDIDATES, part["weights"], strict=True)
        ]
        outputs.append(functools.reduce(torch.add, terms))
    return outputs


# ----------------------------------------------------------------------------------------- candidates, plain torch


def _norm(x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, training=True, eps=1e-5)


def _half(
    x: Tensor, own: Mapping[str, Tensor], name: str, half: int, stride: int, dilation: int, groups: int
) -> Tensor:
    """Depthwise, pointwise, batch norm, of a rectified x."""
    filters = own[f"{name}/depthwise{half}"]
    padding = dilation * (filters.shape[-1] // 2)
    x = F.conv2d(x, filters, None, stride, padding, dilation, filters.shape[0])
    return _norm(F.conv2d(x, own[f"{name}/pointwise{half}"], groups=groups))


def _pool(x: Tensor, kind: str, stride: int) -> Tensor:
    if kind == "max":
        return _norm(F.max_pool2d(x, 3, stride, 1))
    return _norm(F.avg_pool2d(x, 3, stride, 1, count_include_pad=False))


def _reduced(x: Tensor, own: Mapping[str, Tensor], groups: int) -> Tensor:
    """The skip of stride 2, of a rectified x: even and odd pixels through a 1x1 convolution each, side by side."""
    shifted = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1:, 1:]
    halves = [
        F.conv2d(pixels, own[f"skip_connect/{part}"], stride=2, groups=groups)
        for pixels, part in ((x, "even"), (shifted, "odd"))
    ]
    if groups == 1:
        return _norm(torch.cat(halves, 1))
    apart = [maps.permute(0, 2, 3, 1).unflatten(3, (groups, -1)) for maps in halves]
    return _norm(torch.cat(apart, 4).flatten(3).permute(0, 3, 1, 2))


def _candidate(
    name: str, x: Tensor, rectified: Tensor | None, own: Mapping[str, Tensor], stride: int, groups: int
) -> Tensor:
    """One candidate by torch's operators. ``rectified``: relu(x), repeated for the edges, where it is known already."""
    if "pool" in name:
        return _pool(x, name[:3], stride)
    if name == "skip_connect" and stride == 1:
        return x
    rectified = F.relu(x) if rectified is None else rectified
    if name == "skip_connect":
        return _reduced(rectified, own, groups)
    if name.startswith("dil"):
        return _half(rectified, own, name, 1, stride, 2, groups)
    return _half(F.relu(_half(rectified, own, name, 1, stride, 1, groups)), own, name, 2, 1, 1, groups)


def _names_of_edges(bundle: Bundle) -> list[str]:
    return [f"upstream/{edge}" for edge in range(bundle.edges)]


def _names_of_parts(bundle: Bundle) -> list[str]:
    return [f"{task}/{edge}/upstream" for task, edge in _each(bundle)]


OURS, OURS_FOLDED = "ours", "ours-folded"
CONTESTANTS: dict[str, Contestant] = {
    OURS: Contestant(_edges_apart, _run_ours, _edges_together, _names_of_edges),
    OURS_FOLDED: Contestant(_edges_apart, _run_ours_folded, _edges_together, _names_of_edges),
    "folded-channels_last": Contestant(_fold, _run_folded, _unfold, lambda bundle: ["upstream"]),
    "loop": Contestant(_apart(torch.contiguous_format), _run_apart, _together, _names_of_parts),
    "loop-channels_last": Contestant(_apart(torch.preserve_format), _run_apart, _together, _names_of_parts),
}
"""Plain torch has torch's own double backward: one grouped convolution for all tasks, and a loop in both layouts."""


@dataclass(frozen=True)
class Passes:
    """A bundle's forward, backward and double backward on one set of numbers.

    Args:
        contestant: who runs it.
        bundle: the sizes.
        leaves: its own tensors, requiring gradients, the upstream ones included.
        along: name -> the direction of the second derivative, in its own layout.
    """

    contestant: Contestant
    bundle: Bundle
    leaves: Tensors
    along: Tensors

    @staticmethod
    def of(name: str, bundle: Bundle, dtype: torch.dtype, device: str = "cpu") -> Passes:
        """The numbers are the same for all contestants."""
        contestant = CONTESTANTS[name]
        drawn = ({n: t.to(device) for n, t in bundle.values(dtype, seed).items()} for seed in (0, 1))
        leaves, along = (contestant.own(bundle, values) for values in drawn)
        return Passes(contestant, bundle, {n: t.requires_grad_() for n, t in leaves.items()}, along)

    @property
    def moving(self) -> list[str]:
        """The leaves that the first derivative is taken of: all but the upstream gradients."""
        upstream = self.contestant.upstream(self.bundle)
        return [name for name in self.leaves if name not in upstream]

    def forward(self) -> Sequence[Tensor]:
        """Outputs."""
        return self.contestant.run(self.bundle, self.leaves)

    def backward(self, outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Gradients of the leaves that move, with a graph of their own."""
        upstream = [self.leaves[name] for name in self.contestant.upstream(self.bundle)]
        return torch.autograd.grad(list(outputs), [self.leaves[n] for n in self.moving], upstream, create_graph=True)

    def second(self, first: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Gradients of all leaves, upstream ones included, of the sum of <gradient, direction>."""
        return torch.autograd.grad(first, list(self.leaves.values()), [self.along[name] for name in self.moving])

    def results(self) -> dict[str, Tensors]:
        """ "output", "first" and "second": all values and derivatives in our layout, under our names."""
        outputs = self.forward()
        first = self.backward(outputs)
        second = self.second(first)
        upstream = self.contestant.upstream(self.bundle)
        values = self.leaves | dict(zip(upstream, outputs, strict=True))
        gradients = self.leaves | dict(zip(self.moving, first, strict=True))
        found = {
            "output": {"y": self._ours(values)["upstream"]},
            "first": {name: tensor for name, tensor in self._ours(gradients).items() if name != "upstream"},
            "second": self._ours(dict(zip(self.leaves, second, strict=True))),
        }
        return {label: {name: tensor.detach() for name, tensor in part.items()} for label, part in found.items()}

    def _ours(self, own: Tensors) -> Tensors:
        return self.contestant.ours(self.bundle, own)
