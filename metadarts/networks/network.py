"""Networks as pure functions of their parameters: a sequence of blocks, a head, and the alphas of the cells' decisions.

The same code runs one set of parameters (no task axis) and T sets at once (leading task axis on every tensor).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from metadarts.core.errors import ConfigError, GenotypeError, NumericsError
from metadarts.core.rng import Key
from metadarts.core.types import (
    ALPHA_PREFIX,
    FINISHED,
    START_PREFIX,
    Params,
    Stage,
    TaskBatch,
    alphas_of,
    group_of,
    is_alpha,
)
from metadarts.operations import OPERATIONS, Map, Operation, Shapes, Statistics, uniform
from metadarts.relaxations import CLOSED, DEFAULT_RELAXATION, Relaxation, is_sparse, zeros_learn
from metadarts.spaces import Decision, Genotype, Kept, SearchSpace

from .alpha_starts import DEFAULT_START, AlphaStart, AlphaStartContext
from .blocks import IMAGE, Block, BlockFolding, Mixing, Stem
from .cell import CellBlock, Cells, is_preprocess, split_candidate
from .structure import NetworkSpec, Structure

Output = TypeVar("Output")


@dataclass(frozen=True)
class Network:
    """A cell network that stores no parameters; see `supernet` and `discrete_network`.

    Args:
        spec: the macro structure.
        space: the search space its cells come from.
        genotype: None for the supernet, whose edges mix all primitives; otherwise the genotype of all cells.
        operations: of the space's primitives, by name.
        relaxation: from alphas to mixing weights.
        kept: the remaining candidates of a supernet; None for all. Dropped ones have no parameters and weight 0.
        start: from shared alphas to those that a task starts from.
    """

    spec: Structure
    space: SearchSpace
    genotype: Genotype | None = None
    operations: Mapping[str, Operation] = OPERATIONS
    relaxation: Relaxation = DEFAULT_RELAXATION
    kept: Kept | None = None
    start: AlphaStart = DEFAULT_START
    blocks: tuple[Block, ...] = field(init=False, repr=False)
    decisions: tuple[Decision, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if unknown := [name for name in self.space.primitives if name not in self.operations]:
            raise ConfigError(f"no implementation for primitives {unknown}; known: {', '.join(self.operations)}")
        if self.genotype is not None:
            self.genotype.validate(self.space)
        spec = self.spec
        cells = Cells(
            self.space, self.genotype, self.operations, spec.affine, spec.pool_norm, self.kept, spec.partial
        )  # fmt: skip
        object.__setattr__(self, "blocks", self.spec.blocks(cells))
        object.__setattr__(self, "decisions", self.space.decisions if self.mixes else ())

    def discrete(self, genotype: Genotype) -> Network:
        """The network that runs only the operations of ``genotype``. Raises GenotypeError for a genotype of another
        space."""
        return replace(self, genotype=genotype, kept=None)

    def pruned(self, kept: Kept | None) -> Network:
        """The supernet of only the candidates in ``kept``; None for all."""
        return replace(self, kept=None if kept is None or kept.is_all else kept)

    def fitting(self, params: Params) -> Network:
        """The supernet of the candidates whose alphas in ``params`` are not `CLOSED`, i.e. as pruned by a run."""
        alphas, shapes = alphas_of(params), {decision.name: decision.shape for decision in self.decisions}
        if not self.mixes or {name: tuple(table.shape) for name, table in alphas.items()} != shapes:
            return self
        return self.pruned(Kept.of(self.space, {n: (~(table <= CLOSED / 2)).tolist() for n, table in alphas.items()}))

    @property
    def cells(self) -> tuple[CellBlock, ...]:
        """The cells among the blocks."""
        return tuple(block for block in self.blocks if isinstance(block, CellBlock))

    @property
    def candidates(self) -> int:
        """Number of operations that run, over all edges of all cells."""
        return sum(len(edges) for cell in self.cells for edges in cell.active.values())

    @property
    def features(self) -> int:
        """F, the length of the feature vector of the head."""
        return self.blocks[-1].out_channels

    @property
    def mixes(self) -> bool:
        """Whether there are alphas: a supernet has them, a discrete network and one without cells do not."""
        return self.genotype is None and bool(self.cells)

    @property
    def skips_zeros(self) -> bool:
        """Whether a mixing weight of exactly 0 has no derivative in the alphas, so that its candidate need not run."""
        return not zeros_learn(self.relaxation)

    def shapes(self) -> Shapes:
        """Names and shapes of all shared parameters (no task axis), alphas included."""
        shapes: Shapes = {}
        for block in self.blocks:
            shapes |= {block.prefix + name: shape for name, shape in block.shapes().items()}
        shapes |= (
            {"head.vector": (self.features,), "head.bias": ()} if self.spec.head == "shared" else {"head.scale": ()}
        )
        shapes |= {ALPHA_PREFIX + decision.name: decision.shape for decision in self.decisions}
        return shapes | {START_PREFIX + name: shape for name, shape in self._start_shapes.items()}

    @functools.cached_property
    def _start_shapes(self) -> Shapes:
        return self.start.shapes(self.decisions, self.spec.in_channels) if self.mixes else {}

    def init(self, key: Key) -> Params:
        """Initial float32 parameters: convolutions with torch's default (uniform, 1/sqrt(fan in)), alphas 1e-3 N(0,
        1)."""
        fresh = {}
        for block in self.blocks:
            for own, shape in block.shapes().items():
                name = block.prefix + own
                fresh[name] = block.init(own, shape, key.child(name))
        return {
            name: fresh[name] if name in fresh else self._init_one(name, shape, key.child(name))
            for name, shape in self.shapes().items()
        }

    def _init_one(self, name: str, shape: tuple[int, ...], key: Key) -> Tensor:
        """Of the head, of the alphas and of their start."""
        if group_of(name) == "start":
            return self.start.init(name.removeprefix(START_PREFIX), shape, key)
        if is_alpha(name):
            return 1e-3 * torch.randn(shape, generator=key.torch())
        if name == "head.scale":
            return torch.tensor(self.spec.logit_scale)
        return uniform(shape, self.features, key)

    def count(self, ways: int) -> tuple[int, int]:
        """(weights, alphas), the head counted as the linear layer of a ``ways``-way task."""
        sizes = {name: math.prod(shape) for name, shape in self.shapes().items()}
        alphas = sum(size for name, size in sizes.items() if group_of(name) == "alphas")
        body = sum(size for name, size in sizes.items() if group_of(name) == "body")
        return body + ways * (self.features + 1), alphas

    def starting_alphas(self, params: Params, batch: TaskBatch, at: Stage = FINISHED) -> Params:
        """The alphas that each task of ``batch`` starts from, by parameter name.

        Args:
            params: shared parameters on the task axis, [T, ...].
        """
        found = self.start.alphas(AlphaStartContext(alphas_of(params), _own(params), batch, at))
        return {ALPHA_PREFIX + name: table for name, table in found.items()}

    def prepared(self, params: Params, batches: Iterable[TaskBatch]) -> Params:
        """Initial ``params``, with what the start of the alphas takes from training tasks before the first step."""
        found = self.start.prepare(_own(params), batches) if self.mixes else {}
        return params | {START_PREFIX + name: tensor for name, tensor in found.items()}

    def weights_of(
        self, params: Params, at: Stage = FINISHED, noise: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """cell type -> mixing weights [..., E, P]: the relaxed operations, times the weight of their edge if alphas
        choose the inputs of a node.

        Args:
            at: stage of the task and the run.
            noise: decision -> the draw of the relaxation for this stage, with the shape of its alphas.

        Raises:
            ConfigError: when this network is not a supernet.
        """
        if not self.mixes:
            raise ConfigError("weights_of: this network has no alphas, and so no mixing weights")
        alphas, noise = alphas_of(params), noise or {}
        relaxed = {d.name: self._relaxed(d, alphas[d.name], at, noise.get(d.name)) for d in self.decisions}
        return {cell: self._combined(cell, relaxed) for cell in self.space.cell_types}

    def _relaxed(self, decision: Decision, alpha: Tensor, at: Stage, noise: Tensor | None) -> Tensor:
        """Mixing weights of one decision: those of the candidates that are left, and 0 for the others."""
        if decision.name not in self._left:
            return self.relaxation.weights(alpha, at, noise)
        left = _mask(self._left[decision.name], alpha.device)
        return torch.where(left, self.relaxation.weights(torch.where(left, alpha, CLOSED), at, noise), 0.0)

    @functools.cached_property
    def _left(self) -> dict[str, tuple[tuple[bool, ...], ...]]:
        """decision -> its rows of candidates, True where one is left; empty where nothing is dropped."""
        return {} if self.kept is None else self.kept.named(self.space)

    def _combined(self, cell: str, relaxed: Mapping[str, Tensor]) -> Tensor:
        """The weights of one cell type's operations and edges as one table."""
        table = relaxed[cell]
        inputs = [decision for decision in self.decisions if decision.cell == cell and decision.node is not None]
        if not inputs:
            return table
        edges = torch.cat([relaxed[d.name][..., 0, :] @ _members(self.space.inputs, d, table) for d in inputs], dim=-1)
        return table * edges.unsqueeze(-1)

    def embed(
        self,
        params: Params,
        images: Tensor,
        statistics: Statistics | None = None,
        weights: Mapping[str, Tensor] | None = None,
        skips: bool = False,
    ) -> Tensor:
        """Feature vectors before the head.

        Args:
            params: with a task axis [T, ...], or without one.
            images: [T, N, C, H, W], or [N, C, H, W] without a task axis; see `metadarts.core.types.channels_last`.
            statistics: of batch norm; by default every image of a task counts equally.
            weights: cell type -> [T, E, P] (or [E, P]) instead of the relaxed alphas of a finished task.
            skips: whether ``weights`` of exactly 0 have no derivative, see `skips_zeros`; constants have none.

        Returns:
            [T, N, F], or [N, F].

        Raises:
            NumericsError: when a batch norm would see fewer than two values per channel.
        """
        if images.dim() == 4:
            lifted = {name: tensor.unsqueeze(0) for name, tensor in params.items()}
            return self.embed(lifted, images.unsqueeze(0), statistics, weights, skips)[0]
        tasks, count, _, height, width = images.shape
        statistics = statistics or Statistics()
        self._check_statistics(count, height, width, statistics)
        mixing = self._mixing(params, weights, tasks, skips)
        image = images.permute(0, 1, 3, 4, 2).contiguous()
        return self._through(image, lambda block, inputs: block.run(params, inputs, mixing, statistics))

    def fold(
        self,
        layers_of: Callable[[Block], BlockFolding],
        params: Params,
        image: Map,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Map:
        """Describe every block with the layers that ``layers_of`` gives for it. Returns the feature vector [S, F].

        Args:
            params: of one task, without a task axis.
            weights: cell type -> [E, P] instead of the relaxed alphas of a finished task.
        """
        mixing = self._mixing(params, weights, 1, False)
        return self._through(image, lambda block, inputs: block.fold(layers_of(block), inputs, mixing))

    def _through(self, image: Output, step: Callable[[Block, Sequence[Output]], Output]) -> Output:
        """The last block's output; each is kept until it was last read."""
        outputs = {IMAGE: image}
        for place, block in enumerate(self.blocks):
            outputs[place] = step(block, [outputs[read] for read in block.reads])
            for spent in self._last_reads[place]:
                del outputs[spent]
        return outputs[len(self.blocks) - 1]

    @functools.cached_property
    def _last_reads(self) -> tuple[tuple[int, ...], ...]:
        """For each block, the outputs that nothing after it reads."""
        last = {read: place for place, block in enumerate(self.blocks) for read in block.reads}
        return tuple(tuple(read for read, at in last.items() if at == place) for place in range(len(self.blocks)))

    def logits(
        self,
        params: Params,
        images: Tensor,
        statistics: Statistics | None = None,
        weights: Mapping[str, Tensor] | None = None,
        skips: bool = False,
    ) -> Tensor:
        """Class scores [T, N, ways] of task parameters (`head.weight` [T, ways, F], `head.bias` [T, ways])."""
        features = self.embed(params, images, statistics, weights, skips)
        return features @ params["head.weight"].mT + params["head.bias"].unsqueeze(-2)

    def _mixing(self, params: Params, weights: Mapping[str, Tensor] | None, tasks: int, skips: bool) -> Mixing:
        """The weights of the running candidates of every cell."""
        if not self.mixes:
            return Mixing()
        if weights is None:
            weights, skips = self.weights_of(params), self.skips_zeros
        bundled = {kind: self._bundled(kind, table, tasks) for kind, table in weights.items()}
        passing = weights if self.spec.partial > 1 else {}
        edges = {kind: self._by_source(table, tasks) for kind, table in passing.items()}
        return Mixing(bundled, skips, skips and is_sparse(self.relaxation), edges)

    def _by_source(self, table: Tensor, tasks: int) -> dict[int, Tensor]:
        """source state -> the weights [T, E] of the edges that leave it: all that an edge's candidates weigh together,
        the zero operation too. Where candidates share a weight of 1, that is the edge's own."""
        edges = table.sum(-1).expand(tasks, self.space.num_edges)
        rows = {source: self.space.edges_from(source) for source in range(self.space.inputs + self.space.nodes)}
        return {s: edges.index_select(1, _positions(own, edges.device)) for s, own in rows.items() if own}

    def _bundled(self, kind: str, table: Tensor, tasks: int) -> dict[int, list[Tensor]]:
        """source state -> for each bundle of the cells of ``kind`` its part [K, T, E] of the weights [T, E, P]."""
        table = table.expand(tasks, *self.space.alpha_shape)
        by_candidate = table.permute(2, 0, 1).index_select(0, _positions(self._running, table.device))
        found: dict[int, list[Tensor]] = {}
        for source, rows, edges in self._bundles.get(kind, ()):
            part = by_candidate.index_select(2, _positions(edges, table.device))
            whole = len(rows) == len(self._running)
            part = part if whole else part.index_select(0, _positions(rows, table.device))
            found.setdefault(source, []).append(part)
        return found

    @functools.cached_property
    def _running(self) -> tuple[int, ...]:
        """Columns of the primitives that do something."""
        return tuple(i for i, name in enumerate(self.space.primitives) if self.operations[name].run is not None)

    @functools.cached_property
    def _bundles(self) -> dict[str, list[tuple[int, tuple[int, ...], tuple[int, ...]]]]:
        """cell kind -> (source state, candidates among the running ones, rows of the edges) of every bundle."""
        running = [self.space.primitives[column] for column in self._running]
        return {
            cell.kind: [
                (
                    source,
                    tuple(map(running.index, names)),
                    tuple(self.space.edge_index(node, source) for node in targets),
                )
                for source, bundles in enumerate(cell.bundles)
                for names, targets in bundles
            ]
            for cell in self.cells
        }

    def _check_statistics(self, count: int, height: int, width: int, statistics: Statistics) -> None:
        halvings = sum(block.stages for block in self.blocks if isinstance(block, Stem))
        if min(height, width) < 2**halvings:
            raise NumericsError(
                f"{halvings} convolutional blocks halve an image as often and need at least "
                f"{2**halvings}x{2**halvings} pixels, got {height}x{width}: use larger images"
            )
        height, width = self._sizes(height, width)[-1]
        images = count if statistics.images is None else statistics.images
        if images * height * width < 2:
            raise NumericsError(
                f"batch statistics need at least 2 values per channel, got {images} image(s) with a last map of "
                f"{height}x{width}: use more support images or larger ones"
            )

    def _sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Height and width of every block's output."""
        sizes = {IMAGE: (height, width)}
        for place, block in enumerate(self.blocks):
            sizes[place] = block.size(*min(sizes[read] for read in block.reads))
        return [sizes[place] for place in range(len(self.blocks))]

    def positions(self, height: int, width: int) -> tuple[int, ...]:
        """Output positions of every cell for images of this size."""
        sizes = zip(self.blocks, self._sizes(height, width), strict=True)
        return tuple(h * w for block, (h, w) in sizes if isinstance(block, CellBlock))


def _own(params: Params) -> Params:
    """The parameters of the alphas' start by their own names."""
    return {name.removeprefix(START_PREFIX): tensor for name, tensor in params.items() if group_of(name) == "start"}


@functools.cache
def _positions(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Made once: a list as an index would be sent to a GPU at every step."""
    with torch.inference_mode(False):  # whoever asks first, others will differentiate with it
        return torch.tensor(numbers, device=device)


def _members(inputs: int, decision: Decision, like: Tensor) -> Tensor:
    """[candidates, sources of the node]: 1 where a candidate of ``decision`` has the source."""
    return _membership(inputs + (decision.node or 0), decision.sets, like.device).to(like.dtype)


@functools.cache
def _mask(rows: tuple[tuple[bool, ...], ...], device: torch.device) -> Tensor:
    """[rows, candidates] bool. Made once, see `_positions`."""
    with torch.inference_mode(False):
        return torch.tensor(rows, device=device)


@functools.cache
def _membership(sources: int, sets: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    """Made once, see `_positions`."""
    with torch.inference_mode(False):
        table = [[float(source in chosen) for source in range(sources)] for chosen in sets]
        return torch.tensor(table, device=device)


def supernet(space: SearchSpace, spec: Structure | None = None) -> Network:
    """The network whose every edge mixes all primitives of ``space``, weighted by the network's relaxation."""
    return Network(spec or NetworkSpec(), space)


def discrete_network(genotype: Genotype, space: SearchSpace, spec: Structure | None = None) -> Network:
    """The network that runs only the operations ``genotype`` kept."""
    return Network(spec or NetworkSpec(), space, genotype)


def inherit(network: Network, params: Params, parent: Network) -> Params:
    """The parameters of ``network``, discrete or pruned, extracted from those of its ``parent`` supernet (with or
    without a task axis). Alphas of dropped candidates are `CLOSED`.

    Both must agree on everything except the genotype and the remaining candidates: same spec, same space.

    Raises:
        ConfigError: when they do not agree; and for a discrete network, when the parent mixed only a part of its
            channels.
        GenotypeError: when ``parent`` lacks a candidate that ``network`` runs.
    """
    cut = cutter(network, parent)
    return cut({name: params[name] for name in network.shapes()}, CLOSED)


def cutter(network: Network, parent: Network) -> Callable[[Params, float], Params]:
    """(tensors with names and shapes of parameters of ``parent``, value for alphas of dropped candidates) -> those of
    ``network``, cut to its shapes. Also for the state of an outer rule. Raises as `inherit`."""
    if parent.spec != network.spec or parent.space != network.space:
        raise ConfigError("inherit: expected a parent of the same spec and space; build both from one NetworkSpec")
    if network.genotype is not None and parent.genotype is None and parent.spec.partial > 1:
        raise ConfigError(
            f"inherit: this supernet's candidates run on 1/{parent.spec.partial} of the channels (model.partial), "
            "those of a discrete network on all, so that no weights fit: train the cell from scratch"
        )
    picks: dict[str, tuple[list[int], int]] = {}
    for ours, theirs in zip(network.cells, parent.cells, strict=True):
        _require_left(ours, theirs)
        for own, shape in ours.shapes().items():
            if not is_preprocess(own):
                picks[ours.prefix + own] = _picked(own, ours, theirs), len(shape)
    left, shapes = {} if network.kept is None else network.kept.named(network.space), network.shapes()

    def cut(tensors: Params, closed: float) -> Params:
        return {name: _cut(tensors[name], name, closed) for name in shapes if name in tensors}

    def _cut(tensor: Tensor, name: str, closed: float) -> Tensor:
        if name in picks:
            rows, dims = picks[name]
            return tensor.index_select(tensor.dim() - dims, torch.tensor(rows, device=tensor.device))
        if is_alpha(name) and left:
            return torch.where(_mask(left[name.removeprefix(ALPHA_PREFIX)], tensor.device), tensor, closed)
        return tensor

    return cut


def _require_left(ours: CellBlock, theirs: CellBlock) -> None:
    """Require that the cell ``theirs`` has every candidate that ``ours`` runs. Raises GenotypeError."""
    for name, edges in ours.active.items():
        if lost := [edge for edge in edges if edge not in theirs.active.get(name, ())]:
            node, source = lost[0]
            raise GenotypeError(
                f"{ours.kind} node {node}: {name!r} on input {source} was pruned: expected one of the candidates "
                "that are left, derive the cell from this network's alphas"
            )


def _picked(own: str, ours: CellBlock, theirs: CellBlock) -> list[int]:
    """The slices of a candidate's tensor that the cell ``ours`` keeps of ``theirs``."""
    primitive, _, stride = split_candidate(own)
    edges = theirs.edges_at(primitive, stride)
    return [edges.index(edge) for edge in ours.edges_at(primitive, stride)]
