"""Numbers that describe alphas and genotypes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from torch import Tensor

from metadarts.core.errors import GenotypeError
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


def alpha_entropy(alphas: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean entropy, in nats, of the softmax over primitives: log P for untrained alphas, 0 for decided ones.

    Args:
        alphas: raw alphas by cell type, [..., E, P]; the mean runs over all leading axes.

    Raises:
        NumericsError: when an alpha is NaN or infinite.
    """
    return {cell: _entropy(cell, alpha) for cell, alpha in alphas.items()}


def _entropy(cell: str, alpha: Tensor) -> float:
    check_finite(cell, alpha)
    log_weights = alpha.detach().double().log_softmax(dim=-1)
    return float(-(log_weights.exp() * log_weights).sum(dim=-1).mean())


def count_skips(genotype: Genotype) -> dict[str, int]:
    """Skip connections by cell type; many of them are the known collapse of DARTS (Zela et al., ICLR 2020)."""
    return {cell: sum(op == SKIP for op, _ in genotype.pairs(cell)) for cell in CELLS}
