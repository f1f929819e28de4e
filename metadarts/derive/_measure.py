"""Numbers that describe alphas and genotypes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from metadarts.core.errors import GenotypeError
from metadarts.core.types import Stage
from metadarts.relaxations import DEFAULT_RELAXATION, Relaxation, scores_of
from metadarts.spaces import Genotype

from ._derive import check_finite

CELLS = ("normal", "reduce")
SKIP = "skip_connect"


def genotype_distance(a: Genotype, b: Genotype) -> int:
    """The number of (cell, node, input, operation) choices of ``a`` that are not in ``b``; the order within a node is
    ignored.

    The distance is symmetric, because both make the same number of choices: 0 for the same architecture, at most 16
    with 4 nodes. One changed operation counts 1, and so does one changed input.

    Raises:
        GenotypeError: when the two have different numbers of nodes.
    """
    sizes = [tuple(len(genotype.pairs(cell)) for cell in CELLS) for genotype in (a, b)]
    if sizes[0] != sizes[1]:
        raise GenotypeError(
            f"cannot compare genotypes with {sizes[0]} and {sizes[1]} (normal, reduce) pairs: expected equal numbers, "
            "compare genotypes of one search space"
        )
    return (_choices(a) - _choices(b)).total()


def stability(now: Genotype, before: Genotype) -> float:
    """Share of the choices of ``now`` that are also in ``before``: 1 for the same architecture, 0 for no common choice.

    Raises:
        GenotypeError: when the two have different numbers of nodes.
    """
    choices = sum(len(now.pairs(cell)) for cell in CELLS)
    return 1.0 - genotype_distance(now, before) / choices


def _choices(genotype: Genotype) -> Counter[tuple[str, int, int, str]]:
    return Counter((cell, *choice) for cell in CELLS for choice in genotype.choices(cell))


class Sharpness(NamedTuple):
    """How sharp one decision is: means over its rows, with weights normalised to a sum of 1.

    Args:
        entropy: in nats: log P for uniform weights, 0 if one candidate has all weight.
        share: of the candidate with the largest weight: 1/P for uniform weights.
        margin: largest share minus the second largest: 0 for uniform weights, 1 if there is only one candidate.
    """

    entropy: float
    share: float
    margin: float


def sharpness(weights: Tensor) -> Sharpness:
    """The sharpness of weights [..., rows, P], none below 0; the means run over all leading axes. A row of zeros counts
    as uniform."""
    total = weights.sum(-1, keepdim=True)
    shares = torch.where(total > 0.0, weights / torch.where(total > 0.0, total, 1.0), 1.0 / weights.shape[-1])
    entropy = -torch.xlogy(shares, shares).sum(-1)
    first, second = _two_largest(shares)
    return Sharpness(*(float(rows.mean()) for rows in (entropy, first, first - second)))


def _two_largest(shares: Tensor) -> tuple[Tensor, Tensor]:
    """[...] each; where there is but one candidate, the second is 0."""
    first, *second = shares.topk(min(2, shares.shape[-1]), dim=-1).values.unbind(-1)
    return first, second[0] if second else torch.zeros_like(first)


def alpha_sharpness(
    alphas: Mapping[str, Tensor], relaxation: Relaxation = DEFAULT_RELAXATION, at: Stage | None = None
) -> dict[str, Sharpness]:
    """Decision -> the sharpness of its alphas.

    Args:
        alphas: raw alphas by decision, [..., rows, candidates].
        relaxation: from alphas to weights.
        at: the stage of the mixing weights to measure, without noise; None for the scores that derivation ranks by,
            which are those at the end of a schedule.

    Raises:
        NumericsError: when an alpha is NaN or infinite.
    """
    for name, alpha in alphas.items():
        check_finite(name, alpha)
    if at is None:
        tables = scores_of(alphas, relaxation)
    else:
        tables = {name: relaxation.weights(alpha.detach().double(), at) for name, alpha in alphas.items()}
    return {name: sharpness(table) for name, table in tables.items()}


def alpha_entropy(alphas: Mapping[str, Tensor], relaxation: Relaxation = DEFAULT_RELAXATION) -> dict[str, float]:
    """Mean entropy, in nats, of the relaxed alphas: log P for untrained alphas, 0 for one-hot weights.

    Args:
        alphas: raw alphas by decision, [..., rows, candidates]; the mean runs over all leading axes.
        relaxation: gives the scores to measure, normalised to a sum of 1 over the candidates.

    Raises:
        NumericsError: when an alpha is NaN or infinite.
    """
    return {name: found.entropy for name, found in alpha_sharpness(alphas, relaxation).items()}


def count_skips(genotype: Genotype) -> dict[str, int]:
    """Number of skip connections by cell type; many of them indicate the known collapse of DARTS (Zela et al., ICLR
    2020)."""
    return {cell: sum(op == SKIP for op, _ in genotype.pairs(cell)) for cell in CELLS}
