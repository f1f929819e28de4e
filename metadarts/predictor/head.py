"""From a task's vector to a distribution over the architectures of any cell space, and to alphas to start from.

Two distributions per cell: over operations for each edge, and over the sets of edges that each node keeps. A set's
probability is proportional to the exponential of the sum of its edges' scores (all sets of a node are counted: with 4
nodes there are 10 at most). An architecture's likelihood is the product over its choices (README, "The head").
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from metadarts.core.errors import GenotypeError
from metadarts.core.types import batched
from metadarts.relaxations import DEFAULT_RELAXATION, Relaxation
from metadarts.spaces import Genotype, SearchSpace

Tables = Mapping[str, Tensor]
"""By cell type."""
NEVER = -1e9
"""A score of what is not to be chosen; finite, so that its gradient is 0 and not NaN."""
LEAST_SPREAD = 1e-8
"""Of alphas that are the same for all tasks."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction of the meta-model for B tasks.

    Args:
        space: search space of the architectures.
        alphas: by cell type [B, E, P], to start the inner loop from.
        operations: by cell type [B, E, P] scores of every operation on an edge, given that the edge is kept.
        edges: by cell type [B, E] scores of every edge within its node.
    """

    space: SearchSpace
    alphas: Tables
    operations: Tables
    edges: Tables

    def log_operations(self, cell: str) -> Tensor:
        """[B, E, P] log-probabilities of a kept edge's operation; `NEVER` or less for "none"."""
        scores = self.operations[cell]
        return scores.masked_fill(_is_none(self.space, scores.device), NEVER).log_softmax(-1)

    def log_sets(self, cell: str, node: int) -> Tensor:
        """[B, S] log-probabilities of the sets of edges that ``node`` may keep, in the order of `edge_sets`."""
        first, sets = edge_sets(self.space, node)
        members = sets.to(self.edges[cell])
        return (self.edges[cell][:, first : first + sets.shape[1]] @ members.mT).log_softmax(-1)

    def log_likelihood(self, chosen: Choices) -> Tensor:
        """[B] log-probability of one architecture for each task, in nats; canonical order of a node's pairs."""
        total = torch.zeros(len(chosen.rows), device=chosen.rows.device)
        for cell in self.space.cell_types:
            operations = self.log_operations(cell)[chosen.rows]
            picked = operations.gather(-1, chosen.operations[cell].unsqueeze(-1)).squeeze(-1)
            total = total + (picked * chosen.kept[cell]).sum(-1)
            for node in range(self.space.nodes):
                sets = self.log_sets(cell, node)[chosen.rows]
                total = total + sets.gather(-1, chosen.sets[cell][:, node : node + 1]).squeeze(-1)
        return total

    def genotypes(self) -> list[Genotype]:
        """The most probable architecture of each task."""
        cells: dict[str, list[list[tuple[str, int]]]] = {}
        for cell in self.space.cell_types:
            best = self.log_operations(cell).argmax(-1).tolist()
            sets = [self.log_sets(cell, node).argmax(-1).tolist() for node in range(self.space.nodes)]
            cells[cell] = [self._pairs(best[task], [each[task] for each in sets]) for task in range(len(best))]
        concats = {c: self.space.concat if c in cells else () for c in ("normal", "reduce")}
        extra = {} if self.space.edges_per_node == 2 else {"edges_per_node": self.space.edges_per_node}
        count = len(next(iter(cells.values())))
        return [
            Genotype(
                tuple(cells.get("normal", [[]] * count)[task]), concats["normal"],
                tuple(cells.get("reduce", [[]] * count)[task]), concats["reduce"], **extra,
            ).canonical()
            for task in range(count)
        ]  # fmt: skip

    def _pairs(self, best: list[int], sets: list[int]) -> list[tuple[str, int]]:
        pairs = []
        for node, number in enumerate(sets):
            first, members = edge_sets(self.space, node)
            for source in members[number].nonzero().flatten().tolist():
                pairs.append((self.space.primitives[best[first + source]], source))
        return pairs


@dataclass(frozen=True, eq=False)
class Choices:
    """M architectures as numbers, each for one of the tasks of a `Prediction`.

    Args:
        rows: [M] which task each is for.
        kept: by cell type [M, E] 1 for an edge that is kept, else 0.
        operations: by cell type [M, E] the primitive of a kept edge, 0 elsewhere.
        sets: by cell type [M, nodes] the number of each node's set of edges, see `edge_sets`.
    """

    rows: Tensor
    kept: Tables
    operations: Tables
    sets: Tables

    def take(self, places: Tensor, rows: Tensor) -> Choices:
        """The architectures at ``places`` [K], now for the tasks ``rows`` [K]."""
        parts = ({c: t[places] for c, t in each.items()} for each in (self.kept, self.operations, self.sets))
        return Choices(rows, *parts)


def choices_of(genotypes: Sequence[Genotype], space: SearchSpace, rows: Sequence[int] | None = None) -> Choices:
    """``genotypes`` as numbers, the i-th for task ``rows[i]`` (task i by default). Raises GenotypeError."""
    if not genotypes:
        raise GenotypeError("expected at least one genotype")
    count = len(genotypes)
    kept = {c: torch.zeros(count, space.num_edges) for c in space.cell_types}
    operations = {c: torch.zeros(count, space.num_edges, dtype=torch.int64) for c in space.cell_types}
    sets = {c: torch.zeros(count, space.nodes, dtype=torch.int64) for c in space.cell_types}
    numbers = [_set_numbers(space, node) for node in range(space.nodes)]
    for at, genotype in enumerate(genotypes):
        genotype.validate(space)
        for cell in space.cell_types:
            sources: dict[int, list[int]] = {}
            for node, source, op in genotype.choices(cell):
                edge = space.edge_index(node, source)
                kept[cell][at, edge], operations[cell][at, edge] = 1.0, space.primitives.index(op)
                sources.setdefault(node, []).append(source)
            for node, found in sources.items():
                sets[cell][at, node] = numbers[node][tuple(sorted(found))]
    return Choices(torch.tensor(list(rows) if rows is not None else list(range(count))), kept, operations, sets)


@functools.cache
def edge_sets(space: SearchSpace, node: int) -> tuple[int, Tensor]:
    """(row of the node's first edge, [S, sources] 0 or 1): all sets of ``edges_per_node`` of a node's edges.

    Made once for each space, and not to be written into.
    """
    sources = space.inputs + node
    sets = list(combinations(range(sources), space.edges_per_node))
    table = torch.zeros(len(sets), sources)
    for number, chosen in enumerate(sets):
        table[number, list(chosen)] = 1.0
    return space.edge_index(node, 0), table


def _set_numbers(space: SearchSpace, node: int) -> dict[tuple[int, ...], int]:
    return {chosen: n for n, chosen in enumerate(combinations(range(space.inputs + node), space.edges_per_node))}


def _is_none(space: SearchSpace, device: torch.device) -> Tensor:
    return torch.tensor([name == space.none for name in space.primitives], device=device)


class ArchitectureHead(nn.Module):
    """Linear from a task's vector to the tables of a `Prediction`, around what was seen of all tasks together.

    Alphas are ``middle + spread * (what the vector says)``; scores are those of how often a choice was seen, plus what
    the vector says. The linear maps begin at 0: the first prediction is that of all tasks together, for each.

    Args:
        space: whose architectures are predicted.
        embedding: D of the task's vector.
    """

    def __init__(self, space: SearchSpace, embedding: int) -> None:
        super().__init__()
        self.space = space
        edges, primitives = space.alpha_shape
        self.sizes = (edges * primitives, edges * primitives, edges)
        wide = (embedding, sum(self.sizes))
        self.tables = nn.ModuleDict({cell: nn.utils.skip_init(nn.Linear, *wide) for cell in space.cell_types})
        for parameter in self.tables.parameters():
            nn.init.zeros_(parameter)
        for cell in space.cell_types:
            self.register_buffer(f"middle_{cell}", torch.zeros(edges, primitives))
            self.register_buffer(f"operations_{cell}", torch.zeros(edges, primitives))
            self.register_buffer(f"edges_{cell}", torch.zeros(edges))
        self.register_buffer("spread", torch.ones(()))

    def centre(self, alphas: Tables, chosen: Sequence[Choices]) -> None:
        """Begin at what was seen: the mean of ``alphas`` (by cell type [N, E, P]), and how often choices were made.

        Counts are smoothed by one of each (Laplace), so that nothing is impossible. Edges get the scores under which
        the sets that were seen are likeliest.
        """
        off, primitives = [], len(self.space.primitives)
        for cell in self.space.cell_types:
            middle = alphas[cell].mean(0)
            self.get_buffer(f"middle_{cell}").copy_(middle)
            off.append((alphas[cell] - middle).flatten())
            kept = torch.cat([part.kept[cell] for part in chosen])
            operations = torch.cat([part.operations[cell] for part in chosen])
            seen = (nn.functional.one_hot(operations, primitives) * kept.unsqueeze(-1)).sum(0)
            self.get_buffer(f"operations_{cell}").copy_((seen + 1.0).log())
            sets = torch.cat([part.sets[cell] for part in chosen])
            self.get_buffer(f"edges_{cell}").copy_(_edge_scores(sets, self.space))
        self.get_buffer("spread").copy_(torch.cat(off).square().mean().sqrt().clamp(min=LEAST_SPREAD))

    def standardised(self, alphas: Tables) -> dict[str, Tensor]:
        """Alphas in the units in which the vector says them: less the middle, over the spread."""
        spread = self.get_buffer("spread")
        return {c: (alphas[c] - self.get_buffer(f"middle_{c}")) / spread for c in self.space.cell_types}

    def overall(self, tasks: int) -> Prediction:
        """What was seen of all tasks together, for each of ``tasks``: the prediction before anything was learnt."""

        def of(name: str) -> dict[str, Tensor]:
            return batched({cell: self.get_buffer(f"{name}_{cell}") for cell in self.space.cell_types}, tasks)

        return Prediction(self.space, of("middle"), of("operations"), of("edges"))

    def forward(self, vectors: Tensor) -> Prediction:
        """[B, D] -> the tables of B tasks."""
        alphas, operations, edges = {}, {}, {}
        for cell in self.space.cell_types:
            said, scores, of_edges = self.tables[cell](vectors).split(self.sizes, dim=-1)
            moved = self.get_buffer("spread") * said.unflatten(-1, self.space.alpha_shape)
            alphas[cell] = self.get_buffer(f"middle_{cell}") + moved
            operations[cell] = self.get_buffer(f"operations_{cell}") + scores.unflatten(-1, self.space.alpha_shape)
            edges[cell] = self.get_buffer(f"edges_{cell}") + of_edges
        return Prediction(self.space, alphas, operations, edges)


def _edge_scores(sets: Tensor, space: SearchSpace) -> Tensor:
    """[E] scores of edges under which the sets [N, nodes] that nodes kept, and one more of each, are likeliest.

    The likelihood is concave, so that a few steps of L-BFGS from 0 find the one maximum.
    """
    parts = []
    for node in range(space.nodes):
        members = edge_sets(space, node)[1].double()
        seen = torch.bincount(sets[:, node], minlength=len(members)).double() + 1.0
        scores = torch.zeros(members.shape[1], dtype=torch.float64, requires_grad=True)
        search = torch.optim.LBFGS([scores], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

        def loss(
            scores: Tensor = scores, members: Tensor = members, seen: Tensor = seen,
            search: torch.optim.LBFGS = search,
        ) -> Tensor:  # fmt: skip
            search.zero_grad()
            found = -(seen / seen.sum() * (members @ scores).log_softmax(0)).sum()
            found.backward()
            return found

        search.step(loss)
        parts.append(scores.detach() - scores.detach().mean())
    return torch.cat(parts).float()


def choice_count(space: SearchSpace) -> int:
    """Choices that make an architecture: for each node its set of edges, and an operation on each of them."""
    return len(space.cell_types) * space.nodes * (space.edges_per_node + 1)


def of_alphas(alphas: Tables, space: SearchSpace, relaxation: Relaxation = DEFAULT_RELAXATION) -> Prediction:
    """Alphas by cell type [B, E, P] as a distribution: an operation's probability is its share under ``relaxation``, a
    set's is proportional to the product of its edges' strengths, the largest score but for "none" (DARTS, section 2.4).
    """
    operations = {cell: _log_scores(table, relaxation) for cell, table in alphas.items()}
    edges = {
        cell: table.masked_fill(_is_none(space, table.device), NEVER).amax(-1) for cell, table in operations.items()
    }
    return Prediction(space, alphas, operations, edges)


def _log_scores(alphas: Tensor, relaxation: Relaxation) -> Tensor:
    """The logarithms of the scores [B, E, P]; of the softmax without the exponential, which can underflow."""
    if relaxation == DEFAULT_RELAXATION:
        return alphas.log_softmax(-1)
    least = torch.finfo(torch.float64).tiny
    return relaxation.scores(alphas).clamp(min=least).log().to(alphas.dtype)
