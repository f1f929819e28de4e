"""Means with their 95 % intervals: the value type, and the intervals that need no resampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Values = NDArray[np.float64]
QUANTILE = 1.959963984540054
"""Of the normal distribution, 97.5 %."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval.

    Args:
        mean: the mean of all values.
        low: lower end of the interval, at most ``mean``.
        high: upper end, at least ``mean``.
    """

    mean: float
    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float, float]:
        """(mean, low, high)."""
        return self.mean, self.low, self.high

    def contains(self, value: float) -> bool:
        """Whether ``value`` lies in the interval, its ends included."""
        return self.low <= value <= self.high

    def overlaps(self, other: Estimate) -> bool:
        """Whether the two intervals overlap. Intervals of shared tasks may overlap although `paired` separates the
        two."""
        return self.low <= other.high and other.low <= self.high

    def scaled(self, factor: float) -> Estimate:
        """The estimate in another unit, such as 100 for percent; -1 inverts the direction of a difference."""
        low, high = sorted((factor * self.low, factor * self.high))
        return Estimate(factor * self.mean, low, high)

    def text(self, digits: int, sign: str = "") -> str:
        """ "0.51 [0.48, 0.53]" with this number of digits after the point; with ``sign`` "+", positive numbers also
        have a sign."""
        mean, low, high = (f"{end + 0.0:{sign}.{digits}f}" for end in self.ends)  # -0.0 is printed as 0.0
        return f"{mean} [{low}, {high}]"


def interval95(values: Tensor) -> float:
    """1.96 standard errors of the mean of ``values``, a tensor of any shape; infinite for fewer than two."""
    count = values.numel()
    return 1.96 * float(values.double().std()) / math.sqrt(count) if count > 1 else math.inf


def wilson(hits: float, count: int) -> Estimate:
    """The share of ``hits`` among ``count``, with a 95 % interval that is also valid near 0 and 1 and for small counts.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    share, square = hits / count, QUANTILE**2 / count
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(square * share * (1 - share) + square**2 / 4) / (1 + square)
    return Estimate(share, max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share)))
