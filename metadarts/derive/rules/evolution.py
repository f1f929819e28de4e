"""Ageing evolution over cells, by accuracy with inherited weights (Real et al., AAAI 2019, algorithm 1).

Children are created in groups, which are evaluated together. They may come from crossover as well as from mutation.
"""

from __future__ import annotations

from dataclasses import dataclass

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.spaces import Genotype, SearchSpace, random_genotype

from ._cells import Ranking, crossed, distinct, mutated
from ._types import Judge, Searched, Selection, required


@dataclass(frozen=True)
class Evolution:
    """The best cell ever evaluated. A parent is the best of a few drawn from the population; the oldest cells are
    removed.

    No cell is evaluated twice. The scores of the alphas are not used.

    Args:
        population: number of cells in the population, initially drawn uniformly.
        generations: number of groups of children.
        children: number of children in a group.
        tournament: number of cells drawn to select a parent.
        crossover: share of the children that combine the nodes of two parents before mutation.

    Raises:
        ConfigError: for numbers below 1 (``generations``: below 0), or a share outside 0 to 1.
    """

    population: int = 20
    generations: int = 10
    children: int = 10
    tournament: int = 5
    crossover: float = 0.25

    def __post_init__(self) -> None:
        for option, least in (("population", 1), ("generations", 0), ("children", 1), ("tournament", 1)):
            if getattr(self, option) < least:
                raise ConfigError(
                    f"selection rule evolution: {option}: expected at least {least}, got {getattr(self, option)}"
                )
        if not 0.0 <= self.crossover <= 1.0:
            raise ConfigError(f"selection rule evolution: crossover: expected 0 to 1, got {self.crossover}")

    def judged(self, space: SearchSpace) -> int:
        return min(self.population + self.generations * self.children, space.genotype_count())

    def select(self, searched: Searched, judge: Judge | None, key: Key) -> Selection:
        space = searched.space
        ranking = Ranking(space, required(judge, self))
        count = min(self.population, space.genotype_count())
        living = distinct(lambda own: random_genotype(space, own), count, key.child("first"))
        ranking.add(living)
        for generation in range(self.generations):
            born = key.child("generation", generation)
            children = [self._child(ranking, living, born.child(number)) for number in range(self.children)]
            ranking.add(children)
            living = (living + children)[-self.population :]
        return Selection(ranking.best())

    def _child(self, ranking: Ranking, living: list[Genotype], key: Key) -> Genotype:
        child = self._parent(ranking, living, key.child("parent"))
        if key.child("crossover").numpy().random() < self.crossover:
            other = self._parent(ranking, living, key.child("other parent"))
            child = crossed(ranking.space, child, other, key.child("crossed"))
        return mutated(ranking.space, child, key.child("mutated"))

    def _parent(self, ranking: Ranking, living: list[Genotype], key: Key) -> Genotype:
        drawn = key.choose(len(living), min(self.tournament, len(living)))
        return ranking.best([living[number] for number in drawn])


SELECTION = Evolution
