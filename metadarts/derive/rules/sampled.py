"""The best of N cells drawn at random, by accuracy with inherited weights (Li and Talwalkar, UAI 2019)."""

from __future__ import annotations

from dataclasses import dataclass

from metadarts.core.errors import ConfigError, nearest
from metadarts.core.rng import Key
from metadarts.spaces import Genotype, SearchSpace, random_genotype

from ._cells import Ranking, distinct, draw_by_scores
from ._types import Judge, Searched, Selection, required

WAYS = ("uniform", "scores")


@dataclass(frozen=True)
class Sampled:
    """The best of several different cells, each evaluated once.

    Args:
        cells: number of cells; all of them in a space that has no more.
        by: how cells are drawn: "uniform" over the space, or in proportion to the "scores" of the alphas.

    Raises:
        ConfigError: for fewer than one cell, or an unknown value of ``by``.
    """

    cells: int = 30
    by: str = "uniform"

    def __post_init__(self) -> None:
        if self.cells < 1:
            raise ConfigError(f"selection rule sampled: cells: expected at least 1, got {self.cells}")
        if self.by not in WAYS:
            raise ConfigError(f"selection rule sampled: by {self.by!r} is unknown; {nearest(self.by, WAYS)}")

    def judged(self, space: SearchSpace) -> int:
        return min(self.cells, space.genotype_count())

    def select(self, searched: Searched, judge: Judge | None, key: Key) -> Selection:
        space = searched.space
        ranking = Ranking(space, required(judge, self))

        def draw(own: Key) -> Genotype:
            return random_genotype(space, own) if self.by == "uniform" else draw_by_scores(searched, own)

        ranking.add(distinct(draw, self.judged(space), key))
        return Selection(ranking.best())


SELECTION = Sampled
