"""CPU kernels of the mixed sum: every candidate is read once, all sums over candidates are taken in one pass.

Work items are (task, edge); what a candidate shared by all edges gets back is summed over them by the item of edge 0.
Memory of the candidates and of the upstream gradients: any [T, E or 1, N, H, W, C] whose pixels are evenly spaced.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import torch
from numba import njit
from torch import Tensor

from metadarts.ops.vector.lanes import (
    add,
    argument,
    constant,
    everywhere,
    fma,
    lanes,
    multiply,
    pointer,
    put_number,
    take_a_number,
    total,
)
from metadarts.ops.vector.launch import FIRST, Kernel
from metadarts.ops.vector.pieces import get, put
from metadarts.ops.vector.places import PLACE, image_of, place, placed

Sizes = namedtuple("Sizes", "tasks edges count images pixels channels")
REST = FIRST + 6  # weights [K, T, E] come first there


@njit
def _sizes_of(block: Any) -> Any:
    f = FIRST
    return Sizes(
        argument(block, f), argument(block, f + 1), argument(block, f + 2), argument(block, f + 3),
        argument(block, f + 4), argument(block, f + 5),
    )  # fmt: skip


def _forward(block: Any) -> None:
    """out[t, e] = sum_k p[k, t, e] y_k[t, e]."""
    s, weights, a = _sizes_of(block), pointer(block, REST), REST + 1
    tasks, edges, count, images, pixels, channels = s.tasks, s.edges, s.count, s.images, s.pixels, s.channels
    outs, candidates = a, a + PLACE * edges
    while True:
        item = take_a_number(block, 0)
        if item >= tasks * edges:
            break
        t, e = item // edges, item % edges
        for n in range(images):
            out = place(block, outs + PLACE * e)
            to = image_of(out, t, 0, n)
            first = True
            for k in range(count):
                at = (k * tasks + t) * edges + e
                p = everywhere(weights, at)
                y = place(block, candidates + PLACE * k)
                source = image_of(y, t, e, n)
                for v in range(0, channels, lanes(weights)):
                    some = min(lanes(weights), channels - v)
                    for m in range(pixels):
                        value = multiply(p, get(source, m * y.row + v, some))
                        if not first:
                            value = add(value, get(to, m * out.row + v, some))
                        put(to, m * out.row + v, value, some)
                first = False


def _gradient(block: Any) -> None:
    """dp[k, t, e] = <g, y_k>, dy_k = p_k g, summed over edges where y_k is shared."""
    s, weights, a = _sizes_of(block), pointer(block, REST), REST + 1
    tasks, edges, count, images, pixels, channels = s.tasks, s.edges, s.count, s.images, s.pixels, s.channels
    d_weights, gs = pointer(block, a), a + 1
    ys, dys = gs + PLACE * edges, gs + PLACE * (edges + count)
    while True:
        item = take_a_number(block, 0)
        if item >= tasks * edges:
            break
        t, e = item // edges, item % edges
        g = place(block, gs + PLACE * e)
        for k in range(count):
            at = (k * tasks + t) * edges + e
            y, d_y = place(block, ys + PLACE * k), place(block, dys + PLACE * k)
            p, zero = everywhere(weights, at), constant(weights, 0.0)
            own = d_y.edge != 0 or edges == 1
            a0 = zero
            for n in range(images):
                upstream, source, to = image_of(g, t, 0, n), image_of(y, t, e, n), image_of(d_y, t, e, n)
                for v in range(0, channels, lanes(weights)):
                    some = min(lanes(weights), channels - v)
                    for m in range(pixels):
                        g0 = get(upstream, m * g.row + v, some)
                        a0 = fma(g0, get(source, m * y.row + v, some), a0)
                        if own:
                            put(to, m * d_y.row + v, multiply(p, g0), some)
            put_number(d_weights, at, total(a0))
            if e == 0 and not own:
                _shared(block, weights, gs, d_y, k, t, tasks, edges, images, pixels, channels)


@njit
def _shared(
    block: Any, weights: Any, gs: int, d_y: Any, k: int, t: int, tasks: int, edges: int, images: int, pixels: int,
    channels: int,
) -> None:  # fmt: skip
    """dy_k[t] = sum_e p[k, t, e] g[t, e]."""
    for n in range(images):
        to = image_of(d_y, t, 0, n)
        for e in range(edges):
            g, p = place(block, gs + PLACE * e), everywhere(weights, (k * tasks + t) * edges + e)
            upstream = image_of(g, t, 0, n)
            for v in range(0, channels, lanes(weights)):
                some = min(lanes(weights), channels - v)
                for m in range(pixels):
                    value = multiply(p, get(upstream, m * g.row + v, some))
                    if e > 0:
                        value = add(value, get(to, m * d_y.row + v, some))
                    put(to, m * d_y.row + v, value, some)


def _second(block: Any) -> None:
    """Upstream q_k of dp_k and v_k of dy_k: dg = sum_k p_k v_k + q_k y_k, dp_k = <v_k, g>, dy_k = q_k g."""
    s, weights, a = _sizes_of(block), pointer(block, REST), REST + 1
    tasks, edges, count, images, pixels, channels = s.tasks, s.edges, s.count, s.images, s.pixels, s.channels
    d_weights, pulls, gs = pointer(block, a), pointer(block, a + 1), a + 2  # pulls: q [K, T, E]
    ys, vs = gs + PLACE * edges, gs + PLACE * (edges + count)
    dgs, dys = gs + PLACE * (edges + 2 * count), gs + PLACE * (2 * edges + 2 * count)
    while True:
        item = take_a_number(block, 0)
        if item >= tasks * edges:
            break
        t, e = item // edges, item % edges
        g, d_g = place(block, gs + PLACE * e), place(block, dgs + PLACE * e)
        for k in range(count):
            at = (k * tasks + t) * edges + e
            y, v_y, d_y = place(block, ys + PLACE * k), place(block, vs + PLACE * k), place(block, dys + PLACE * k)
            p, q, a0 = everywhere(weights, at), everywhere(pulls, at), constant(weights, 0.0)
            own, flows = d_y.edge != 0 or edges == 1, argument(block, vs + PLACE * k) != 0
            for n in range(images):
                upstream, to = image_of(g, t, 0, n), image_of(d_g, t, 0, n)
                source, along, back = image_of(y, t, e, n), image_of(v_y, t, e, n), image_of(d_y, t, e, n)
                for v in range(0, channels, lanes(weights)):
                    some = min(lanes(weights), channels - v)
                    for m in range(pixels):
                        g0 = get(upstream, m * g.row + v, some)
                        value = multiply(q, get(source, m * y.row + v, some))
                        if flows:
                            v0 = get(along, m * v_y.row + v, some)
                            value, a0 = fma(p, v0, value), fma(v0, g0, a0)
                        if k > 0:
                            value = add(value, get(to, m * d_g.row + v, some))
                        put(to, m * d_g.row + v, value, some)
                        if own:
                            put(back, m * d_y.row + v, multiply(q, g0), some)
            put_number(d_weights, at, total(a0))
            if e == 0 and not own:
                _shared(block, pulls, gs, d_y, k, t, tasks, edges, images, pixels, channels)


_FORWARD, _GRADIENT, _SECOND = (
    Kernel(_forward, "mix.forward"),
    Kernel(_gradient, "mix.gradient"),
    Kernel(_second, "mix.second"),
)


def forward(weights: Tensor, candidates: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """E tensors [T, 1, N, H, W, C]; arguments as in `op._Mix`."""
    weights = weights.contiguous()
    candidates, places = _all_placed(candidates)
    edges, like = weights.shape[2], candidates[0]
    outs = tuple(like.new_empty(like.shape[0], 1, *like.shape[2:]) for _ in range(edges))
    _FORWARD(like.dtype, weights.shape[1] * edges, [*_sizes(weights, like), weights, *_all_placed(outs)[1], *places])
    return outs


def gradient(
    upstream: Sequence[Tensor], weights: Tensor, candidates: Sequence[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """(dp, dy) for upstream gradients [T, 1, N, H, W, C], one per edge."""
    weights = weights.contiguous()
    candidates, places = _all_placed(candidates)
    upstream, g_places = _all_placed(upstream)
    d_weights = torch.empty_like(weights)
    found = tuple(candidate.new_empty(candidate.shape) for candidate in candidates)
    rest = [weights, d_weights, *g_places, *places, *_all_placed(found)[1]]
    _GRADIENT(weights.dtype, weights.shape[1] * weights.shape[2], [*_sizes(weights, candidates[0]), *rest])
    return d_weights, found


def second(
    q: Tensor, v: Sequence[Tensor | None], upstream: Sequence[Tensor], weights: Tensor, candidates: Sequence[Tensor]
) -> tuple[tuple[Tensor, ...], Tensor, tuple[Tensor, ...]]:
    """(dg, dp, dy) for upstream q of dp and v of dy."""
    q, weights = q.contiguous(), weights.contiguous()
    candidates, places = _all_placed(candidates)
    upstream, g_places = _all_placed(upstream)
    along = [None if tensor is None else placed(tensor) for tensor in v]  # keeps the tensors alive
    v_places = [word for entry in along for word in (entry[1] if entry else [0] * PLACE)]
    d_weights = torch.empty_like(weights)
    d_g = tuple(g.new_empty(g.shape) for g in upstream)
    d_y = tuple(candidate.new_empty(candidate.shape) for candidate in candidates)
    rest = [weights, d_weights, q, *g_places, *places, *v_places, *_all_placed(d_g)[1], *_all_placed(d_y)[1]]
    _SECOND(weights.dtype, weights.shape[1] * weights.shape[2], [*_sizes(weights, candidates[0]), *rest])
    return d_g, d_weights, d_y


def _sizes(weights: Tensor, like: Tensor) -> list[int]:
    count, tasks, edges = weights.shape
    return [tasks, edges, count, like.shape[2], like.shape[3] * like.shape[4], like.shape[5]]


def _all_placed(tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Any]]:
    pairs = [placed(tensor) for tensor in tensors]
    return [tensor for tensor, _ in pairs], [word for _, words in pairs for word in words]
