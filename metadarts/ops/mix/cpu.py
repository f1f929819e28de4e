"""CPU kernels of the mixed sum: every candidate is read once, all sums over candidates are taken in one pass.

Work items are (task, edge); what a candidate shared by all edges gets back is summed over them by the item of edge 0.
A candidate that is skipped is not read; it gets back zeros.
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
    number,
    pointer,
    put_number,
    take_a_number,
    total,
)
from metadarts.ops.vector.launch import FIRST, Kernel
from metadarts.ops.vector.pieces import clear, get, put
from metadarts.ops.vector.places import PLACE, image_of, place, placed

# skips: whether weights of 0 are passed over; dots: whether dp is asked for
Sizes = namedtuple("Sizes", "tasks edges count images pixels channels skips dots")
REST = FIRST + 8  # weights [K, T, E] come first there


@njit
def _sizes_of(block: Any) -> Any:
    f = FIRST
    return Sizes(
        argument(block, f), argument(block, f + 1), argument(block, f + 2), argument(block, f + 3),
        argument(block, f + 4), argument(block, f + 5), argument(block, f + 6), argument(block, f + 7),
    )  # fmt: skip


@njit
def _skipped(s: Any, weights: Any, at: int) -> bool:
    """Whether the candidate of this weight is passed over."""
    return s.skips != 0 and number(weights, at) == 0.0


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
                if _skipped(s, weights, at):
                    continue
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
            if first:
                clear(to, pixels * channels)


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
            a0, skipped = zero, _skipped(s, weights, at)
            if skipped and own:
                clear(image_of(d_y, t, e, 0), images * pixels * channels)
            for n in range(0 if skipped or not (own or s.dots) else images):
                upstream, source, to = image_of(g, t, 0, n), image_of(y, t, e, n), image_of(d_y, t, e, n)
                for v in range(0, channels, lanes(weights)):
                    some = min(lanes(weights), channels - v)
                    for m in range(pixels):
                        g0 = get(upstream, m * g.row + v, some)
                        if s.dots:
                            a0 = fma(g0, get(source, m * y.row + v, some), a0)
                        if own:
                            put(to, m * d_y.row + v, multiply(p, g0), some)
            put_number(d_weights, at, total(a0))
            if e == 0 and not own:
                _shared(block, s, weights, weights, gs, d_y, k, t)


@njit
def _shared(block: Any, s: Any, weights: Any, factors: Any, gs: int, d_y: Any, k: int, t: int) -> None:
    """dy_k[t] = sum_e factors[k, t, e] g[t, e] over the edges that are not passed over."""
    edges, pixels, channels = s.edges, s.pixels, s.channels
    for n in range(s.images):
        to, more = image_of(d_y, t, 0, n), False
        for e in range(edges):
            at = (k * s.tasks + t) * edges + e
            if _skipped(s, weights, at):
                continue
            g, p = place(block, gs + PLACE * e), everywhere(factors, at)
            upstream = image_of(g, t, 0, n)
            for v in range(0, channels, lanes(weights)):
                some = min(lanes(weights), channels - v)
                for m in range(pixels):
                    value = multiply(p, get(upstream, m * g.row + v, some))
                    if more:
                        value = add(value, get(to, m * d_y.row + v, some))
                    put(to, m * d_y.row + v, value, some)
            more = True
        if not more:
            clear(to, pixels * channels)


def _second(block: Any) -> None:
    """Upstream q_k of dp_k and v_k of dy_k: dg = sum_k p_k v_k + q_k y_k, dp_k = <v_k, g>, dy_k = q_k g.

    Without q only the terms of v are there, and no dy.
    """
    s, weights, a = _sizes_of(block), pointer(block, REST), REST + 1
    tasks, edges, count, images, pixels, channels = s.tasks, s.edges, s.count, s.images, s.pixels, s.channels
    d_weights, pulls, gs = pointer(block, a), pointer(block, a + 1), a + 2  # pulls: q [K, T, E]
    pulled = argument(block, a + 1) != 0
    ys, vs = gs + PLACE * edges, gs + PLACE * (edges + count)
    dgs, dys = gs + PLACE * (edges + 2 * count), gs + PLACE * (2 * edges + 2 * count)
    while True:
        item = take_a_number(block, 0)
        if item >= tasks * edges:
            break
        t, e = item // edges, item % edges
        g, d_g = place(block, gs + PLACE * e), place(block, dgs + PLACE * e)
        more = False
        for k in range(count):
            at = (k * tasks + t) * edges + e
            y, v_y, d_y = place(block, ys + PLACE * k), place(block, vs + PLACE * k), place(block, dys + PLACE * k)
            p, q, a0 = everywhere(weights, at), constant(weights, 0.0), constant(weights, 0.0)
            if pulled:
                q = everywhere(pulls, at)
            own = pulled and (d_y.edge != 0 or edges == 1)
            flows, skipped = argument(block, vs + PLACE * k) != 0, _skipped(s, weights, at)
            if skipped and own:
                clear(image_of(d_y, t, e, 0), images * pixels * channels)
            reads = not skipped and (flows or pulled)
            for n in range(images if reads else 0):
                upstream, to = image_of(g, t, 0, n), image_of(d_g, t, 0, n)
                source, along, back = image_of(y, t, e, n), image_of(v_y, t, e, n), image_of(d_y, t, e, n)
                for v in range(0, channels, lanes(weights)):
                    some = min(lanes(weights), channels - v)
                    for m in range(pixels):
                        g0, value = get(upstream, m * g.row + v, some), constant(weights, 0.0)
                        if pulled:
                            value = multiply(q, get(source, m * y.row + v, some))
                        if flows:
                            v0 = get(along, m * v_y.row + v, some)
                            value, a0 = fma(p, v0, value), fma(v0, g0, a0)
                        if more:
                            value = add(value, get(to, m * d_g.row + v, some))
                        put(to, m * d_g.row + v, value, some)
                        if own:
                            put(back, m * d_y.row + v, multiply(q, g0), some)
            more = more or reads
            put_number(d_weights, at, total(a0))
            if e == 0 and pulled and not own:
                _shared(block, s, weights, pulls, gs, d_y, k, t)
        if not more:
            clear(image_of(d_g, t, 0, 0), images * pixels * channels)


_FORWARD, _GRADIENT, _SECOND = (
    Kernel(_forward, "mix.forward"),
    Kernel(_gradient, "mix.gradient"),
    Kernel(_second, "mix.second"),
)


def forward(weights: Tensor, candidates: Sequence[Tensor], options: Any) -> tuple[Tensor, ...]:
    """E tensors [T, 1, N, H, W, C]; arguments as in `op._Mix`."""
    weights = weights.contiguous()
    candidates, places = _all_placed(candidates)
    edges, like = weights.shape[2], candidates[0]
    outs = tuple(like.new_empty(like.shape[0], 1, *like.shape[2:]) for _ in range(edges))
    sizes = _sizes(weights, like, options)
    _FORWARD(like.dtype, weights.shape[1] * edges, [*sizes, weights, *_all_placed(outs)[1], *places])
    return outs


def gradient(
    upstream: Sequence[Tensor], weights: Tensor, candidates: Sequence[Tensor], options: Any
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """(dp, dy) for upstream gradients [T, 1, N, H, W, C], one per edge."""
    weights = weights.contiguous()
    candidates, places = _all_placed(candidates)
    upstream, g_places = _all_placed(upstream)
    d_weights = torch.empty_like(weights)
    found = tuple(candidate.new_empty(candidate.shape) for candidate in candidates)
    rest = [weights, d_weights, *g_places, *places, *_all_placed(found)[1]]
    _GRADIENT(weights.dtype, weights.shape[1] * weights.shape[2], [*_sizes(weights, candidates[0], options), *rest])
    return d_weights, found


def second(
    q: Tensor | None, v: Sequence[Tensor | None], upstream: Sequence[Tensor], weights: Tensor,
    candidates: Sequence[Tensor], options: Any,
) -> tuple[tuple[Tensor, ...], Tensor, tuple[Tensor | None, ...]]:  # fmt: skip
    """(dg, dp, dy) for upstream q of dp and v of dy; without q there is no dy."""
    q, weights = None if q is None else q.contiguous(), weights.contiguous()
    candidates, places = _all_placed(candidates)
    upstream, g_places = _all_placed(upstream)
    along = [None if tensor is None else placed(tensor) for tensor in v]  # keeps the tensors alive
    v_places = [word for entry in along for word in (entry[1] if entry else [0] * PLACE)]
    d_weights = torch.empty_like(weights)
    d_g = tuple(g.new_empty(g.shape) for g in upstream)
    d_y = () if q is None else tuple(candidate.new_empty(candidate.shape) for candidate in candidates)
    back = _all_placed(d_y)[1] if d_y else [0] * PLACE * len(candidates)
    rest = [weights, d_weights, q, *g_places, *places, *v_places, *_all_placed(d_g)[1], *back]
    _SECOND(weights.dtype, weights.shape[1] * weights.shape[2], [*_sizes(weights, candidates[0], options), *rest])
    return d_g, d_weights, d_y or (None,) * len(candidates)


def _sizes(weights: Tensor, like: Tensor, options: Any) -> list[int]:
    count, tasks, edges = weights.shape
    pixels = like.shape[3] * like.shape[4]
    return [tasks, edges, count, like.shape[2], pixels, like.shape[5], int(options.skips), int(options.dots)]


def _all_placed(tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Any]]:
    pairs = [placed(tensor) for tensor in tensors]
    return [tensor for tensor, _ in pairs], [word for _, words in pairs for word in words]
