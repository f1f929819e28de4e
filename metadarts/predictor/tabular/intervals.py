"""A mean over seeds with its 95 % interval: a percentile bootstrap.

`metadarts.papers.statistics` has a bootstrap over seeds and tasks together, but lies in a package above this one; and
here the tasks of a benchmark are all there are, so that only seeds are resampled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metadarts.core.errors import NumericsError
from metadarts.core.rng import Key

from .tables import Values

DRAWS = 10_000
TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def over_seeds(values: Values, key: Key, draws: int = DRAWS) -> Interval:
    """The mean of ``values`` [S], one per seed, and its 95 % percentile interval over resampled seeds.

    With one seed the interval is a point and says nothing.

    Raises:
        NumericsError: without a value, or when one is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise NumericsError(f"expected finite values of at least one seed, got {values.shape} {values.ravel()[:3]}")
    # Raw bits are fixed by the algorithm, which numpy's integers are not.
    chosen = key.bits().random_raw(draws * len(values)).reshape(draws, -1) % np.uint64(len(values))
    low, high = np.quantile(values[chosen.astype(np.int64)].mean(1), TAILS)
    mean = float(values.mean())
    return Interval(mean, min(float(low), mean), max(float(high), mean))
