"""The protocol of a selection rule, its arguments and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.relaxations import Relaxation, scores_of
from metadarts.spaces import Genotype, SearchSpace

Judge = Callable[[Sequence[Mapping[str, Tensor]]], Sequence[float]]
"""Candidates, each as mixing weights (cell -> [E, P]) -> the mean accuracy of each, 0 to 1, all on the same tasks."""


@dataclass(frozen=True)
class Searched:
    """The result of a finished search from which a cell is selected.

    Args:
        space: the search space.
        alphas: decision -> its raw alphas [rows, candidates], without a task axis.
        relaxation: converted them to mixing weights.
        mixing: cell -> [E, P], the mixing weights of the supernet at the end of the search.
    """

    space: SearchSpace
    alphas: Mapping[str, Tensor]
    relaxation: Relaxation
    mixing: Mapping[str, Tensor]

    def scores(self) -> dict[str, list[list[float]]]:
        """decision -> its rows of scores, as `metadarts.spaces.decode` takes them."""
        return {name: scores.tolist() for name, scores in scores_of(self.alphas, self.relaxation).items()}


@dataclass(frozen=True)
class Selection:
    """The result of a selection rule.

    Args:
        genotype: the cell.
        notes: remarks for the user.
    """

    genotype: Genotype
    notes: tuple[str, ...] = ()


class SelectionRule(Protocol):
    """A frozen value that selects a cell. The same arguments give the same cell."""

    def judged(self, space: SearchSpace) -> int:
        """The maximum number of candidates that the rule evaluates; 0 for a rule that reads only the alphas."""
        ...

    def select(self, searched: Searched, judge: Judge | None, key: Key) -> Selection:
        """The cell of ``searched``, a point of its space; ``none`` is never kept.

        Args:
            judge: evaluates candidates; None if `judged` returns 0.
            key: of all random draws.

        Raises:
            ConfigError: when the rule needs a judge and gets none.
        """
        ...


def required(judge: Judge | None, rule: object) -> Judge:
    """``judge``, which ``rule`` needs. Raises ConfigError if there is none."""
    if judge is None:
        raise ConfigError(f"selection rule {type(rule).__name__} compares accuracies: expected a judge, got None")
    return judge
