"""CPU kernels of the normalised pool; a work item is one task and one register's width of channels."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import torch
from numba import njit
from torch import Tensor

from metadarts.ops.vector.lanes import (
    add,
    argument,
    constant,
    lanes,
    multiply,
    number,
    pointer,
    put_number,
    real_argument,
    shifted,
    take_a_number,
    where_greater,
)
from metadarts.ops.vector.launch import FIRST, Kernel
from metadarts.ops.vector.pieces import get, normalise, normalise_pullback, normalise_second, put
from metadarts.ops.vector.places import PLACE, image_of, place, placed

Sizes = namedtuple("Sizes", "tasks images high wide h w channels stride maximum")
REST = FIRST + 9


@njit
def _sizes(block: Any) -> Any:
    f = FIRST
    return Sizes(
        argument(block, f), argument(block, f + 1), argument(block, f + 2), argument(block, f + 3),
        argument(block, f + 4), argument(block, f + 5), argument(block, f + 6), argument(block, f + 7),
        argument(block, f + 8),
    )  # fmt: skip


@njit
def _window(i: int, stride: int, size: int) -> tuple[int, int]:
    """First and past-the-last input line of output line i."""
    return max(stride * i - 1, 0), min(stride * i + 2, size)


@njit
def _largest(x: Any, row: int, s: Any, some: int, out: Any, which: Any) -> None:
    """Each window's maximum and, as a number beside it, which pixel of the image it is."""
    for i in range(s.h):
        top, bottom = _window(i, s.stride, s.high)
        for j in range(s.w):
            left, right = _window(j, s.stride, s.wide)
            best = get(x, (top * s.wide + left) * row, some)
            at = constant(x, float(top * s.wide + left))
            for a in range(top, bottom):
                for b in range(left, right):
                    value = get(x, (a * s.wide + b) * row, some)
                    at = where_greater(value, best, constant(x, float(a * s.wide + b)), at)
                    best = where_greater(value, best, value, best)
            put(out, (i * s.w + j) * s.channels, best, some)
            put(which, (i * s.w + j) * s.channels, at, some)


@njit
def _average(x: Any, row: int, s: Any, some: int, out: Any, out_row: int) -> None:
    for i in range(s.h):
        top, bottom = _window(i, s.stride, s.high)
        for j in range(s.w):
            left, right = _window(j, s.stride, s.wide)
            mean = constant(x, 0.0)
            for a in range(top, bottom):
                for b in range(left, right):
                    mean = add(mean, get(x, (a * s.wide + b) * row, some))
            part = constant(x, 1.0 / ((bottom - top) * (right - left)))
            put(out, (i * s.w + j) * out_row, multiply(mean, part), some)


@njit
def _scatter(g: Any, which: Any, s: Any, some: int, out: Any) -> None:
    """The transpose of the pool: out += P' g of one image."""
    for i in range(s.h):
        top, bottom = _window(i, s.stride, s.high)
        for j in range(s.w):
            left, right = _window(j, s.stride, s.wide)
            at = (i * s.w + j) * s.channels
            if s.maximum:
                for c in range(some):
                    to = int(number(which, at + c)) * s.channels + c
                    put_number(out, to, number(out, to) + number(g, at + c))
            else:
                part = multiply(get(g, at, some), constant(g, 1.0 / ((bottom - top) * (right - left))))
                for a in range(top, bottom):
                    for b in range(left, right):
                        to = (a * s.wide + b) * s.channels
                        put(out, to, add(get(out, to, some), part), some)


@njit
def _gather(v: Any, row: int, which: Any, s: Any, some: int, out: Any) -> None:
    """out = P v of one image, at the maxima of the forward pass."""
    if s.maximum:
        for m in range(s.h * s.w):
            for c in range(some):
                at = m * s.channels + c
                put_number(out, at, number(v, int(number(which, at)) * row + c))
    else:
        _average(v, row, s, some, out, s.channels)


def _forward(block: Any) -> None:
    s, x, a = _sizes(block), place(block, REST), REST + PLACE
    width = lanes(x.start)
    parts = (s.channels + width - 1) // width
    while True:
        item = take_a_number(block, 0)
        if item >= s.tasks * parts:
            break
        t, v = item // parts, item % parts * width
        some, size = min(width, s.channels - v), s.h * s.w * s.channels
        y, which = shifted(pointer(block, a + 1), t * s.images * size + v), pointer(block, a + 2)
        for n in range(s.images):
            source, to = shifted(image_of(x, t, 0, n), v), shifted(y, n * size)
            if s.maximum:
                _largest(source, x.row, s, some, to, shifted(which, (t * s.images + n) * size + v))
            else:
                _average(source, x.row, s, some, to, s.channels)
        shares, r = shifted(pointer(block, a), t * s.images), shifted(pointer(block, a + 3), t * s.channels + v)
        normalise(y, s.channels, shares, s.images, s.h * s.w, some, real_argument(block, a + 4), r)


def _gradient(block: Any) -> None:
    """dx = P' normalise_pullback(g)."""
    s, g, a = _sizes(block), place(block, REST), REST + PLACE
    width = lanes(g.start)
    parts = (s.channels + width - 1) // width
    scratch = shifted(pointer(block, a + 6), take_a_number(block, 2) * argument(block, a + 7))
    pulled = argument(block, a + 4) != 0
    while True:
        item = take_a_number(block, 0)
        if item >= s.tasks * parts:
            break
        t, v = item // parts, item % parts * width
        some, size, big = min(width, s.channels - v), s.h * s.w * s.channels, s.high * s.wide * s.channels
        shares, y = shifted(pointer(block, a), t * s.images), shifted(pointer(block, a + 1), t * s.images * size + v)
        r, pull_r = (
            shifted(pointer(block, a + 2), t * s.channels + v),
            shifted(pointer(block, a + 4), t * s.channels + v),
        )
        upstream = shifted(image_of(g, t, 0, 0), v)
        # The scratch has y's own layout, so that _scatter reads g where it reads the places of the maxima.
        normalise_pullback(
            upstream, g.image, g.row, y, s.channels, r, pull_r, pulled, shares, s.images, s.h * s.w, some, scratch
        )
        for n in range(s.images):
            out = shifted(pointer(block, a + 5), (t * s.images + n) * big + v)
            for m in range(s.high * s.wide):
                put(out, m * s.channels, constant(out, 0.0), some)
            which = shifted(pointer(block, a + 3), (t * s.images + n) * size + v)
            _scatter(shifted(scratch, n * size), which, s, some, out)


def _second(block: Any) -> None:
    """For upstream v of dx: q = P v, then the second derivative of `normalise`."""
    s, g, along, a = _sizes(block), place(block, REST), place(block, REST + PLACE), REST + 2 * PLACE
    width = lanes(g.start)
    parts = (s.channels + width - 1) // width
    while True:
        item = take_a_number(block, 0)
        if item >= s.tasks * parts:
            break
        t, v = item // parts, item % parts * width
        some, size = min(width, s.channels - v), s.h * s.w * s.channels
        shares, y = shifted(pointer(block, a), t * s.images), shifted(pointer(block, a + 1), t * s.images * size + v)
        r, d_r = shifted(pointer(block, a + 2), t * s.channels + v), shifted(pointer(block, a + 6), t * s.channels + v)
        d_g, d_y = (
            shifted(pointer(block, a + 4), t * s.images * size + v),
            shifted(pointer(block, a + 5), t * s.images * size + v),
        )
        for n in range(s.images):
            which = shifted(pointer(block, a + 3), (t * s.images + n) * size + v)
            _gather(shifted(image_of(along, t, 0, n), v), along.row, which, s, some, shifted(d_g, n * size))
        upstream = shifted(image_of(g, t, 0, 0), v)
        normalise_second(
            d_g, upstream, g.image, g.row, y, s.channels, r, shares, s.images, s.h * s.w, some, d_g, d_y, d_r
        )


_FORWARD, _GRADIENT, _SECOND = (
    Kernel(_forward, "pool.forward"),
    Kernel(_gradient, "pool.gradient"),
    Kernel(_second, "pool.second"),
)


def forward(x: Tensor, shares: Tensor, options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(y, r, which) as in `op._Pool`; ``which`` is kept in x's own type, exact up to 2^24 pixels."""
    s = _geometry(tuple(x.shape), options)
    x, x_place = placed(x.unsqueeze(1))
    y = x.new_empty(s.tasks, s.images, s.h, s.w, s.channels)
    which, r = torch.empty_like(y if s.maximum else y[:0]), x.new_empty(s.tasks, s.channels)
    _FORWARD(x.dtype, _items(s, x), [*s, *x_place, shares, y, which, r, options.eps])
    return y, r, which


def gradient(
    g: Tensor, pull_r: Tensor | None, y: Tensor, r: Tensor, which: Tensor, shares: Tensor, size: tuple[int, ...],
    options: Any,
) -> Tensor:  # fmt: skip
    """dx for upstream g of y and ``pull_r`` of r."""
    s = _geometry(size, options)
    g, g_place = placed(g.unsqueeze(1))
    d_x = y.new_empty(size)
    pull_r = None if pull_r is None else pull_r.contiguous()
    scratch = y.new_empty(torch.get_num_threads(), s.images * s.h * s.w * s.channels + 16)
    rest = [shares, y, r, which, pull_r, d_x, scratch, scratch.shape[1]]
    _GRADIENT(y.dtype, _items(s, y), [*s, *g_place, *rest])
    return d_x


def second(
    v: Tensor, g: Tensor, y: Tensor, r: Tensor, which: Tensor, shares: Tensor, options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of g, y and r for upstream v of dx."""
    s = _geometry(tuple(v.shape), options)
    (g, g_place), (v, v_place) = placed(g.unsqueeze(1)), placed(v.unsqueeze(1))
    d_g, d_y, d_r = torch.empty_like(y), torch.empty_like(y), torch.empty_like(r)
    _SECOND(y.dtype, _items(s, y), [*s, *g_place, *v_place, shares, y, r, which, d_g, d_y, d_r])
    return d_g, d_y, d_r


def _geometry(size: tuple[int, ...], options: Any) -> Sizes:
    tasks, images, high, wide, channels = size
    h, w = -(-high // options.stride), -(-wide // options.stride)
    return Sizes(tasks, images, high, wide, h, w, channels, options.stride, int(options.kind == "max"))


def _items(s: Sizes, like: Tensor) -> int:
    width = 64 // like.element_size()
    return int(s.tasks * -(-s.channels // width))
