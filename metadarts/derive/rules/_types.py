"""What a selection rule is, what it is given, and what it answers."""

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
    """What a finished search knows of its cells.

    Args:
        space: the search space.
        alphas: decision -> its raw alphas [rows, candidates], without a task axis.
        relaxation: what turned them into mixing weights.
        mixing: cell -> [E, P], with which the supernet mixes at the end of the search.
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
    """What a rule answers.

    Args:
        genotype: the cell.
        notes: sentences that a user should read beside it.
    """

    genotype: Genotype
    notes: tuple[str, ...] = ()


class SelectionRule(Protocol):
    """A frozen value that chooses a cell. The same arguments give the same cell."""

    def judged(self, space: SearchSpace) -> int:
        """The most candidates that it has judged; 0 for a rule that reads the alphas alone."""
        ...

    def select(self, searched: Searched, judge: Judge | None, key: Key) -> Selection:
        """The cell of ``searched``, a point of its space; ``none`` is never kept.

        Args:
            judge: of candidates; None where `judged` says 0.
            key: of all that is drawn.

        Raises:
            ConfigError: when the rule needs a judge and there is none.
        """
        ...


def required(judge: Judge | None, rule: object) -> Judge:
    """``judge``, which ``rule`` needs. Raises ConfigError where there is none."""
    if judge is None:
        raise ConfigError(f"selection rule {type(rule).__name__} compares accuracies: expected a judge, got None")
    return judge
