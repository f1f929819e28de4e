"""check_selection: a rule selects a cell of the space, the same each time, only from its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from metadarts.core.errors import GenotypeError
from metadarts.core.rng import Key
from metadarts.core.types import ALPHA_PREFIX
from metadarts.derive import Searched, SelectionRule
from metadarts.networks import Network, NetworkSpec
from metadarts.spaces import SearchSpace

PRIMITIVES = ("none", "skip_connect", "avg_pool_3x3", "max_pool_3x3")
SPACES = (
    SearchSpace("rule", PRIMITIVES, 2),
    SearchSpace("one cell", PRIMITIVES[1:], 2, cell_types=("normal",)),
    SearchSpace("one edge", PRIMITIVES, 2, edges_per_node=1),
    SearchSpace("one operation", PRIMITIVES[:2], 2),
    SearchSpace("pairs", PRIMITIVES, 3, inputs_by="pairs"),
    SearchSpace("edges", PRIMITIVES, 2, inputs_by="edges"),
)
"""Small, and of every kind."""


def searched_at(space: SearchSpace, alphas: Mapping[str, Tensor]) -> Searched:
    """The result of a search that ended with ``alphas`` (decision -> [rows, candidates]), for the default
    relaxation."""
    network = Network(NetworkSpec(in_channels=1, channels=4, stem=(4, 6)), space)
    mixing = network.weights_of({ALPHA_PREFIX + name: table for name, table in alphas.items()})
    return Searched(space, alphas, network.relaxation, mixing)


@dataclass(frozen=True)
class AdditiveJudge:
    """An accuracy that is the sum over edges and operations of mixing weight times worth, so its best cell is known.

    Args:
        worth: cell -> [E, P], 0 to 1; that of ``none`` also counts.
        seen: every evaluated candidate.
    """

    worth: Mapping[str, Tensor]
    seen: list[Mapping[str, Tensor]] = field(default_factory=list)

    def __call__(self, candidates: Sequence[Mapping[str, Tensor]]) -> list[float]:
        self.seen.extend(candidates)
        size = sum(table.numel() for table in self.worth.values())
        return [sum(float((own[cell] * self.worth[cell]).sum()) for cell in self.worth) / size for own in candidates]


def check_selection(rule: SelectionRule) -> None:
    """Check a selection rule on small spaces of every type.

    Raises:
        AssertionError: for a cell that is not in the space or keeps ``none``, another cell for the same arguments, more
            evaluated candidates than `judged` declares, candidates of a wrong form, or changed arguments.
    """
    for space in SPACES:
        _check_in(space, rule)


def _check_in(space: SearchSpace, rule: SelectionRule) -> None:
    key = Key(("check_selection", space.name))
    alphas = {d.name: _numbers(d.shape, key.child("alphas", d.name)) - 0.5 for d in space.decisions}
    known, most = searched_at(space, alphas), rule.judged(space)
    given = {name: table.clone() for name, table in (*known.alphas.items(), *_mixing(known).items())}
    cells = []
    for _ in range(2):
        judge = AdditiveJudge(
            {cell: _numbers(space.alpha_shape, key.child("worth", cell)) for cell in space.cell_types}
        )
        cells.append(rule.select(known, judge if most else None, key.child("rule")).genotype)
        _check_candidates(space, judge, most)
    try:
        cells[0].validate(space)
    except GenotypeError as error:
        raise AssertionError(f"space {space.name!r}: {error}") from error
    if cells[0] != cells[1]:
        raise AssertionError(f"space {space.name!r}: two cells for one key; all that is drawn comes from it")
    for name, table in (*known.alphas.items(), *_mixing(known).items()):
        if not torch.equal(table, given[name]):
            raise AssertionError(f"space {space.name!r}: {name} of what it was given are changed")


def _check_candidates(space: SearchSpace, judge: AdditiveJudge, most: int) -> None:
    if len(judge.seen) > most:
        raise AssertionError(f"space {space.name!r}: {len(judge.seen)} candidates judged, {most} announced by `judged`")
    for own in judge.seen:
        if set(own) != set(space.cell_types) or any(tuple(t.shape) != space.alpha_shape for t in own.values()):
            raise AssertionError(f"space {space.name!r}: expected candidates as tables {space.alpha_shape} by cell")


def _mixing(known: Searched) -> dict[str, Tensor]:
    return {f"mixing weights of {cell}": table for cell, table in known.mixing.items()}


def _numbers(shape: tuple[int, ...], key: Key) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=key.torch())
