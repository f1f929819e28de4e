"""Triton kernels of the normalised pool; names as in README.md.

A group is one task; its pixels, those of all images, are cut into tiles that its programs take in turn. The place of a
window's maximum is its number in the window, 0 to 8: half-precision numbers could not count pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from metadarts.ops.gpu.launch import Kernel
from metadarts.ops.gpu.normal import pullback_sums
from metadarts.ops.gpu.pixels import place_of, read, write
from metadarts.ops.gpu.sums import merge_moments, moments_of_parts, store_moments, store_row, sum_of_parts
from metadarts.ops.gpu.tiles import power_of_two, tiling, types, wide_memory

MOST_CHANNELS = 64
"""Channels of a block; further blocks are further programs."""
TILE_BYTES = 4096
"""As a tile is summed: eight float32 for each thread, of which nine taps and their sums still fit its registers."""


@triton.jit
def _read_places(which, at, inside, channels, c, in_c):
    """Places of the maxima of pixels ``at``: [P, C], -1 where not inside."""
    mask = inside[:, None] & in_c[None, :]
    return tl.load(which + at[:, None] * channels + c[None, :], mask=mask, other=-1).to(tl.int32)


@triton.jit
def _tap(n, row, col, ok, i: tl.constexpr, j: tl.constexpr, high, wide, STRIDE: tl.constexpr):
    """The pixel of x at place (i, j) of each window, and whether there is one."""
    row = row * STRIDE + (i - 1)
    col = col * STRIDE + (j - 1)
    return (n * high + row) * wide + col, ok & (row >= 0) & (row < high) & (col >= 0) & (col < wide)


@triton.jit
def _window_pixels(row, col, high, wide, STRIDE: tl.constexpr):
    """How many pixels [P] the windows of output pixels (row, col) have."""
    down = tl.minimum(row * STRIDE + 2, high) - tl.maximum(row * STRIDE - 1, 0)
    across = tl.minimum(col * STRIDE + 2, wide) - tl.maximum(col * STRIDE - 1, 0)
    return down * across


@triton.jit
def _average(
    x, n, row, col, ok, high, wide, channels, c, in_c,
    STRIDE: tl.constexpr, P: tl.constexpr, C: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Each window's average [P, C] over the pixels that exist."""
    total = tl.zeros([P, C], ACC)
    for i in tl.static_range(3):
        for j in tl.static_range(3):
            at, inside = _tap(n, row, col, ok, i, j, high, wide, STRIDE)
            total += read(x, at, inside, channels, c, in_c, ACC)
    return total / _window_pixels(row, col, high, wide, STRIDE).to(ACC)[:, None]


@triton.jit
def _largest(
    x, n, row, col, ok, high, wide, channels, c, in_c,
    STRIDE: tl.constexpr, P: tl.constexpr, C: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Each window's maximum and its place [P, C]: the first of equal values; a NaN wins."""
    best = tl.full([P, C], float("-inf"), ACC)
    place = tl.full([P, C], 4, tl.int32)
    for i in tl.static_range(3):
        for j in tl.static_range(3):
            at, inside = _tap(n, row, col, ok, i, j, high, wide, STRIDE)
            value = read(x, at, inside, channels, c, in_c, ACC)
            larger = inside[:, None] & ((value > best) | (value != value))
            best = tl.where(larger, value, best)
            place = tl.where(larger, i * 3 + j, place)
    # Where there is no pixel nothing was larger, and minus infinity times a share of zero would be NaN.
    return tl.where(ok[:, None], best, 0.0), place


@triton.jit
def _pool(
    x, which, n, row, col, ok, p, high, wide, channels, c, in_c, PLACES: tl.constexpr,
    MAXIMUM: tl.constexpr, STRIDE: tl.constexpr, P: tl.constexpr, C: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """a = P x of a tile [P, C]; with PLACES, those of its maxima are written down."""
    if MAXIMUM:
        a, place = _largest(x, n, row, col, ok, high, wide, channels, c, in_c, STRIDE, P, C, ACC)
        if PLACES:
            write(which, p, ok, channels, c, in_c, place)
    else:
        a = _average(x, n, row, col, ok, high, wide, channels, c, in_c, STRIDE, P, C, ACC)
    return a


@triton.jit
def _pool_again(
    v, which, n, row, col, ok, p, high, wide, channels, c, in_c,
    MAXIMUM: tl.constexpr, STRIDE: tl.constexpr, P: tl.constexpr, C: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """q = P v of a tile [P, C], at the places of the forward pass."""
    if MAXIMUM:
        place = _read_places(which, p, ok, channels, c, in_c)
        i, j = place // 3, place % 3
        at = (n * high + row * STRIDE - 1)[:, None] + i
        at = at * wide + (col * STRIDE - 1)[:, None] + j
        q = tl.load(v + at * channels + c[None, :], mask=place >= 0, other=0.0).to(ACC)
    else:
        q = _average(v, n, row, col, ok, high, wide, channels, c, in_c, STRIDE, P, C, ACC)
    return q


@triton.jit
def _forward(
    x, shares, y, which, parts, images, high, wide, h, w, channels, programs,
    MAXIMUM: tl.constexpr, STRIDE: tl.constexpr, AGAIN: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """The moments of a = P x; a itself, into the memory of y, and its places, unless they are computed AGAIN."""
    group, program = tl.program_id(0).to(tl.int64), tl.program_id(1)
    pixels = images * h * w
    c = tl.program_id(2) * C + tl.arange(0, C)
    in_c = c < channels
    x += group * (images * high * wide * channels)
    y += group * (pixels * channels)
    which += group * (pixels * channels)
    shares += group * images
    weight = tl.zeros([C], ACC)
    mean = tl.zeros([C], ACC)
    spread = tl.zeros([C], ACC)
    for start in range(program * P, pixels, programs * P):
        p = start + tl.arange(0, P)
        ok = p < pixels
        n, row, col = place_of(p, h, w)
        a = _pool(x, which, n, row, col, ok, p, high, wide, channels, c, in_c, not AGAIN, MAXIMUM, STRIDE, P, C, ACC)
        if not AGAIN:
            write(y, p, ok, channels, c, in_c, a)
        share = tl.load(shares + n, mask=ok, other=0.0).to(ACC)
        weight, mean, spread = merge_moments(weight, mean, spread, a, share)
    parts += (group * programs + program) * (3 * channels)
    store_moments(parts, channels, c, in_c, weight, mean, spread)


@triton.jit
def _normalise(
    parts, x, y, which, r, images, high, wide, h, w, channels, programs,
    EPS: tl.constexpr, MAXIMUM: tl.constexpr, STRIDE: tl.constexpr, AGAIN: tl.constexpr, P: tl.constexpr,
    C: tl.constexpr, PROGRAMS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """y = (a - m) r and r; a is in the memory of y, or computed AGAIN, with its places."""
    group, program = tl.program_id(0).to(tl.int64), tl.program_id(1)
    pixels = images * h * w
    c = tl.program_id(2) * C + tl.arange(0, C)
    in_c = c < channels
    x += group * (images * high * wide * channels)
    y += group * (pixels * channels)
    which += group * (pixels * channels)
    mean, variance = moments_of_parts(parts + group * programs * (3 * channels), programs, PROGRAMS, channels, c, in_c)
    inverse = 1.0 / tl.sqrt(variance + EPS)
    if program == 0:
        tl.store(r + group * channels + c, inverse, mask=in_c)
    for start in range(program * P, pixels, programs * P):
        p = start + tl.arange(0, P)
        ok = p < pixels
        if AGAIN:
            n, row, col = place_of(p, h, w)
            a = _pool(x, which, n, row, col, ok, p, high, wide, channels, c, in_c, True, MAXIMUM, STRIDE, P, C, ACC)
        else:
            a = read(y, p, ok, channels, c, in_c, ACC)
        write(y, p, ok, channels, c, in_c, (a - mean[None, :]) * inverse[None, :])


@triton.jit
def _input_gradient(
    g, y, r, which, shares, pull_r, sums, dx, images, high, wide, h, w, channels, programs,
    MAXIMUM: tl.constexpr, STRIDE: tl.constexpr, WINDOWS: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
    PROGRAMS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dx = P' ga: each pixel of x looks at the windows that hold it, WINDOWS along an axis at most.

    ga = r (g - w (S(g) + y S(g y))) - h r^2 w y is recomputed for each of them: it is two loads from the cache.
    """
    group, program = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = tl.program_id(2) * C + tl.arange(0, C)
    in_c = c < channels
    pixels = images * high * wide
    dx += group * (pixels * channels)
    size = images * h * w * channels
    g += group * size
    y += group * size
    which += group * size
    shares += group * images
    sums += group * programs * (2 * channels)
    total = sum_of_parts(sums, 0, 2, programs, PROGRAMS, channels, c, in_c)
    total_y = sum_of_parts(sums, 1, 2, programs, PROGRAMS, channels, c, in_c)
    inverse = tl.load(r + group * channels + c, mask=in_c, other=0.0).to(ACC)
    if pull_r is not None:
        # -h r^2 w y is what r S(g y) would be if it were larger by h r
        total_y += tl.load(pull_r + group * channels + c, mask=in_c, other=0.0).to(ACC) * inverse
    for start in range(program * P, pixels, tl.num_programs(1) * P):
        p = start + tl.arange(0, P)
        ok = p < pixels
        n, row, col = place_of(p, high, wide)
        share = tl.load(shares + n, mask=ok, other=0.0).to(ACC)
        found = tl.zeros([P, C], ACC)
        for a in tl.static_range(WINDOWS):
            i = (row + 1) // STRIDE - a
            down = ok & (i >= 0) & (i < h) & (i * STRIDE + 1 >= row)
            for b in tl.static_range(WINDOWS):
                j = (col + 1) // STRIDE - b
                inside = down & (j >= 0) & (j < w) & (j * STRIDE + 1 >= col)
                at = (n * h + i) * w + j
                if MAXIMUM:
                    place = (row + 1 - i * STRIDE) * 3 + col + 1 - j * STRIDE
                    mine = _read_places(which, at, inside, channels, c, in_c) == place[:, None]
                    where = at[:, None] * channels + c[None, :]
                    upstream = tl.load(g + where, mask=mine, other=0.0).to(ACC)
                    normal = tl.load(y + where, mask=mine, other=0.0).to(ACC)
                    ga = upstream - share[:, None] * (total[None, :] + normal * total_y[None, :])
                    found += tl.where(mine, ga, 0.0)
                else:
                    upstream = read(g, at, inside, channels, c, in_c, ACC)
                    normal = read(y, at, inside, channels, c, in_c, ACC)
                    ga = upstream - share[:, None] * (total[None, :] + normal * total_y[None, :])
                    size_of = _window_pixels(i, j, high, wide, STRIDE)
                    part = tl.where(inside, 1.0 / tl.where(inside, size_of, 1).to(ACC), 0.0)
                    found += ga * part[:, None]
        write(dx, p, ok, channels, c, in_c, found * inverse[None, :])


@triton.jit
def _second(
    v, g, y, which, shares, d_g, parts, images, high, wide, h, w, channels, programs,
    MAXIMUM: tl.constexpr, STRIDE: tl.constexpr, AGAIN: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """A program's part of S(g), S(g y), A(q), A(q y) and S(q g); q = P v into the memory of d_g, unless AGAIN."""
    group, program = tl.program_id(0).to(tl.int64), tl.program_id(1)
    pixels = images * h * w
    c = tl.program_id(2) * C + tl.arange(0, C)
    in_c = c < channels
    v += group * (images * high * wide * channels)
    g += group * (pixels * channels)
    y += group * (pixels * channels)
    which += group * (pixels * channels)
    d_g += group * (pixels * channels)
    shares += group * images
    sum_g = tl.zeros([C], ACC)
    sum_gy = tl.zeros([C], ACC)
    mean_q = tl.zeros([C], ACC)
    mean_qy = tl.zeros([C], ACC)
    sum_qg = tl.zeros([C], ACC)
    for start in range(program * P, pixels, programs * P):
        p = start + tl.arange(0, P)
        ok = p < pixels
        n, row, col = place_of(p, h, w)
        q = _pool_again(v, which, n, row, col, ok, p, high, wide, channels, c, in_c, MAXIMUM, STRIDE, P, C, ACC)
        if not AGAIN:
            write(d_g, p, ok, channels, c, in_c, q)
        upstream, normal = read(g, p, ok, channels, c, in_c, ACC), read(y, p, ok, channels, c, in_c, ACC)
        weighted = q * tl.load(shares + n, mask=ok, other=0.0).to(ACC)[:, None]
        sum_g += tl.sum(upstream, 0)
        sum_gy += tl.sum(upstream * normal, 0)
        mean_q += tl.sum(weighted, 0)
        mean_qy += tl.sum(weighted * normal, 0)
        sum_qg += tl.sum(q * upstream, 0)
    parts += (group * programs + program) * (5 * channels)
    store_row(parts, 0, channels, c, in_c, sum_g)
    store_row(parts, 1, channels, c, in_c, sum_gy)
    store_row(parts, 2, channels, c, in_c, mean_q)
    store_row(parts, 3, channels, c, in_c, mean_qy)
    store_row(parts, 4, channels, c, in_c, sum_qg)


@triton.jit
def _finish(
    v, g, y, r, which, shares, parts, d_g, d_y, d_r, images, high, wide, h, w, channels, programs,
    MAXIMUM: tl.constexpr, STRIDE: tl.constexpr, AGAIN: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
    PROGRAMS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dg = r (q - A(q) - A(q y) y), dy = -r (w q S(g y) + A(q y) g), dr = S(q g) - A(q) S(g) - A(q y) S(g y)."""
    group, program = tl.program_id(0).to(tl.int64), tl.program_id(1)
    pixels = images * h * w
    c = tl.program_id(2) * C + tl.arange(0, C)
    in_c = c < channels
    v += group * (images * high * wide * channels)
    g += group * (pixels * channels)
    y += group * (pixels * channels)
    which += group * (pixels * channels)
    d_g += group * (pixels * channels)
    d_y += group * (pixels * channels)
    shares += group * images
    parts += group * programs * (5 * channels)
    sum_gy = sum_of_parts(parts, 1, 5, programs, PROGRAMS, channels, c, in_c)
    mean_q = sum_of_parts(parts, 2, 5, programs, PROGRAMS, channels, c, in_c)
    mean_qy = sum_of_parts(parts, 3, 5, programs, PROGRAMS, channels, c, in_c)
    if program == 0:
        sum_g = sum_of_parts(parts, 0, 5, programs, PROGRAMS, channels, c, in_c)
        sum_qg = sum_of_parts(parts, 4, 5, programs, PROGRAMS, channels, c, in_c)
        tl.store(d_r + group * channels + c, sum_qg - mean_q * sum_g - mean_qy * sum_gy, mask=in_c)
    inverse = tl.load(r + group * channels + c, mask=in_c, other=0.0).to(ACC)
    for start in range(program * P, pixels, programs * P):
        p = start + tl.arange(0, P)
        ok = p < pixels
        n, row, col = place_of(p, h, w)
        if AGAIN:
            q = _pool_again(v, which, n, row, col, ok, p, high, wide, channels, c, in_c, MAXIMUM, STRIDE, P, C, ACC)
        else:
            q = read(d_g, p, ok, channels, c, in_c, ACC)
        upstream, normal = read(g, p, ok, channels, c, in_c, ACC), read(y, p, ok, channels, c, in_c, ACC)
        weighted = q * tl.load(shares + n, mask=ok, other=0.0).to(ACC)[:, None]
        along_g = q - mean_q[None, :] - mean_qy[None, :] * normal
        along_y = weighted * sum_gy[None, :] + mean_qy[None, :] * upstream
        write(d_g, p, ok, channels, c, in_c, inverse[None, :] * along_g)
        write(d_y, p, ok, channels, c, in_c, -inverse[None, :] * along_y)


_FORWARD, _NORMALISE = Kernel(_forward, "pool.forward"), Kernel(_normalise, "pool.normalise")
_SUMS, _INPUT = Kernel(pullback_sums, "pool.sums"), Kernel(_input_gradient, "pool.input_gradient")
_SECOND, _FINISH = Kernel(_second, "pool.second"), Kernel(_finish, "pool.finish")


class _Plan(NamedTuple):
    """Sizes, how they are cut into tiles, and the constants that all kernels share."""

    tasks: int
    images: int
    high: int
    wide: int
    h: int
    w: int
    channels: int
    programs: int
    padded: int
    blocks: int
    again: bool
    tile: dict[str, Any]
    window: dict[str, Any]

    @classmethod
    def of(cls, size: tuple[int, ...], like: Tensor, options: Any) -> _Plan:
        tasks, images, high, wide, channels = size
        h, w = -(-high // options.stride), -(-wide // options.stride)
        block = min(power_of_two(channels), MOST_CHANNELS)
        cut = tiling(tasks, images * h * w, block, like.device)
        maximum = options.kind == "max"
        # At stride 1 reading x twice moves less than writing a and reading it; an average kept in half the width would
        # lose what its variance measures.
        again = options.stride == 1 or (not maximum and like.element_size() < 4)
        acc = types(like.dtype)["ACC"]
        rows = TILE_BYTES // (block * max(like.element_size(), 4))
        tile = {"P": min(cut.pixels, rows), "C": block, "ACC": acc, "num_warps": cut.warps}
        window = {"MAXIMUM": maximum, "STRIDE": options.stride}
        blocks = -(-channels // block)
        sizes = (tasks, images, high, wide, h, w, channels)
        return cls(*sizes, cut.programs, cut.padded, blocks, again, tile, window)

    @property
    def grid(self) -> tuple[int, int, int]:
        return self.tasks, self.programs, self.blocks

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.images, self.high, self.wide, self.h, self.w, self.channels, self.programs

    def parts(self, like: Tensor, rows: int) -> Tensor:
        """Memory for ``rows`` sums of each program."""
        return wide_memory(like, self.tasks, self.programs, rows, self.channels)


def forward(x: Tensor, shares: Tensor, options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(y, r, which) as in `op._Pool`; ``which`` is a number in the window, int8."""
    plan = _Plan.of(tuple(x.shape), x, options)
    x = x.contiguous()
    y = x.new_empty(plan.tasks, plan.images, plan.h, plan.w, plan.channels)
    which = torch.empty_like(y if plan.window["MAXIMUM"] else y[:0], dtype=torch.int8)
    r, parts = wide_memory(x, plan.tasks, plan.channels), plan.parts(x, 3)
    _FORWARD(plan.grid, x, shares, y, which, parts, *plan.sizes, AGAIN=plan.again, **plan.window, **plan.tile)
    _NORMALISE(
        plan.grid, parts, x, y, which, r, *plan.sizes, EPS=options.eps, AGAIN=plan.again, PROGRAMS=plan.padded,
        **plan.window, **plan.tile,
    )  # fmt: skip
    return y, r, which


def gradient(
    g: Tensor, pull_r: Tensor | None, y: Tensor, r: Tensor, which: Tensor, shares: Tensor, size: tuple[int, ...],
    options: Any,
) -> Tensor:  # fmt: skip
    """dx for upstream g of y and ``pull_r`` of r."""
    plan = _Plan.of(size, y, options)
    g, pull_r = g.contiguous(), None if pull_r is None else pull_r.contiguous()
    sums, d_x = plan.parts(y, 2), y.new_empty(size)
    pixels = plan.images * plan.high * plan.wide  # of x, which at stride 2 has four times those of y
    programs = tiling(plan.tasks, pixels, plan.tile["C"], y.device).programs
    _SUMS(plan.grid, g, y, None, sums, plan.images * plan.h * plan.w, plan.channels, plan.programs, **plan.tile)
    _INPUT(
        (plan.tasks, programs, plan.blocks), g, y, r, which, shares, pull_r, sums, d_x, *plan.sizes,
        WINDOWS=-(-3 // options.stride), PROGRAMS=plan.padded, **plan.window, **plan.tile,
    )  # fmt: skip
    return d_x


def second(
    v: Tensor, g: Tensor, y: Tensor, r: Tensor, which: Tensor, shares: Tensor, options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of g, y and r for upstream v of dx."""
    plan = _Plan.of(tuple(v.shape), y, options)
    v, g = v.contiguous(), g.contiguous()
    d_g, d_y, d_r, parts = torch.empty_like(y), torch.empty_like(y), torch.empty_like(r), plan.parts(y, 5)
    _SECOND(plan.grid, v, g, y, which, shares, d_g, parts, *plan.sizes, AGAIN=plan.again, **plan.window, **plan.tile)
    _FINISH(
        plan.grid, v, g, y, r, which, shares, parts, d_g, d_y, d_r, *plan.sizes, AGAIN=plan.again,
        PROGRAMS=plan.padded, **plan.window, **plan.tile,
    )  # fmt: skip
    return d_g, d_y, d_r
