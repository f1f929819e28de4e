"""Sigmoid scores above a threshold (FairDARTS, Chu et al., ECCV 2020).

Source: the authors' code (xiaomi-automl/FairDARTS, fairdarts/utils.py, parse, method "threshold_sparse"): the edges of
highest score, at most two of a node, each with its best operation, and of these the ones from the threshold on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.relaxations import scores_of
from metadarts.spaces import Genotype, SearchSpace, decode

from ._types import Judge, Searched, Selection


@dataclass(frozen=True)
class Threshold:
    """Scores each candidate independently by sigmoid(alpha), whatever the relaxation of the search.

    A `Genotype` has exactly ``edges_per_node`` edges for each node, and one operation on each. If more pass, the best
    ones are kept; if fewer pass, the best of the others are added, and a note names them. Inputs with separate alphas
    are ranked as by `Argmax`.

    Args:
        least: the score from which an edge passes.

    Raises:
        ConfigError: for a threshold outside 0 to 1.
    """

    least: float = 0.85

    def __post_init__(self) -> None:
        if not 0.0 <= self.least <= 1.0:
            raise ConfigError(f"selection rule threshold: least: expected a number from 0 to 1, got {self.least}")

    def judged(self, space: SearchSpace) -> int:
        return 0

    def select(self, searched: Searched, judge: Judge | None, key: Key) -> Selection:
        operations = {cell: searched.alphas[cell].detach().double().sigmoid() for cell in searched.space.cell_types}
        scores = scores_of(searched.alphas, searched.relaxation) | operations
        genotype = decode(searched.space, {name: table.tolist() for name, table in scores.items()})
        below = list(self._below(searched.space, genotype, operations))
        return Selection(genotype, (self._note(below, genotype),) if below else ())

    def _below(self, space: SearchSpace, genotype: Genotype, scores: Mapping[str, Tensor]) -> Iterator[str]:
        """The kept edges that do not pass, in words."""
        for cell, table in scores.items():
            for node, source, operation in genotype.choices(cell):
                score = float(table[space.edge_index(node, source), space.primitives.index(operation)])
                if score < self.least:
                    yield f"{cell} {source} -> {space.inputs + node} {operation} ({score:.2f})"

    def _note(self, below: list[str], genotype: Genotype) -> str:
        edges = len(genotype.normal) + len(genotype.reduce)
        return f"{len(below)} of {edges} edges are below {self.least:g} and only fill up: " + ", ".join(below)


SELECTION = Threshold
