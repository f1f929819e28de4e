"""The space of DARTS (Liu et al., ICLR 2019): 8 primitives, 4 nodes, 14 edges, 224 alphas."""

from __future__ import annotations

from ._space import SearchSpace

PRIMITIVES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)


def darts(nodes: int = 4, inputs_by: str = "rule", none: bool = True) -> SearchSpace:
    """The space of DARTS (Liu et al., ICLR 2019).

    Args:
        nodes: intermediate nodes per cell.
        inputs_by: "rule", or alphas for the inputs of a node: over "pairs" of them or over its "edges"; see
            `SearchSpace`.
        none: whether an edge may have no operation. With alphas for inputs, this is redundant.
    """
    primitives = PRIMITIVES if none else PRIMITIVES[1:]
    return SearchSpace(name="darts", primitives=primitives, nodes=nodes, inputs_by=inputs_by)


SPACE = darts
