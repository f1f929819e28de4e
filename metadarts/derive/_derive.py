"""The discretisation rule of DARTS, and its inverse.

Source: DARTS (Liu et al., ICLR 2019), section 2.4, with the conventions of the authors' code
(quark0/darts, cnn/model_search.py, genotype).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from metadarts.core.errors import GenotypeError, NumericsError, nearest
from metadarts.spaces import Genotype, SearchSpace

Pairs = tuple[tuple[str, int], ...]


def derive_genotype(alphas: Mapping[str, Tensor], space: SearchSpace) -> Genotype:
    """The genotype that the alphas of one task stand for.

    The alphas are raw: the softmax over primitives, ``none`` included, is applied here, in double precision. An edge
    scores as its largest weight other than ``none``; each node keeps its best edges (two, unless the space keeps one)
    and on each the best operation. A node's edges are listed in order of descending score, as in the authors' code.
    Ties go to the lower source state and to the primitive listed first.

    Args:
        alphas: for each of ``space.cell_types`` its alphas, [E, P] = ``space.alpha_shape``.
        space: the space that the alphas relax.

    Raises:
        GenotypeError: when a cell type is missing or unknown, or a shape is not [E, P].
        NumericsError: when an alpha is NaN or infinite.
    """
    check_alphas(alphas, space)
    cells = {cell: _derive_cell(alpha, space) for cell, alpha in alphas.items()}
    concats = dict.fromkeys(alphas, space.concat)
    return Genotype(
        normal=cells.get("normal", ()),
        normal_concat=concats.get("normal", ()),
        reduce=cells.get("reduce", ()),
        reduce_concat=concats.get("reduce", ()),
        edges_per_node=space.edges_per_node,
    )


def _derive_cell(alpha: Tensor, space: SearchSpace) -> Pairs:
    """The (operation, source) pairs that one cell's alphas [E, P] stand for."""
    weights = alpha.detach().double().softmax(dim=-1).tolist()
    allowed = [column for column, name in enumerate(space.primitives) if name != space.none]
    pairs: list[tuple[str, int]] = []
    for node in range(space.nodes):
        edges = []
        for source in range(space.inputs + node):
            row = weights[space.edge_index(node, source)]
            best = max(allowed, key=row.__getitem__)
            edges.append((row[best], source, best))
        edges.sort(key=lambda edge: (-edge[0], edge[1]))
        pairs += [(space.primitives[best], source) for _, source, best in edges[: space.edges_per_node]]
    return tuple(pairs)


def check_alphas(alphas: Mapping[str, Tensor], space: SearchSpace) -> None:
    """Require one finite [E, P] tensor for each cell type of ``space``. Raises GenotypeError or NumericsError."""
    for cell in alphas:
        if cell not in space.cell_types:
            raise GenotypeError(f"alphas for unknown cell type {cell!r}: {nearest(cell, space.cell_types)}")
    if missing := [cell for cell in space.cell_types if cell not in alphas]:
        raise GenotypeError(f"alphas are missing for cell types {missing}: give one [E, P] tensor for each")
    for cell, alpha in alphas.items():
        if tuple(alpha.shape) != space.alpha_shape:
            raise GenotypeError(
                f"{cell} alphas: expected shape {space.alpha_shape} (edges, primitives) of space {space.name!r}, "
                f"got {tuple(alpha.shape)}; with a task axis, pass one task at a time"
            )
        check_finite(cell, alpha)


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
        space: where its rows and columns are defined.
        dtype: of the weights.

    Returns:
        For each cell type [E, P]: 1 at every kept (edge, operation), 0 elsewhere, so a dropped edge is a row of zeros.
        These are weights, not alphas; as alphas they still derive to ``genotype``, up to order within nodes.

    Raises:
        GenotypeError: when ``genotype`` is not a point of ``space``.
    """
    genotype.validate(space)
    weights = {cell: torch.zeros(space.alpha_shape, dtype=dtype) for cell in space.cell_types}
    for cell, weight in weights.items():
        for node, source, op in genotype.choices(cell):
            weight[space.edge_index(node, source), space.primitives.index(op)] = 1.0
    return weights
