"""A cell: every candidate of every edge, run once per source state rather than once per edge.

All edges that leave one state read the same tensor, so their candidates are folded into channels and run together: the
depthwise filters of a state's E edges are one convolution, their pointwise products one batched product, and pools and
identities, which hold no parameters, are computed once for all of them. A DARTS cell has 14 edges but 5 source states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from metadarts.core.types import Params
from metadarts.ops import mix, separable
from metadarts.spaces import Genotype, SearchSpace

from .primitives import PRIMITIVES, EdgeContext, Shapes, Statistics, affine, slice_edges

Edge = tuple[int, int]
"""(intermediate node, source state)."""


@dataclass(frozen=True)
class CellSpec:
    """One cell of a network, as data.

    Args:
        kind: "normal" or "reduce": whose alphas it reads, and whether its inputs are taken at stride 2.
        channels: C, the channels of every node.
        inputs: channels of the cell's input states.
        nodes: intermediate nodes.
        active: for each primitive the edges on which it runs, in source-major order: by source state, then by node.
            Its tensors hold one slice per active edge, in this order.
        concat: the states whose concatenation is the output.
        affine: whether batch norms outside pools have weight and bias.
        pool_norm: whether pools are followed by batch norm.
    """

    kind: str
    channels: int
    inputs: tuple[int, ...]
    nodes: int
    active: Mapping[str, tuple[Edge, ...]]
    concat: tuple[int, ...]
    affine: bool = False
    pool_norm: bool = True

    @property
    def out_channels(self) -> int:
        return self.channels * len(self.concat)

    def stride(self, source: int) -> int:
        return 2 if self.kind == "reduce" and source < len(self.inputs) else 1

    def targets(self, primitive: str, source: int) -> tuple[int, ...]:
        """The nodes that ``primitive`` feeds from state ``source``, ascending."""
        return tuple(node for node, edge_source in self.active[primitive] if edge_source == source)


def mixed_edges(space: SearchSpace) -> dict[str, tuple[Edge, ...]]:
    """Every primitive of ``space`` on every edge, source-major."""
    edges = tuple(sorted(space.edges, key=lambda edge: (edge[1], edge[0])))
    return {name: edges for name in space.primitives if PRIMITIVES[name].run is not None}


def chosen_edges(genotype: Genotype, kind: str) -> dict[str, tuple[Edge, ...]]:
    """Each primitive of ``genotype`` on the edges that chose it, source-major."""
    active: dict[str, list[Edge]] = {}
    for node, source, name in genotype.choices(kind):
        active.setdefault(name, []).append((node, source))
    return {name: tuple(sorted(edges, key=lambda edge: (edge[1], edge[0]))) for name, edges in active.items()}


def cell_shapes(spec: CellSpec) -> Shapes:
    """Parameter names and shapes of one cell, without a task axis."""
    shapes: Shapes = {}
    for index, channels in enumerate(spec.inputs):
        shapes[f"preprocess{index}.conv"] = (channels, spec.channels)
        if spec.affine:
            shapes.update(_affine(f"preprocess{index}.norm", (spec.channels,)))
    for name, edges in spec.active.items():
        for stride in (1, 2):
            at_stride = [edge for edge in edges if spec.stride(edge[1]) == stride]
            shapes.update(_candidate_shapes(spec, name, stride, len(at_stride)))
    return shapes


def _candidate_shapes(spec: CellSpec, name: str, stride: int, edges: int) -> Shapes:
    """Tensors of one primitive on its ``edges`` of this stride; stride 2 has its own, since shapes may differ."""
    if not edges:
        return {}
    prefix = _prefix(name, stride)
    primitive = PRIMITIVES[name]
    shapes = {prefix + key: (edges, *shape) for key, shape in primitive.shapes(spec.channels, stride).items()}
    if spec.affine:
        for norm in primitive.norms(stride):
            shapes.update(_affine(prefix + norm, (edges, spec.channels)))
    return shapes


def _prefix(name: str, stride: int) -> str:
    return f"{name}." if stride == 1 else f"{name}.stride2."


def _affine(prefix: str, shape: tuple[int, ...]) -> Shapes:
    return {f"{prefix}.weight": shape, f"{prefix}.bias": shape}


def run_cell(
    spec: CellSpec,
    params: Params,
    inputs: list[Tensor],
    weights: Mapping[int, Tensor] | None,
    statistics: Statistics,
) -> Tensor:
    """The output of one cell.

    Args:
        spec: the cell.
        params: its tensors [T, ...], names as in `cell_shapes`.
        inputs: the input states, each [T, N, H, W, C_in].
        weights: source state -> [K, T, E] weights of its K running candidates on its E edges; None for a discrete
            cell, where every active candidate counts once.
        statistics: of batch norm.

    Returns:
        [T, N, h, w, out_channels]
    """
    states = [_preprocess(spec, params, index, x, statistics) for index, x in enumerate(inputs)]
    pieces = _parameters_by_source(spec, params)
    sums: list[Tensor | None] = [None] * spec.nodes
    for source in range(len(inputs) + spec.nodes):
        if source >= len(inputs):
            states.append(_node(sums[source - len(inputs)], spec, source))
        needed = {} if weights is None or source not in weights else _needed(spec, weights[source], source)
        outputs = _candidates(spec, states[source], pieces[source], source, statistics, needed)
        if weights is not None and outputs:
            targets = spec.targets(next(iter(outputs)), source)
            kept = [k for k, name in enumerate(_running(spec, source)) if name in outputs]
            by_candidate = weights[source] if len(kept) == len(weights[source]) else weights[source][kept]
            for node, part in zip(targets, mix(list(outputs.values()), by_candidate), strict=True):
                _add(sums, node, part)
            continue
        for name, output in outputs.items():
            parts = output.unbind(1)
            for position, node in enumerate(spec.targets(name, source)):
                _add(sums, node, parts[position if len(parts) > 1 else 0])
    return torch.cat([states[state] for state in spec.concat], dim=-1)


def _node(total: Tensor | None, spec: CellSpec, source: int) -> Tensor:
    if total is None:
        raise ValueError(f"node {source - len(spec.inputs)} of a {spec.kind} cell has no active edge")
    return total


def _add(sums: list[Tensor | None], node: int, part: Tensor) -> None:
    """Add one edge's output [T, N, h, w, C] to its target node's sum."""
    before = sums[node]
    sums[node] = part if before is None else before + part


def _preprocess(spec: CellSpec, params: Params, index: int, x: Tensor, statistics: Statistics) -> Tensor:
    """ReLU, 1x1 convolution, batch norm."""
    y = separable(x.unsqueeze(1), None, params[f"preprocess{index}.conv"].unsqueeze(1), statistics.rows)
    if spec.affine:
        norm = f"preprocess{index}.norm"
        y = affine(y, params[f"{norm}.weight"].unsqueeze(1), params[f"{norm}.bias"].unsqueeze(1))
    return y.squeeze(1)


def _parameters_by_source(spec: CellSpec, params: Params) -> list[dict[str, dict[str, Tensor]]]:
    """source state -> primitive -> its tensors on that state's edges."""
    sources = len(spec.inputs) + spec.nodes
    pieces: list[dict[str, dict[str, Tensor]]] = [{} for _ in range(sources)]
    for name, edges in spec.active.items():
        for stride in (1, 2):
            of_stride = [s for s in range(sources) if spec.stride(s) == stride]
            counts = tuple(sum(edge[1] == source for edge in edges) for source in of_stride)
            prefix = _prefix(name, stride)
            own = {k: v for k, v in params.items() if k.startswith(prefix) and (stride == 2 or ".stride2." not in k)}
            for source, piece in zip(of_stride, slice_edges(own, prefix, counts), strict=True):
                pieces[source][name] = piece
    return pieces


def _running(spec: CellSpec, source: int) -> list[str]:
    """The primitives that run on edges from ``source``, in the order of their weights."""
    return [name for name in spec.active if spec.targets(name, source) and PRIMITIVES[name].run is not None]


def _needed(spec: CellSpec, weights: Tensor, source: int) -> dict[str, Tensor]:
    """primitive -> [T, E] where its weight [K, T, E] is not exactly zero; one that is nowhere needed gets no row.

    Weights that are still to be differentiated need every candidate: the gradient at zero is the candidate itself. Only
    constant ones (pruned, sampled, fixed) let it be skipped, and only on a CPU: to look at them would make a GPU wait.
    """
    names = _running(spec, source)
    if weights.requires_grad or weights.device.type != "cpu":
        return {}
    counts = weights != 0
    some = counts.flatten(1).any(1).tolist()
    return {name: counts[k] for k, name in enumerate(names) if some[k] or (k == 0 and not any(some))}


def _candidates(
    spec: CellSpec,
    state: Tensor,
    pieces: Mapping[str, Mapping[str, Tensor]],
    source: int,
    statistics: Statistics,
    needed: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """primitive -> its outputs [T, E or 1, N, h, w, C] on the active edges from ``source``; all but the not needed."""
    outputs = {}
    for name in needed or _running(spec, source):
        run, where = PRIMITIVES[name].run, needed.get(name)
        if run is not None:
            where = None if where is None or bool(where.all()) else where
            outputs[name] = run(
                state, EdgeContext(pieces[name], spec.stride(source), statistics, spec.pool_norm, where)
            )
    return outputs
