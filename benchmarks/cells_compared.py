"""A searched cell against random cells trained alike: over cells, seeds and tasks, in all and at equal size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from metadarts.core.rng import Key
from metadarts.stats import Estimate, paired

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Trained:
    """Cells that were trained, all measured on the same T test tasks.

    Args:
        accuracies: [K, T].
        validation: [K], the accuracy on validation tasks that chose each one's checkpoint.
        weights: [K], as a linear layer for the task's classes counts.
    """

    accuracies: Values
    validation: Values
    weights: Values


@dataclass(frozen=True)
class Verdict:
    """Ours less theirs, in points; intervals of 95 %.

    Those over our seeds are too narrow: so few show two thirds of the variance between trainings where there are three,
    see `metadarts.stats.bootstrap`. Random cells share training seeds, which counts for nothing here.

    Args:
        difference: of the means, over cells, seeds and tasks.
        ranks: of each of our seeds among it and the random cells, 1 is best.
        best: less the one random cell that validation chose, as it was trained, over our seeds and tasks.
        at_equal_weights: less what a line through the random cells' accuracies over log(weights) has at our weights.
    """

    difference: Estimate
    ranks: tuple[int, ...]
    best: Estimate
    at_equal_weights: Estimate

    def cells(self, count: int) -> list[str]:
        """For a table; ``count`` random cells."""
        among = f"{', '.join(map(str, self.ranks))} of {count + 1}"
        return [self.difference.text(1, "+"), among, self.best.text(1, "+"), self.at_equal_weights.text(1, "+")]


def compare(ours: Trained, theirs: Trained) -> Verdict:
    """``ours`` has a row for each seed of the search, ``theirs`` for each random cell."""
    key, means = Key.from_seed(0).child("cells compared"), theirs.accuracies.mean(1)
    ranks = tuple(1 + int((means > one).sum()) for one in ours.accuracies.mean(1))
    chosen = theirs.accuracies[[int(np.nanargmax(theirs.validation))]]
    return Verdict(
        paired(ours.accuracies, theirs.accuracies, key.child("all")).scaled(100.0),
        ranks,
        paired(ours.accuracies, chosen, key.child("best")).scaled(100.0),
        above_line(np.log(theirs.weights), means, np.log(ours.weights), ours.accuracies.mean(1)).scaled(100.0),
    )


def above_line(x: Values, y: Values, at: Values, values: Values) -> Estimate:
    """How far the mean of ``values`` lies above the least-squares line through (x, y), taken at each of ``at``.

    The interval is that of the mean of so many new points about a line of as many points as there are, by Student's t:
    it takes the scatter of the new points for that of the line's.
    """
    count, middle = len(x), x.mean()
    spread = ((x - middle) ** 2).sum()
    slope = ((x - middle) * (y - y.mean())).sum() / spread
    line = y.mean() + slope * (at - middle)
    rest = y - y.mean() - slope * (x - middle)
    variance = (rest**2).sum() / (count - 2)
    error = math.sqrt(variance * (1.0 / count + (at.mean() - middle) ** 2 / spread + 1.0 / len(at)))
    mean, half = float((values - line).mean()), float(t.ppf(0.975, count - 2)) * error
    return Estimate(mean, mean - half, mean + half)


def stacked(rows: Sequence[tuple[Sequence[float], float | None, int]]) -> Trained:
    """Of (accuracies, validation, weights) rows."""
    accuracies, validation, weights = zip(*rows, strict=True)
    chosen = [math.nan if one is None else one for one in validation]
    return Trained(np.array(accuracies), np.array(chosen), np.array(weights, dtype=np.float64))
