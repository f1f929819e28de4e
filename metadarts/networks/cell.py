"""A cell: every candidate of every edge, run once per source state rather than once per edge.

All edges that leave one state read the same tensor, so their candidates are folded into channels and run together: the
depthwise filters of a state's E edges are one convolution, their pointwise products one batched product, and pools and
identities, which hold no parameters, are computed once for all of them. A DARTS cell has 14 edges but 5 source states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from metadarts.core.errors import ConfigError
from metadarts.core.recording import may_look
from metadarts.core.rng import Key
from metadarts.core.types import Params
from metadarts.operations import EdgeContext, Map, Operation, Shapes, Statistics, affine, uniform
from metadarts.ops import mix, separable
from metadarts.spaces import Genotype, Kept, SearchSpace

from .blocks import BlockFolding, Mixing, norm_init
from .partial import mixed_part, passed_parts, shuffled

Edge = tuple[int, int]
"""(intermediate node, source state)."""


class Cut(NamedTuple):
    """How one tensor [T, E, ...] of a candidate is cut into the edges of each source state.

    Args:
        name: of the tensor among the network's parameters.
        own: its name within the candidate.
        sources: the source states that have an edge in it, ascending.
        sizes: edges of each.
    """

    name: str
    candidate: str
    own: str
    sources: tuple[int, ...]
    sizes: tuple[int, ...]


class Bundle(NamedTuple):
    """Primitives that leave one source state for the same nodes: what is mixed together.

    Args:
        names: of the primitives.
        targets: the nodes, ascending.
    """

    names: tuple[str, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class CellBlock:
    """One cell of a network, as data.

    Args:
        prefix: prefix of the names of its parameters, e.g. "cells.0.".
        reads: the blocks whose outputs are its input states.
        kind: "normal" or "reduce": selects its alphas, and whether its inputs have stride 2.
        channels: C, the channels of every node.
        inputs: channels of the cell's input states.
        nodes: intermediate nodes.
        active: for each primitive, the edges on which it runs, in source-major order: by source state, then by node.
            Its tensors hold one slice per active edge, in this order.
        concat: the states whose concatenation is the output.
        operations: of the primitives.
        affine: whether batch norms outside pools have weight and bias.
        pool_norm: whether pools are followed by batch norm.
        partial: K: candidates run on the first 1/K of a state's channels and the others bypass them; see `partial`.
    """

    prefix: str
    reads: tuple[int, ...]
    kind: str
    channels: int
    inputs: tuple[int, ...]
    nodes: int
    active: Mapping[str, tuple[Edge, ...]]
    concat: tuple[int, ...]
    operations: Mapping[str, Operation]
    affine: bool = False
    pool_norm: bool = True
    partial: int = 1
    cuts: tuple[Cut, ...] = field(init=False, repr=False, compare=False)
    running: tuple[tuple[str, ...], ...] = field(init=False, repr=False, compare=False)
    targets: tuple[Mapping[str, tuple[int, ...]], ...] = field(init=False, repr=False, compare=False)
    bundles: tuple[tuple[Bundle, ...], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile what a pass looks up: where each tensor is cut, and by source state what runs and what it feeds."""
        states = range(len(self.inputs) + self.nodes)
        targets = tuple({name: self._targets(name, source) for name in self.active} for source in states)
        object.__setattr__(self, "targets", targets)
        object.__setattr__(self, "running", tuple(tuple(n for n in self.active if targets[s][n]) for s in states))
        object.__setattr__(self, "bundles", tuple(self._bundles(source) for source in states))
        object.__setattr__(self, "cuts", tuple(self._cuts()))

    @property
    def out_channels(self) -> int:
        return self.channels * len(self.concat)

    @property
    def mixed(self) -> int:
        """Channels of a state on which candidates run."""
        return self.channels // self.partial

    def size(self, height: int, width: int) -> tuple[int, int]:
        return ((height + 1) // 2, (width + 1) // 2) if self.kind == "reduce" else (height, width)

    def stride(self, source: int) -> int:
        return 2 if self.kind == "reduce" and source < len(self.inputs) else 1

    def _targets(self, primitive: str, source: int) -> tuple[int, ...]:
        """The nodes that ``primitive`` feeds from state ``source``, ascending."""
        return tuple(node for node, edge_source in self.active[primitive] if edge_source == source)

    def _bundles(self, source: int) -> tuple[Bundle, ...]:
        """What is mixed of the primitives that leave ``source``: one bundle where all of them run on all edges."""
        names: dict[tuple[int, ...], list[str]] = {}
        for name in self.running[source]:
            names.setdefault(self.targets[source][name], []).append(name)
        return tuple(Bundle(tuple(own), targets) for targets, own in names.items())

    def edges_at(self, primitive: str, stride: int) -> tuple[Edge, ...]:
        """The edges of ``primitive`` at this stride: the slices of its tensors, in their order."""
        return tuple(edge for edge in self.active[primitive] if self.stride(edge[1]) == stride)

    def shapes(self) -> Shapes:
        shapes: Shapes = {}
        for index, channels in enumerate(self.inputs):
            shapes[f"preprocess{index}.conv"] = (channels, self.channels)
            if self.affine:
                shapes |= _affine(f"preprocess{index}.norm", (self.channels,))
        for name in self.active:
            for stride in (1, 2):
                shapes |= self._candidate_shapes(name, stride)
        return shapes

    def _candidate_shapes(self, name: str, stride: int) -> Shapes:
        """Tensors of one primitive on its edges of this stride; stride 2 has its own, since shapes may differ."""
        edges, operation = len(self.edges_at(name, stride)), self.operations[name]
        if not edges:
            return {}
        own = candidate_prefix(name, stride)
        shapes = {own + key: (edges, *shape) for key, shape in operation.shapes(self.mixed, stride).items()}
        if self.affine:
            for norm in operation.norms(stride):
                shapes |= _affine(own + norm, (edges, self.mixed))
        return shapes

    def init(self, name: str, shape: tuple[int, ...], key: Key) -> Tensor:
        if is_preprocess(name):
            return uniform(shape, shape[-2], key) if name.endswith(".conv") else norm_init(name, shape)
        primitive, own, stride = split_candidate(name)
        operation = self.operations[primitive]
        if own.rpartition(".")[0] in operation.norms(stride):
            return norm_init(name, shape)
        return operation.init(own, shape, key)

    def _cuts(self) -> list[Cut]:
        found = []
        for name in self.shapes():
            if is_preprocess(name):
                continue
            primitive, own, stride = split_candidate(name)
            sources = [source for _, source in self.edges_at(primitive, stride)]
            order = tuple(dict.fromkeys(sources))
            found.append(Cut(self.prefix + name, primitive, own, order, tuple(map(sources.count, order))))
        return found

    def run(self, params: Params, inputs: Sequence[Tensor], mixing: Mixing, statistics: Statistics) -> Tensor:
        """The output [T, N, h, w, out_channels]; without ``mixing`` of its kind every active candidate counts once."""
        weights = mixing.get(self.kind)
        states = [self._preprocess(params, index, x, statistics) for index, x in enumerate(_aligned(inputs))]
        pieces = self._cut(params)
        sums: list[Tensor | None] = [None] * self.nodes
        passed: list[Tensor | None] = [None] * self.nodes
        for source in range(len(inputs) + self.nodes):
            if source >= len(inputs):
                states.append(self._node(sums, passed, source - len(inputs)))
            self._pass(passed, states[source], source, mixing)
            own = () if weights is None else weights.get(source, ())
            needed = self._needed(own, source, mixing)
            state = mixed_part(states[source], self.mixed)
            outputs = self._candidates(state, pieces[source], source, statistics, needed)
            self._feed(sums, outputs, source, own, mixing.masks)
        return torch.cat([states[state] for state in self.concat], dim=-1)

    def _preprocess(self, params: Params, index: int, x: Tensor, statistics: Statistics) -> Tensor:
        """ReLU, 1x1 convolution, batch norm."""
        name = f"{self.prefix}preprocess{index}"
        y = separable(x.unsqueeze(1), None, params[f"{name}.conv"].unsqueeze(1), statistics.rows)
        if self.affine:
            weight, bias = (params[f"{name}.norm.{part}"].unsqueeze(1) for part in ("weight", "bias"))
            y = affine(y, weight, bias)
        return y.squeeze(1)

    def _cut(self, params: Params) -> list[dict[str, dict[str, Tensor]]]:
        """source state -> primitive -> its tensors on that state's edges."""
        pieces: list[dict[str, dict[str, Tensor]]] = [{} for _ in self.running]
        for cut in self.cuts:
            tensor = params[cut.name]
            parts = tensor.split(cut.sizes, dim=1) if len(cut.sizes) > 1 else (tensor,)
            for source, part in zip(cut.sources, parts, strict=True):
                pieces[source].setdefault(cut.candidate, {})[cut.own] = part
        return pieces

    def _candidates(
        self,
        state: Tensor,
        pieces: Mapping[str, Mapping[str, Tensor]],
        source: int,
        statistics: Statistics,
        needed: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """primitive -> its outputs [T, E or 1, N, h, w, C] on the active edges from ``source``, where it is needed."""
        outputs = {}
        for name in needed or self.running[source]:
            run, where = self.operations[name].run, needed.get(name)
            if run is not None:
                where = None if where is None or (may_look(where) and bool(where.all())) else where
                context = EdgeContext(pieces.get(name, {}), self.stride(source), statistics, self.pool_norm, where)
                outputs[name] = run(state, context)
        return outputs

    def _needed(self, weights: Sequence[Tensor], source: int, mixing: Mixing) -> dict[str, Tensor]:
        """primitive -> [T, E] where its weight is not exactly zero, where it is not to run everywhere.

        A weight that is to be differentiated at zero needs its candidate, which is its gradient there. Where nobody may
        look at weights (on a GPU, which would wait; in a step that is recorded) every candidate has a row if such zeros
        are the rule, and none otherwise. Where one looks, no row at all says that all are needed everywhere, and a
        candidate without a row is needed nowhere.

        Args:
            weights: for each bundle of ``source`` its [K, T, E].
        """
        if not all(may_look(table) for table in weights):
            pairs = zip(self.bundles[source], weights, strict=True) if mixing.masks else ()
            return {
                name: row
                for bundle, table in pairs
                for name, row in zip(bundle.names, table.detach() != 0, strict=True)
            }
        if any(table.requires_grad for table in weights) and not mixing.skips:
            return {}
        found: dict[str, Tensor] = {}
        whole = True
        for bundle, table in zip(self.bundles[source], weights, strict=bool(weights)):
            counts = table.detach() != 0
            whole = whole and bool(counts.all())
            some = counts.flatten(1).any(1).tolist()
            for k, name in enumerate(bundle.names):
                if some[k] or (k == 0 and not any(some)):
                    found[name] = counts[k]
        return {} if whole else found

    def _feed(
        self,
        sums: list[Tensor | None],
        outputs: Mapping[str, Tensor],
        source: int,
        weights: Sequence[Tensor],
        skips: bool,
    ) -> None:
        """Add what leaves ``source`` to the sums of the nodes that it feeds: mixed by ``weights``, or all alike.

        Args:
            skips: whether weights of 0 have no derivative, and are the rule.
        """
        for bundle, table in zip(self.bundles[source], weights, strict=bool(weights)):
            kept = [k for k, name in enumerate(bundle.names) if name in outputs]
            by_candidate = table if len(kept) == len(table) else table[kept]
            parts = mix([outputs[bundle.names[k]] for k in kept], by_candidate, skips=skips or not table.requires_grad)
            for node, part in zip(bundle.targets, parts, strict=True):
                _add(sums, node, part)
        for name, output in {} if weights else outputs.items():
            parts = output.unbind(1)
            for position, node in enumerate(self.targets[source][name]):
                _add(sums, node, parts[position if len(parts) > 1 else 0])

    def _pass(self, passed: list[Tensor | None], state: Tensor, source: int, mixing: Mixing) -> None:
        """Add what passes by the candidates on the edges from ``source``, where only a part is mixed."""
        weights = mixing.edges.get(self.kind, {}).get(source)
        if self.partial == 1 or weights is None:
            return
        parts = passed_parts(state, self.mixed, self.stride(source), weights)
        for node, part in zip(range(self.nodes - len(parts), self.nodes), parts, strict=True):
            _add(passed, node, part)

    def _node(self, sums: list[Tensor | None], passed: list[Tensor | None], node: int) -> Tensor:
        total, beside = sums[node], passed[node]
        if total is None:
            raise ValueError(f"node {node} of a {self.kind} cell has no active edge")
        return total if beside is None else shuffled(total, beside, self.partial)

    def fold(self, layers: BlockFolding, inputs: Sequence[Map], mixing: Mixing) -> Map:
        if self.partial > 1:
            raise ConfigError(
                f"a supernet that mixes 1/{self.partial} of its channels cannot be exported: derive a cell and train "
                "that, or search with model.partial 1"
            )
        weights, place = mixing.get(self.kind), 0
        states = self._fold_inputs(layers, inputs)
        for node in range(self.nodes):
            parts = []
            for source, name, weight in self._feeding(node, weights):
                parts.append(self._fold_edge(layers, f"edges.{place}", (node, source, name), states[source], weight))
                place += 1
            if not parts:
                raise ValueError(f"node {node} of {self.prefix[:-1]} has no edge of weight above 0")
            states.append(layers.add(*parts) if len(parts) > 1 else parts[0])
        return layers.concatenate(*[states[state] for state in self.concat])

    def _fold_inputs(self, layers: BlockFolding, inputs: Sequence[Map]) -> list[Map]:
        smallest = min(tuple(x.values.shape[2:]) for x in inputs)
        states = []
        for index, x in enumerate(inputs):
            aligned = x if tuple(x.values.shape[2:]) == smallest else layers.every_second(x)
            part, name = layers.part(f"preprocess.{index}"), f"preprocess{index}"
            mixing = part.own(f"{name}.conv").T[:, :, None, None]
            states.append(part.convolution(part.relu(aligned), mixing, norm=f"{name}.norm"))
        return states

    def _feeding(self, node: int, weights: Mapping[int, Sequence[Tensor]] | None) -> Iterator[tuple[int, str, float]]:
        """(source, operation, weight) of all that runs on the edges into ``node`` and has a weight."""
        for source in range(len(self.inputs) + node):
            for place, (names, targets) in enumerate(self.bundles[source]):
                for k, name in enumerate(names if node in targets else ()):
                    weight = 1.0 if weights is None else float(weights[source][place][k, 0, targets.index(node)])
                    if weight:
                        yield source, name, weight

    def _fold_edge(self, layers: BlockFolding, name: str, edge: tuple[int, int, str], state: Map, weight: float) -> Map:
        node, source, primitive = edge
        fold, stride = self.operations[primitive].fold, self.stride(source)
        if fold is None:
            raise ConfigError(f"operation {primitive!r} has no `fold`, which an export needs: give it one")
        row, prefix = self.edges_at(primitive, stride).index((node, source)), candidate_prefix(primitive, stride)
        tensors = self._candidate_shapes(primitive, stride)
        own = {key.removeprefix(prefix): layers.own(key)[row] for key in tensors}
        place = layers.edge(name, own, stride=stride, pool_norm=self.pool_norm)
        return place.weighed(fold(place, state), weight)


@dataclass(frozen=True)
class Cells:
    """Creates the cells of one network: of the supernet, which runs every primitive on every edge, or of a genotype.

    Args:
        space: whose cells.
        genotype: None for the supernet.
        operations: of the space's primitives.
        affine, pool_norm: see `CellBlock`.
        kept: the remaining candidates of a supernet; None for all.
        partial: for a supernet, see `CellBlock`; a discrete cell runs on all channels.
    """

    space: SearchSpace
    genotype: Genotype | None
    operations: Mapping[str, Operation]
    affine: bool = False
    pool_norm: bool = True
    kept: Kept | None = None
    partial: int = 1

    def cell(self, prefix: str, kind: str, channels: int, reads: tuple[int, ...], inputs: tuple[int, ...]) -> CellBlock:
        """A cell of ``kind``, see `CellBlock`.

        Raises:
            ConfigError: for an odd number of channels, or if the space's cells read another number of blocks.
        """
        if channels < 2 or channels % 2:
            raise ConfigError(f"a cell halves its channels where it reduces: expected an even number, got {channels}")
        if len(reads) != self.space.inputs:
            raise ConfigError(
                f"a cell of this network reads the {len(reads)} before it: expected a space of {len(reads)} inputs, "
                f"got {self.space.name!r} of {self.space.inputs}; give another space, or a macro network that fits it"
            )
        partial = self.partial if self.genotype is None else 1
        if channels % (2 * partial):
            raise ConfigError(
                f"network.partial: expected a number that divides half of a cell's {channels} channels, got {partial}"
            )
        genotype, space = self.genotype, self.space
        kept = self.kept or Kept.everything(space)
        mixed = mixed_edges(kept.edges(space, kind), self.operations)
        active = mixed if genotype is None else chosen_edges(genotype, kind)
        concat = space.concat if genotype is None else genotype.concat(kind)
        return CellBlock(
            prefix, reads, kind, channels, inputs, space.nodes, active, concat,
            self.operations, self.affine, self.pool_norm, partial,
        )  # fmt: skip

    def out_channels(self, kind: str, channels: int) -> int:
        """Channels of the output of a cell of ``kind`` whose nodes have ``channels``."""
        concat = self.space.concat if self.genotype is None else self.genotype.concat(kind)
        return channels * len(concat)


def mixed_edges(
    left: Mapping[str, tuple[Edge, ...]], operations: Mapping[str, Operation]
) -> dict[str, tuple[Edge, ...]]:
    """Every primitive that does something on the edges where it is ``left``, source-major."""
    running = {name: edges for name, edges in left.items() if operations[name].run is not None and edges}
    return {name: _source_major(edges) for name, edges in running.items()}


def chosen_edges(genotype: Genotype, kind: str) -> dict[str, tuple[Edge, ...]]:
    """Each primitive of ``genotype`` on the edges that chose it, source-major."""
    active: dict[str, list[Edge]] = {}
    for node, source, name in genotype.choices(kind):
        active.setdefault(name, []).append((node, source))
    return {name: _source_major(edges) for name, edges in active.items()}


def _source_major(edges: Sequence[Edge]) -> tuple[Edge, ...]:
    return tuple(sorted(edges, key=lambda edge: (edge[1], edge[0])))


def candidate_prefix(primitive: str, stride: int) -> str:
    """What the names of a primitive's tensors begin with, within a cell."""
    return f"{primitive}." if stride == 1 else f"{primitive}.stride2."


def split_candidate(name: str) -> tuple[str, str, int]:
    """(primitive, own name, stride) of a candidate's tensor, named as within its cell."""
    primitive, _, own = name.partition(".")
    return primitive, own.removeprefix("stride2."), 2 if own.startswith("stride2.") else 1


def is_preprocess(name: str) -> bool:
    """Whether a tensor, named as within its cell, belongs to the layers that bring an input to the cell's channels."""
    layer = name.partition(".")[0]
    return layer.startswith("preprocess") and layer.removeprefix("preprocess").isdecimal()


def _affine(prefix: str, shape: tuple[int, ...]) -> Shapes:
    return {f"{prefix}.weight": shape, f"{prefix}.bias": shape}


def _add(sums: list[Tensor | None], node: int, part: Tensor) -> None:
    """Add one edge's output [T, N, h, w, C] to its target node's sum."""
    before = sums[node]
    sums[node] = part if before is None else before + part


def _aligned(inputs: Sequence[Tensor]) -> list[Tensor]:
    """The input states of a cell at one size: after a reduction an older one is taken at every second pixel."""
    smallest = min((x.shape[2:4] for x in inputs), key=tuple)
    return [x if x.shape[2:4] == smallest else x[:, :, ::2, ::2].contiguous() for x in inputs]
