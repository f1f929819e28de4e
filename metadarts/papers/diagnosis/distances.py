"""How far apart architectures are: between alphas, between cells, within a task and between tasks."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from metadarts.core.types import Params
from metadarts.derive import genotype_distance
from metadarts.relaxations import Relaxation, scores_of
from metadarts.spaces import Genotype
from metadarts.stats import Values

ROUNDING = 1e-9
"""Scores of an edge whose sum is this near to 1 are shares as they are."""


def shares_of(alphas: Params, relaxation: Relaxation) -> Tensor:
    """The relaxed alphas [T, E, P] by cell kind: [T, R, P] float64 on the CPU, R the edges of all cell kinds.

    They are the relaxation's scores, brought to a sum of 1 where they have another; all candidates of an edge whose
    scores are all 0 are alike.
    """
    tables = scores_of(alphas, relaxation)
    scores = torch.cat([tables[kind].cpu() for kind in sorted(tables)], dim=1)
    total = scores.sum(-1, keepdim=True)
    shares = torch.where(total > 0, scores / total, 1.0 / scores.shape[-1])
    return torch.where((total - 1.0).abs() < ROUNDING, scores, shares)


def largest_shares(shares: Tensor) -> Values:
    """[T] the largest share of an edge, mean over edges; ``shares`` [T, R, P]."""
    return np.asarray(shares.amax(-1).mean(-1), dtype=np.float64)


def variations(first: Tensor, second: Tensor) -> Values:
    """Total variation distances [N, M] between shares [N, R, P] and [M, R, P], mean over the R edges, 0 to 1."""
    apart = torch.cdist(first.flatten(1), second.flatten(1), p=1)
    return np.asarray(apart / (2 * first.shape[1]), dtype=np.float64)


def edits(first: Sequence[Genotype], second: Sequence[Genotype]) -> Values:
    """Numbers of differing choices [N, M], see `genotype_distance`."""

    @functools.cache
    def apart(a: Genotype, b: Genotype) -> int:
        return genotype_distance(a, b)

    return np.array([[apart(a, b) for b in second] for a in first], dtype=np.float64)


def within(distances: Values) -> Values:
    """[N] the distances of every task's two adaptations, from those of all first to all second ones [N, N]."""
    return np.ascontiguousarray(np.diagonal(distances))


def between(distances: Values) -> Values:
    """[N] every task's mean distance to the others, from [N, N]; as first and as second adaptation alike."""
    others = distances.sum(0) + distances.sum(1) - 2 * np.diagonal(distances)
    return np.asarray(others / (2 * (len(distances) - 1)), dtype=np.float64)


def pair_scores(means: Values) -> Values:
    """[N] values with the mean of ``means`` whose spread over tasks is that of a mean over pairs.

    A pair has two tasks, so that every task counts twice: the mean distance m_i of task i stands for 2 m_i - mean, its
    first-order share of the mean over pairs (Hoeffding, 1948, "A class of statistics with asymptotically normal
    distribution", the projection of a U-statistic of degree 2). Plain ``means`` would give half the interval.
    """
    return np.asarray(2 * means - means.mean(), dtype=np.float64)


def retrieved(first: Tensor, second: Tensor) -> Values:
    """[N] whether the second displacement of task i points most nearly in the direction of its first one, 1 or 0.

    The direction (cosine), as alphas of all tasks start at one place and a long way from it is far from everything.
    Where k tasks are equally near, the own among them, the task counts 1 / k.

    Args:
        first: [N, D] displacements, one of each task.
        second: [N, D] others of the same tasks in the same order.
    """
    units = [torch.nn.functional.normalize(side.double(), dim=1) for side in (second, first)]
    alike = np.asarray(units[0] @ units[1].mT)
    own = np.diagonal(alike)[:, None]
    nearest = own[:, 0] >= alike.max(1)
    return np.asarray(np.where(nearest, 1.0 / (alike == own).sum(1), 0.0), dtype=np.float64)
