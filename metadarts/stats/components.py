"""How much of a table of accuracies is due to tasks, to operations, and to operations that suit some tasks only.

Every component is a mean of products of two parts of the table that share nothing but the effect in question: two
trainings, and two disjoint sets of tasks or of images. Its expectation is the variance of that effect alone, whatever
the noise; an estimate may therefore be negative, which means none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from metadarts.core.errors import NumericsError
from metadarts.core.rng import Key

from .intervals import Estimate, Values

DRAWS = 1000
TAILS = (2.5, 97.5)


@dataclass(frozen=True)
class Components:
    """Variance components of accuracies in [0, 1], and what choosing would gain.

    Args:
        task: variance between tasks, those of different domains included.
        operation: variance between operations, over all tasks.
        domain_operation: variance of operation x domain; 0 with one domain.
        task_operation: variance of operation x task within a domain.
        rest: of a single accuracy: the training, the images drawn.
        domain_gain: mean accuracy of each domain's best operation less that of the best for all; chosen on one half of
            the tasks and one training and measured on the others, so that noise in the choice can only lower it.
        task_gain: the same of each task's best operation, chosen on one draw of its images and measured on another.
        most: an upper bound of the gain of choosing each task's best operation without error: that of normally
            distributed interactions where all operations are equally good on average.
    """

    task: Estimate
    operation: Estimate
    domain_operation: Estimate
    task_operation: Estimate
    rest: Estimate
    domain_gain: Estimate
    task_gain: Estimate
    most: Estimate


def components(table: Values, key: Key, draws: int = DRAWS) -> Components:
    """The components of ``table`` with 95 % percentile intervals over resampled tasks and other trainings.

    Trainings are too few to be resampled. Each draw adds normal noise to the mean of every training instead, of the
    variance that trainings of one operation in one domain have. Domains and operations are these ones.

    Args:
        table: [S, D, M, C, R] accuracies of S trainings of each of C operations in each of D domains, on M tasks of the
            domain, the same for all trainings and operations, with R draws of each task's images.
        key: the resampling; the same key gives the same intervals.

    Raises:
        NumericsError: with fewer than two trainings, operations, draws or four tasks, or when a value is not finite.
    """
    table = np.asarray(table, dtype=np.float64)
    names = ("trainings", "domains", "tasks", "operations", "draws")
    for name, size, least in zip(names, table.shape, (2, 1, 4, 2, 2), strict=True):
        if size < least:
            raise NumericsError(f"variance components: expected at least {least} {name}, got {size}")
    if not np.isfinite(table).all():
        raise NumericsError("variance components: some accuracies are not finite: find out why before averaging")
    found = _figures(table)
    drawn = {name: np.empty(draws) for name in found}
    bits, half, tasks = key.numpy(), table.shape[2] // 2, table.shape[2]
    trainings = table.mean((2, 4), keepdims=True)
    noise = math.sqrt(float(trainings.var(0, ddof=1).mean()))
    for draw in range(draws):
        # Each half by itself, so that no task is in both.
        rows = np.concatenate([bits.integers(0, half, half), bits.integers(half, tasks, tasks - half)])
        for name, value in _figures(table[:, :, rows] + noise * bits.standard_normal(trainings.shape)).items():
            drawn[name][draw] = value
    return Components(**{name: _interval(value, drawn[name]) for name, value in found.items()})


def _interval(value: float, drawn: Values) -> Estimate:
    low, high = np.percentile(drawn, TAILS)
    return Estimate(value, min(float(low), value), max(float(high), value))


def _figures(table: Values) -> dict[str, float]:
    half = table.shape[2] // 2
    halves = table[:, :, :half].mean((2, 4)), table[:, :, half:].mean((2, 4))  # each [S, D, C]
    by_draw = np.moveaxis(table, -1, 0)  # [R, S, D, M, C]
    task = _mean_product(by_draw.mean(-1), by_draw.mean(-1), _spread_over_tasks)
    domain = _between(*halves, _interaction) if table.shape[1] > 1 else 0.0
    overall = [part.mean(1) for part in halves]  # each [S, C]
    mains = _between(overall[0], overall[1], lambda a, b: _product(_centred(a, 0), _centred(b, 0), 1))
    operation = mains - domain / table.shape[1]  # the mean over a few domains has a part of what is theirs
    within = float(
        np.mean([_mean_product(by_draw[:, :, d], by_draw[:, :, d], _interaction) for d in range(table.shape[1])])
    )
    by_task = by_draw.reshape(*by_draw.shape[:2], -1, by_draw.shape[-1])  # [R, S, D * M, C]
    total = float(table.reshape(-1).var())
    spread = math.sqrt(max(domain, 0.0) + max(within, 0.0))
    return {
        "task": task,
        "operation": operation,
        "domain_operation": domain,
        "task_operation": within,
        "rest": total - task - operation - domain - within,
        "domain_gain": _between(*halves, _gain(1.0)),
        "task_gain": _task_gain(by_task),
        "most": expected_maximum(table.shape[3]) * spread,
    }


def _pairs(count: int) -> Iterator[tuple[int, int]]:
    return ((a, b) for a in range(count) for b in range(count) if a != b)


def _between(first: Values, second: Values, of: Callable[[Values, Values], float]) -> float:
    """The mean of ``of`` over two trainings, one on each half of the tasks. Arguments: [S, ...]."""
    pairs = list(_pairs(len(first)))
    return float(np.mean([of(x[a], y[b]) for a, b in pairs for x, y in ((first, second), (second, first))]))


def _mean_product(first: Values, second: Values, of: Callable[[Values, Values], float]) -> float:
    """The mean of ``of`` over two trainings with two draws of the images. Arguments: [R, S, ...]."""
    draws, seeds = list(_pairs(first.shape[0])), list(_pairs(first.shape[1]))
    return float(np.mean([of(first[r, s], second[q, t]) for r, q in draws for s, t in seeds]))


def _centred(values: Values, axis: int) -> Values:
    return np.asarray(values - values.mean(axis, keepdims=True))


def _product(a: Values, b: Values, lost: int) -> float:
    """The mean product of centred values [n, ...], of which ``lost`` are determined by the others."""
    return float((a * b).sum() / (a.size - lost))


def _spread_over_tasks(a: Values, b: Values) -> float:
    """Covariance over all tasks [D, M]."""
    return _product(a - a.mean(), b - b.mean(), 1)


def _interaction(a: Values, b: Values) -> float:
    """Covariance of what two factors [n, C] do together."""
    a, b = (_centred(_centred(part, 0), 1) for part in (a, b))
    return float((a * b).sum() / ((a.shape[0] - 1) * (a.shape[1] - 1)))


def _gain(share: float) -> Callable[[Values, Values], float]:
    """(what is chosen by [n, C], what is measured [n, C]) -> the gain of each row's best against the best for all.

    Args:
        share: how much of a row's deviation from the mean of all rows counts for its choice: 1 for all of it, less
            where the rest is noise.
    """

    def gain(chosen_by: Values, measured: Values) -> float:
        overall = chosen_by.mean(0)
        best = (overall + share * (chosen_by - overall)).argmax(1)
        return float(measured[np.arange(len(measured)), best].mean() - measured[:, overall.argmax()].mean())

    return gain


def _task_gain(table: Values) -> float:
    """Of tasks [R, S, n, C]. A task's deviations are mostly noise; how much is not is learnt from the other tasks."""
    parts = table[:, :, ::2], table[:, :, 1::2]
    gains = [
        _mean_product(own, own, _gain(_reliability(other)))
        for own, other in (parts, parts[::-1])
    ]  # fmt: skip
    return float(np.mean(gains))


def _reliability(table: Values) -> float:
    """The share of the variance of a single interaction, of [R, S, n, C], that another draw and training has too."""
    real = _mean_product(table, table, _interaction)
    every = [_interaction(table[r, s], table[r, s]) for r, s in np.ndindex(*table.shape[:2])]
    found = float(np.mean(every))
    return min(max(real, 0.0) / found, 1.0) if found > 0 else 0.0


def expected_maximum(count: int) -> float:
    """The expected largest of ``count`` independent standard normal numbers, by quadrature."""
    grid = np.linspace(-8.0, 8.0, 4001)
    density = np.exp(-0.5 * grid**2) / math.sqrt(2.0 * math.pi)
    below = np.cumsum(density) * (grid[1] - grid[0])
    below = np.minimum(below - 0.5 * density * (grid[1] - grid[0]), 1.0)  # the midpoint of each step
    return float((count * grid * density * below ** (count - 1)).sum() * (grid[1] - grid[0]))
