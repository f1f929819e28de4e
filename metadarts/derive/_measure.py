"""Numbers that describe alphas and genotypes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor

from metadarts.core.errors import GenotypeError
from metadarts.relaxations import DEFAULT_RELAXATION, Relaxation, scores_of
from metadarts.spaces import Genotype

from ._derive import check_finite

CELLS = ("normal", "reduce")
SKIP = "skip_connect"


def genotype_distance(a: Genotype, b: Genotype) -> int:
    """How many (cell, node, input, operation) choices of ``a`` are not in ``b``; the order within a node is ignored.

    Symmetric, since both make the same number of choices: 0 for the same architecture, 16 at most with 4 nodes. One
    operation exchanged counts 1, and so does one input exchanged.

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


def _choices(genotype: Genotype) -> Counter[tuple[str, int, int, str]]:
    return Counter((cell, *choice) for cell in CELLS for choice in genotype.choices(cell))


def alpha_entropy(alphas: Mapping[str, Tensor], relaxation: Relaxation = DEFAULT_RELAXATION) -> dict[str, float]:
    """Mean entropy, in nats, of the relaxed alphas: log P for untrained alphas, 0 for decided ones.

    Args:
        alphas: raw alphas by decision, [..., rows, candidates]; the mean runs over all leading axes.
        relaxation: whose scores, brought to a sum of 1 over the candidates, are measured.

    Raises:
        NumericsError: when an alpha is NaN or infinite.
    """
    for name, alpha in alphas.items():
        check_finite(name, alpha)
    return {name: _entropy(scores) for name, scores in scores_of(alphas, relaxation).items()}


def _entropy(scores: Tensor) -> float:
    shares = scores / scores.sum(-1, keepdim=True)
    return float(-torch.xlogy(shares, shares).sum(dim=-1).mean())


def count_skips(genotype: Genotype) -> dict[str, int]:
    """Skip connections by cell type; many of them are the known collapse of DARTS (Zela et al., ICLR 2020)."""
    return {cell: sum(op == SKIP for op, _ in genotype.pairs(cell)) for cell in CELLS}
