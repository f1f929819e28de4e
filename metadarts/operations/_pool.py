"""3x3 pools, followed by batch norm in search networks."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from metadarts.ops import bare_pool, pool

from ._folding import Folding, Map
from ._types import EdgeContext, Operation


def pool_operation(kind: str, shade: str) -> Operation:
    """``kind`` is "max" or "avg"; the average does not count padding."""
    return Operation(run=partial(_run, kind=kind), fold=partial(_fold, kind=kind), shade=shade)


def _run(state: Tensor, context: EdgeContext, *, kind: str) -> Tensor:
    if context.pool_norm:
        return pool(state, kind, context.stride, context.statistics.rows).unsqueeze(1)
    return bare_pool(state, kind, context.stride).unsqueeze(1)


def _fold(layers: Folding, x: Map, *, kind: str) -> Map:
    pool_of = layers.max_pool if kind == "max" else layers.average_pool
    pooled = pool_of(x, 3, stride=layers.stride, padding=1)
    return layers.batch_norm(pooled, "norm") if layers.pool_norm else pooled
