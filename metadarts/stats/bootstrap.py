"""95 % intervals of means by the percentile bootstrap: over seeds, and over seeds and shared test tasks together.

Accuracies are a table of S trainings (seeds) by T test tasks, and both are samples: another seed would have trained
another network, another draw would have tested it on other tasks. `estimate` and `paired` therefore resample whole rows
and whole columns (the pigeonhole bootstrap: Owen, "The pigeonhole bootstrap", 2007). `over_seeds` resamples only seeds,
for a benchmark that contains all existing tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import NumericsError
from metadarts.core.rng import Key

from .intervals import Estimate, Values

DRAWS = 10_000
TAILS = (0.025, 0.975)
CELLS = 1_000_000
"""How many resampled tasks are held at once: 8 MB of them."""


def estimate(values: Values, key: Key, draws: int = DRAWS) -> Estimate:
    """The mean over seeds and tasks, and its 95 % percentile interval over resampled seeds and resampled tasks.

    With one seed only tasks are resampled: the interval then says nothing about another training. With few seeds the
    interval is too narrow, because S resampled seeds show (S - 1) / S of the variance between trainings: half with two.

    Args:
        values: [S, T], one accuracy per training seed and test task.
        key: the draws; the same key gives the same interval.
        draws: how often seeds and tasks are resampled.

    Raises:
        NumericsError: without a seed, a task or a draw, or when a value is not finite.
    """
    values = _checked(values, "the values", draws)
    seeds, tasks = _Resampled(key.child("seeds"), len(values)), _Resampled(key.child("tasks"), values.shape[1])
    sizes = _chunks(draws, values.shape[1])
    means = [_means(seeds.counts(size), values, tasks.counts(size)) for size in sizes]
    return _interval(values.mean(), np.concatenate(means), values.min(), values.max())


def paired(a: Values, b: Values, key: Key, draws: int = DRAWS) -> Estimate:
    """The mean of ``a`` minus that of ``b``, measured on the same test tasks, with its 95 % percentile interval.

    Each draw takes the same resampled tasks for both, so that the difficulty of a task cancels. The seeds of each are
    resampled separately, because the trainings are independent. If ``b`` comes from the same trainings as ``a`` and is
    therefore correlated with it, the interval is wider than necessary.

    Args:
        a: [Sa, T] one accuracy per training seed and test task.
        b: [Sb, T] the same for the other method, with its tasks in the same order.
        key: the draws.
        draws: how often seeds and tasks are resampled.

    Raises:
        NumericsError: as `estimate`, or when the two have different numbers of tasks.
    """
    a, b = _checked(a, "the first values", draws), _checked(b, "the second values", draws)
    if a.shape[1] != b.shape[1]:
        given = f"{a.shape[1]} and {b.shape[1]}"
        raise NumericsError(f"expected two methods on the same tasks, got {given}: measure both on the same episodes")
    firsts, seconds = _Resampled(key.child("seeds"), len(a)), _Resampled(key.child("seeds", "second"), len(b))
    tasks = _Resampled(key.child("tasks"), a.shape[1])
    differences = []
    for size in _chunks(draws, a.shape[1]):
        shared = tasks.counts(size)
        differences.append(_means(firsts.counts(size), a, shared) - _means(seconds.counts(size), b, shared))
    least, most = a.min() - b.max(), a.max() - b.min()
    return _interval(a.mean() - b.mean(), np.concatenate(differences), least, most)


def over_seeds(values: Values, key: Key, draws: int = DRAWS) -> Estimate:
    """The mean of ``values`` [S], one per seed, and its 95 % percentile interval over resampled seeds.

    With one seed the interval is a point and says nothing.

    Raises:
        NumericsError: without a value or a draw, or when a value is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise NumericsError(f"expected finite values of at least one seed, got {values.shape} {values.ravel()[:3]}")
    _check_draws(draws)
    return _interval(values.mean(), values[_Resampled(key, len(values)).rows(draws)].mean(1))


class _Resampled:
    """A stream of resampled rows: which of ``count`` were drawn, whatever the chunks it is read in."""

    def __init__(self, key: Key, count: int) -> None:
        self._bits, self._count = key.bits(), count

    def rows(self, draws: int) -> NDArray[np.int64]:
        """[draws, count] numbers of rows."""
        # Raw bits are fixed by the algorithm, which numpy's integers are not; the bias of the rest is below 1e-15.
        drawn = self._bits.random_raw(draws * self._count).reshape(draws, self._count) % np.uint64(self._count)
        return np.asarray(drawn.astype(np.int64))

    def counts(self, draws: int) -> Values:
        """[draws, count] how often each was drawn; each row sums to the count."""
        places = self.rows(draws) + np.arange(draws)[:, None] * self._count
        counted = np.bincount(places.ravel(), minlength=draws * self._count)
        return counted.reshape(draws, self._count).astype(np.float64)


def _means(seeds: Values, values: Values, tasks: Values) -> Values:
    """[D] mean of ``values`` [S, T] under the counts ``seeds`` [D, S] and ``tasks`` [D, T]."""
    # Not a matrix product: that of a library may change its last bit with the number of threads.
    by_seed = np.einsum("dt,st->ds", tasks, values)
    return np.asarray(np.einsum("ds,ds->d", seeds, by_seed) / values.size, dtype=np.float64)


def _chunks(draws: int, tasks: int) -> Iterator[int]:
    """Numbers of draws that add up to ``draws`` and keep memory small."""
    most = max(CELLS // tasks, 1)
    for start in range(0, draws, most):
        yield min(most, draws - start)


def _interval(mean: float, draws: Values, least: float = -math.inf, most: float = math.inf) -> Estimate:
    """The percentile interval around ``mean``; rounding takes nothing past ``least`` and ``most``, the values' ends."""
    low, high = np.quantile(draws, TAILS)
    mean, low, high = (float(min(max(value, least), most)) for value in (mean, low, high))
    return Estimate(mean, min(low, mean), max(high, mean))


def _checked(values: Values, name: str, draws: int) -> Values:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise NumericsError(f"{name}: expected [seeds, tasks] with at least one of each, got {list(values.shape)}")
    if not np.isfinite(values).all():
        bad = int(values.size - np.isfinite(values).sum())
        raise NumericsError(f"{name}: {bad} of {values.size} accuracies are not finite: find out why before averaging")
    _check_draws(draws)
    return values


def _check_draws(draws: int) -> None:
    if draws < 1:
        raise NumericsError(f"expected at least one draw, got {draws}: the default is {DRAWS}")
