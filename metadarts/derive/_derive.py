"""The discretisation rule of DARTS, and its inverse.

Source: DARTS (Liu et al., ICLR 2019), section 2.4, with the conventions of the authors' code
(quark0/darts, cnn/model_search.py, genotype).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from metadarts.core.errors import GenotypeError, NumericsError, nearest
from metadarts.relaxations import DEFAULT_RELAXATION, Relaxation, scores_of
from metadarts.spaces import Genotype, SearchSpace, decode


def derive_genotype(
    alphas: Mapping[str, Tensor], space: SearchSpace, relaxation: Relaxation = DEFAULT_RELAXATION
) -> Genotype:
    """Derive the genotype from the alphas of one task, by the rule of `metadarts.spaces.decode`.

    Args:
        alphas: for each of ``space.decisions`` its raw alphas [rows, candidates].
        space: the space that the alphas relax.
        relaxation: converts them to scores, in double precision; by default the softmax, ``none`` included.

    Raises:
        GenotypeError: when a decision is missing or unknown, or a shape is wrong.
        NumericsError: when an alpha is NaN or infinite.
    """
    check_alphas(alphas, space)
    return decode(space, {name: scores.tolist() for name, scores in scores_of(alphas, relaxation).items()})


def check_alphas(alphas: Mapping[str, Tensor], space: SearchSpace) -> None:
    """Require one finite tensor for each decision of ``space``. Raises GenotypeError or NumericsError."""
    shapes = {decision.name: decision.shape for decision in space.decisions}
    for name in alphas:
        if name not in shapes:
            raise GenotypeError(f"alphas for unknown decision {name!r}: {nearest(name, shapes)}")
    if missing := [name for name in shapes if name not in alphas]:
        raise GenotypeError(f"alphas are missing for decisions {missing}: give one tensor [rows, candidates] for each")
    for name, alpha in alphas.items():
        if tuple(alpha.shape) != shapes[name]:
            raise GenotypeError(
                f"{name} alphas: expected shape {shapes[name]} (rows, candidates) of space {space.name!r}, "
                f"got {tuple(alpha.shape)}; with a task axis, pass one task at a time"
            )
        check_finite(name, alpha)


def check_finite(cell: str, alpha: Tensor) -> None:
    """Require that no alpha is NaN or infinite. Raises NumericsError."""
    if bad := int((~torch.isfinite(alpha)).sum()):
        raise NumericsError(
            f"{cell} alphas: expected finite numbers, got {bad} of {alpha.numel()} NaN or infinite; "
            "lower the learning rate of the alphas"
        )


def genotype_weights(
    genotype: Genotype, space: SearchSpace, *, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Edge weights under which the supernet computes exactly the network of ``genotype``.

    Args:
        genotype: a point of ``space``.
        space: defines the rows and columns.
        dtype: of the weights.

    Returns:
        For each cell type [E, P]: 1 at every kept (edge, operation), 0 elsewhere, so a dropped edge is a row of zeros.
        These are weights, not alphas. If no alphas choose inputs, they derive to ``genotype``, up to order within
        nodes.

    Raises:
        GenotypeError: when ``genotype`` is not a point of ``space``.
    """
    genotype.validate(space)
    weights = {cell: torch.zeros(space.alpha_shape, dtype=dtype) for cell in space.cell_types}
    for cell, weight in weights.items():
        for node, source, op in genotype.choices(cell):
            weight[space.edge_index(node, source), space.primitives.index(op)] = 1.0
    return weights
