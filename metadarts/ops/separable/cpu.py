"""CPU kernels of the separable convolution: one work item is all of one task's edge, from the input to the derivative.

A group's images (25 of 8x8x16 float32: 100 kB) stay in the core's own cache from one stage to the next; what is handed
to the derivatives is written once; of an edge that is not needed d and gd are left as they are, for only these kernels
read them. The input's gradient, which sums over edges, has a work item per task and image.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import torch
from numba import njit
from torch import Tensor

from metadarts.ops.vector.lanes import argument, pointer, real_argument, shifted, take_a_number
from metadarts.ops.vector.launch import FIRST, Kernel
from metadarts.ops.vector.pieces import (
    added,
    clear,
    depthwise,
    depthwise_taps,
    frame,
    gated,
    normalise,
    normalise_pullback,
    normalise_second,
    outer_sum,
    product,
    taps_of,
    transpose,
)
from metadarts.ops.vector.places import PLACE, image_of, place, placed

# tasks, edges, images; height, width of x and of y; channels in and out; kernel, stride, dilation
Sizes = namedtuple("Sizes", "tasks edges images high wide h w channels outer kernel stride dilation")


@njit
def _sizes(block: Any) -> Any:
    f = FIRST
    return Sizes(
        argument(block, f), argument(block, f + 1), argument(block, f + 2), argument(block, f + 3),
        argument(block, f + 4), argument(block, f + 5), argument(block, f + 6), argument(block, f + 7),
        argument(block, f + 8), argument(block, f + 9), argument(block, f + 10), argument(block, f + 11),
    )  # fmt: skip


MASK = FIRST + 12
REST = FIRST + 13


@njit
def _skipped(block: Any, item: int) -> bool:
    """Whether nothing of this task's edge is needed."""
    return argument(block, MASK) != 0 and argument(pointer(block, MASK), item) == 0


def _forward(block: Any) -> None:
    """d = F(relu x, taps), y = normalise(d W)."""
    s, x, a = _sizes(block), place(block, REST), REST + PLACE
    scratch, scratch_size = pointer(block, a + 7), argument(block, a + 8)
    pad, frame_wide = s.dilation * (s.kernel // 2), s.wide + 2 * s.dilation * (s.kernel // 2)
    framed = shifted(scratch, take_a_number(block, 2) * scratch_size)
    taps = shifted(framed, (s.high + 2 * pad) * frame_wide * s.channels)
    pixels, taps_count = s.h * s.w, s.kernel * s.kernel
    while True:
        item = take_a_number(block, 0)
        if item >= s.tasks * s.edges:
            break
        task, edge = item // s.edges, item % s.edges
        weight = shifted(pointer(block, a), item * s.channels * taps_count)
        mixing = shifted(pointer(block, a + 1), item * s.channels * s.outer)
        shares = shifted(pointer(block, a + 2), task * s.images)
        d = shifted(pointer(block, a + 3), item * s.images * pixels * s.channels)
        y = shifted(pointer(block, a + 4), item * s.images * pixels * s.outer)
        r = shifted(pointer(block, a + 5), item * s.outer)
        if _skipped(block, item):
            clear(y, s.images * pixels * s.outer)
            clear(r, s.outer)
            continue
        taps_of(weight, s.channels, taps_count, False, taps)
        clear(framed, (s.high + 2 * pad) * frame_wide * s.channels)
        for n in range(s.images):
            source, here = image_of(x, task, edge, n), shifted(d, n * pixels * s.channels)
            if s.kernel:
                frame(source, x.row, source, x.row, True, s.high, s.wide, s.channels, 1, pad, frame_wide, framed)
                depthwise(framed, frame_wide, taps, s.kernel, s.dilation, s.stride, s.h, s.w, s.channels, here, False)
            else:
                gated(source, x.row, source, x.row, pixels, s.channels, here, s.channels)
            there = shifted(y, n * pixels * s.outer)
            product(here, s.channels, pixels, s.channels, mixing, s.outer, s.outer, there, s.outer, False)
        normalise(y, s.outer, shares, s.images, pixels, s.outer, real_argument(block, a + 6), r)


def _backward(block: Any) -> None:
    """gu, d_mixing = d' gu, gd = gu W' (+ pull of d), d_taps = W(relu x, gd)."""
    s, x, g, a = _sizes(block), place(block, REST), place(block, REST + PLACE), REST + 2 * PLACE
    scratch, scratch_size = pointer(block, a + 10), argument(block, a + 11)
    pad, frame_wide = s.dilation * (s.kernel // 2), s.wide + 2 * s.dilation * (s.kernel // 2)
    pixels, taps_count = s.h * s.w, s.kernel * s.kernel
    framed = shifted(scratch, take_a_number(block, 2) * scratch_size)
    taps = shifted(framed, (s.high + 2 * pad) * frame_wide * s.channels)
    back = shifted(taps, taps_count * s.channels)
    gu = shifted(back, s.channels * s.outer)
    pulled = argument(block, a + 5) != 0
    while True:
        item = take_a_number(block, 0)
        if item >= s.tasks * s.edges:
            break
        task, edge = item // s.edges, item % s.edges
        mixing = shifted(pointer(block, a), item * s.channels * s.outer)
        shares = shifted(pointer(block, a + 1), task * s.images)
        d = shifted(pointer(block, a + 2), item * s.images * pixels * s.channels)
        y = shifted(pointer(block, a + 3), item * s.images * pixels * s.outer)
        r = shifted(pointer(block, a + 4), item * s.outer)
        pull_r = shifted(pointer(block, a + 5), item * s.outer)
        pull_d = shifted(pointer(block, a + 6), item * s.images * pixels * s.channels)
        gd = shifted(pointer(block, a + 7), item * s.images * pixels * s.channels)
        d_weight = shifted(pointer(block, a + 8), item * s.channels * taps_count)
        d_mixing = shifted(pointer(block, a + 9), item * s.channels * s.outer)
        if _skipped(block, item):
            clear(d_weight, s.channels * taps_count)
            clear(d_mixing, s.channels * s.outer)
            continue
        upstream = image_of(g, task, edge, 0)
        normalise_pullback(
            upstream, g.image, g.row, y, s.outer, r, pull_r, pulled, shares, s.images, pixels, s.outer, gu
        )
        clear(d_mixing, s.channels * s.outer)
        outer_sum(d, s.channels, gu, s.outer, s.images * pixels, s.channels, s.outer, d_mixing, s.outer)
        transpose(mixing, s.channels, s.outer, back)
        copied = argument(block, a + 6) != 0
        if copied:
            added(pull_d, s.images * pixels * s.channels, gd, False)
        clear(framed, (s.high + 2 * pad) * frame_wide * s.channels)
        clear(taps, taps_count * s.channels)
        for n in range(s.images):
            here, there = shifted(gd, n * pixels * s.channels), shifted(gu, n * pixels * s.outer)
            product(there, s.outer, pixels, s.outer, back, s.channels, s.channels, here, s.channels, copied)
            if s.kernel:
                source = image_of(x, task, edge, n)
                frame(source, x.row, source, x.row, True, s.high, s.wide, s.channels, 1, pad, frame_wide, framed)
                depthwise_taps(framed, frame_wide, here, s.kernel, s.dilation, s.stride, s.h, s.w, s.channels, taps)
        transpose(taps, taps_count, s.channels, d_weight)


def _input_gradient(block: Any) -> None:
    """d_x = [x > 0] sum over edges of B(gd, weight); one work item per task, input edge and image."""
    s, x, out, a = _sizes(block), place(block, REST), place(block, REST + PLACE), REST + 2 * PLACE
    scratch, scratch_size = pointer(block, a + 3), argument(block, a + 4)
    pad, frame_wide = s.dilation * (s.kernel // 2), s.wide + 2 * s.dilation * (s.kernel // 2)
    pixels, taps_count = s.h * s.w, s.kernel * s.kernel
    framed = shifted(scratch, take_a_number(block, 2) * scratch_size)
    taps = shifted(framed, (s.high + 2 * pad) * frame_wide * s.channels)
    result = shifted(taps, taps_count * s.channels)
    own = argument(block, a + 2)  # input edges: all, or one that all share
    clear(framed, (s.high + 2 * pad) * frame_wide * s.channels)
    while True:
        item = take_a_number(block, 0)
        if item >= s.tasks * own * s.images:
            break
        task, edge, n = item // (own * s.images), item // s.images % own, item % s.images
        more = False
        for e in range(edge, edge + 1 if own > 1 else s.edges):
            index = task * s.edges + e
            if _skipped(block, index):
                continue
            gd = shifted(pointer(block, a), (index * s.images + n) * pixels * s.channels)
            if s.kernel:
                weight = shifted(pointer(block, a + 1), index * s.channels * taps_count)
                taps_of(weight, s.channels, taps_count, True, taps)
                frame(gd, s.channels, gd, s.channels, False, s.h, s.w, s.channels, s.stride, pad, frame_wide, framed)
                depthwise(framed, frame_wide, taps, s.kernel, s.dilation, 1, s.high, s.wide, s.channels, result, more)
            else:
                added(gd, pixels * s.channels, result, more)
            more = True
        if not more:
            clear(result, s.high * s.wide * s.channels)
        source, to = image_of(x, task, edge, n), image_of(out, task, edge, n)
        gated(result, s.channels, source, x.row, s.high * s.wide, s.channels, to, out.row)


def _second(block: Any) -> None:
    """The derivative of `_backward` and `_input_gradient` for upstream vx, vw (taps) and vm (mixing); README.md."""
    s, x, g, vx = _sizes(block), place(block, REST), place(block, REST + PLACE), place(block, REST + 2 * PLACE)
    a = REST + 3 * PLACE
    scratch, scratch_size = pointer(block, a + 15), argument(block, a + 16)
    pad, frame_wide = s.dilation * (s.kernel // 2), s.wide + 2 * s.dilation * (s.kernel // 2)
    pixels, taps_count = s.h * s.w, s.kernel * s.kernel
    frame_size = (s.high + 2 * pad) * frame_wide * s.channels
    framed = shifted(scratch, take_a_number(block, 2) * scratch_size)
    framed_v = shifted(framed, frame_size)
    taps = shifted(framed_v, frame_size)
    taps_v, d_taps = shifted(taps, taps_count * s.channels), shifted(taps, 2 * taps_count * s.channels)
    back_v = shifted(taps, 3 * taps_count * s.channels)
    pushed = shifted(back_v, s.channels * s.outer)  # the pull of gd, [pixels, channels] of one image
    gu = shifted(pushed, pixels * s.channels)
    has_x, has_w, has_m = (
        argument(block, REST + 2 * PLACE) != 0,
        argument(block, a + 7) != 0,
        argument(block, a + 8) != 0,
    )
    while True:
        item = take_a_number(block, 0)
        if item >= s.tasks * s.edges:
            break
        task, edge = item // s.edges, item % s.edges
        weight = shifted(pointer(block, a), item * s.channels * taps_count)
        mixing = shifted(pointer(block, a + 1), item * s.channels * s.outer)
        shares = shifted(pointer(block, a + 2), task * s.images)
        d = shifted(pointer(block, a + 3), item * s.images * pixels * s.channels)
        y = shifted(pointer(block, a + 4), item * s.images * pixels * s.outer)
        r = shifted(pointer(block, a + 5), item * s.outer)
        gd = shifted(pointer(block, a + 6), item * s.images * pixels * s.channels)
        v_weight = shifted(pointer(block, a + 7), item * s.channels * taps_count)
        v_mixing = shifted(pointer(block, a + 8), item * s.channels * s.outer)
        d_g = shifted(pointer(block, a + 9), item * s.images * pixels * s.outer)
        d_y = shifted(pointer(block, a + 10), item * s.images * pixels * s.outer)
        d_r = shifted(pointer(block, a + 11), item * s.outer)
        d_d = shifted(pointer(block, a + 12), item * s.images * pixels * s.channels)
        d_weight = shifted(pointer(block, a + 13), item * s.channels * taps_count)
        d_mixing = shifted(pointer(block, a + 14), item * s.channels * s.outer)
        if _skipped(block, item):
            clear(d_g, s.images * pixels * s.outer)
            clear(d_y, s.images * pixels * s.outer)
            clear(d_r, s.outer)
            clear(d_d, s.images * pixels * s.channels)
            clear(d_weight, s.channels * taps_count)
            clear(d_mixing, s.channels * s.outer)
            continue
        upstream = image_of(g, task, edge, 0)
        normalise_pullback(upstream, g.image, g.row, y, s.outer, r, r, False, shares, s.images, pixels, s.outer, gu)
        taps_of(weight, s.channels, taps_count, False, taps)
        if has_w:
            taps_of(v_weight, s.channels, taps_count, False, taps_v)
        if has_m:
            transpose(v_mixing, s.channels, s.outer, back_v)
        clear(framed, 2 * frame_size)
        clear(d_taps, taps_count * s.channels)
        clear(d_mixing, s.channels * s.outer)
        for n in range(s.images):
            at, there = n * pixels * s.channels, shifted(gu, n * pixels * s.outer)
            gate = image_of(x, task, edge, n)
            if has_x and not s.kernel:
                gated(image_of(vx, task, edge, n), vx.row, gate, x.row, pixels, s.channels, pushed, s.channels)
            if has_x and s.kernel:
                source = image_of(vx, task, edge, n)
                frame(source, vx.row, gate, x.row, True, s.high, s.wide, s.channels, 1, pad, frame_wide, framed_v)
                depthwise(
                    framed_v, frame_wide, taps, s.kernel, s.dilation, s.stride, s.h, s.w, s.channels, pushed, False
                )
                depthwise_taps(
                    framed_v, frame_wide, shifted(gd, at), s.kernel, s.dilation, s.stride, s.h, s.w, s.channels, d_taps
                )
            if has_w:
                frame(gate, x.row, gate, x.row, True, s.high, s.wide, s.channels, 1, pad, frame_wide, framed)
                depthwise(
                    framed, frame_wide, taps_v, s.kernel, s.dilation, s.stride, s.h, s.w, s.channels, pushed, has_x
                )
            if not (has_x or has_w):
                clear(pushed, pixels * s.channels)
            q = shifted(d_g, n * pixels * s.outer)
            product(pushed, s.channels, pixels, s.channels, mixing, s.outer, s.outer, q, s.outer, False)
            outer_sum(pushed, s.channels, there, s.outer, pixels, s.channels, s.outer, d_mixing, s.outer)
            if has_m:
                product(shifted(d, at), s.channels, pixels, s.channels, v_mixing, s.outer, s.outer, q, s.outer, True)
                product(
                    there, s.outer, pixels, s.outer, back_v, s.channels, s.channels, shifted(d_d, at), s.channels, False
                )
            else:
                clear(shifted(d_d, at), pixels * s.channels)
        transpose(d_taps, taps_count, s.channels, d_weight)
        normalise_second(d_g, upstream, g.image, g.row, y, s.outer, r, shares, s.images, pixels, s.outer, d_g, d_y, d_r)


_FORWARD, _BACKWARD = Kernel(_forward, "separable.forward"), Kernel(_backward, "separable.backward")
_INPUT, _SECOND = Kernel(_input_gradient, "separable.input_gradient"), Kernel(_second, "separable.second")


def forward(
    x: Tensor, depthwise: Tensor | None, pointwise: Tensor, shares: Tensor, needed: Tensor | None, options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, r, d); arguments and results as in `op._Separable`."""
    sizes = _geometry(x, depthwise, pointwise, options.stride, options.dilation)
    x, x_place = placed(x)
    depthwise, pointwise = _packed(depthwise), pointwise.contiguous()
    d, y, r = _like_d(sizes, x), _like_y(sizes, x), x.new_empty(sizes.tasks, sizes.edges, sizes.outer)
    frame_size, taps = _frame_size(sizes), sizes.kernel**2 * sizes.channels
    scratch = _scratch(x, frame_size + taps)
    rest = [depthwise, pointwise, shares, d, y, r, options.eps, scratch, scratch.shape[1]]
    _FORWARD(x.dtype, sizes.tasks * sizes.edges, [*sizes, needed, *x_place, *rest])
    return y, r, d


def gradient(
    g: Tensor, x: Tensor, depthwise: Tensor | None, pointwise: Tensor, y: Tensor, r: Tensor, d: Tensor, shares: Tensor,
    needed: Tensor | None, options: Any, pulls: tuple[Tensor, Tensor | None] | None,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, depthwise and pointwise, and gd (of d, for the second derivative).

    Args:
        pulls: upstream of r and of d besides g's of y; only after a second derivative.
    """
    sizes = _geometry(x, depthwise, pointwise, options.stride, options.dilation)
    (x, x_place), (g, g_place) = placed(x), placed(g)
    depthwise, pointwise = _packed(depthwise), pointwise.contiguous()
    pull_r, pull_d = pulls or (None, None)
    pull_r, pull_d = _packed(pull_r), _packed(pull_d)
    gd, d_depthwise, d_pointwise = torch.empty_like(d), _like(depthwise), torch.empty_like(pointwise)
    frame_size, taps, mixing = _frame_size(sizes), sizes.kernel**2 * sizes.channels, sizes.channels * sizes.outer
    scratch = _scratch(x, frame_size + taps + mixing + sizes.images * sizes.h * sizes.w * sizes.outer)
    rest = [pointwise, shares, d, y, r, pull_r, pull_d, gd, d_depthwise, d_pointwise]
    _BACKWARD(
        x.dtype, sizes.tasks * sizes.edges, [*sizes, needed, *x_place, *g_place, *rest, scratch, scratch.shape[1]]
    )
    return _input_gradient_of(gd, x, depthwise, sizes, needed), d_depthwise, d_pointwise, gd


def second(
    vx: Tensor | None, vw: Tensor | None, vm: Tensor | None, g: Tensor, x: Tensor, depthwise: Tensor | None,
    pointwise: Tensor, y: Tensor, r: Tensor, d: Tensor, shares: Tensor, gd: Tensor, needed: Tensor | None, options: Any,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of g, x, depthwise, pointwise, y, r and d for upstream vx, vw, vm of what `gradient` returned."""
    sizes = _geometry(x, depthwise, pointwise, options.stride, options.dilation)
    (x, x_place), (g, g_place) = placed(x), placed(g)
    vx, v_place = (None, [0] * PLACE) if vx is None else placed(vx)
    depthwise, pointwise = _packed(depthwise), pointwise.contiguous()
    vw, vm = _packed(vw), _packed(vm)
    d_g, d_y, d_r, d_d = torch.empty_like(y), torch.empty_like(y), torch.empty_like(r), torch.empty_like(d)
    d_depthwise, d_pointwise = _like(depthwise), torch.empty_like(pointwise)
    frame_size, taps, mixing = _frame_size(sizes), sizes.kernel**2 * sizes.channels, sizes.channels * sizes.outer
    pixels = sizes.h * sizes.w
    scratch = _scratch(
        x, 2 * frame_size + 3 * taps + mixing + pixels * sizes.channels + sizes.images * pixels * sizes.outer
    )
    rest = [depthwise, pointwise, shares, d, y, r, gd, vw, vm, d_g, d_y, d_r, d_d, d_depthwise, d_pointwise]
    _SECOND(
        x.dtype,
        sizes.tasks * sizes.edges,
        [*sizes, needed, *x_place, *g_place, *v_place, *rest, scratch, scratch.shape[1]],
    )
    d_x = None if vw is None else _input_gradient_of(gd, x, vw, sizes, needed)
    return d_g, d_x, d_depthwise, d_pointwise, d_y, d_r, d_d


def _packed(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _like(x: Tensor | None) -> Tensor | None:
    return None if x is None else torch.empty_like(x)


def _input_gradient_of(gd: Tensor, x: Tensor, depthwise: Tensor | None, sizes: Sizes, needed: Tensor | None) -> Tensor:
    d_x = x.new_empty(x.shape)
    frame_size, taps = _frame_size(sizes), sizes.kernel**2 * sizes.channels
    scratch = _scratch(x, frame_size + taps + sizes.high * sizes.wide * sizes.channels)
    rest = [gd, depthwise, x.shape[1], scratch, scratch.shape[1]]
    items = sizes.tasks * x.shape[1] * sizes.images
    _INPUT(x.dtype, items, [*sizes, needed, *placed(x)[1], *placed(d_x)[1], *rest])
    return d_x


def _geometry(x: Tensor, depthwise: Tensor | None, pointwise: Tensor, stride: int, dilation: int) -> Sizes:
    tasks, edges, channels, outer = pointwise.shape
    images, high, wide = x.shape[2:5]
    h, w = -(-high // stride), -(-wide // stride)
    kernel = 0 if depthwise is None else depthwise.shape[-1]
    return Sizes(tasks, edges, images, high, wide, h, w, channels, outer, kernel, stride, dilation)


def _frame_size(s: Sizes) -> int:
    pad = s.dilation * (s.kernel // 2)
    return int((s.high + 2 * pad) * (s.wide + 2 * pad) * s.channels)


def _like_d(s: Sizes, x: Tensor) -> Tensor:
    return x.new_empty(s.tasks, s.edges, s.images, s.h, s.w, s.channels)


def _like_y(s: Sizes, x: Tensor) -> Tensor:
    return x.new_empty(s.tasks, s.edges, s.images, s.h, s.w, s.outer)


def _scratch(x: Tensor, size: int) -> Tensor:
    """A row for each thread, a cache line apart."""
    return x.new_empty(torch.get_num_threads(), (size + 31) // 16 * 16)
