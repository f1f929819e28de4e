"""Triton kernels of the convolutional block; names as in README.md.

A group is a task. Kernels with products cut its pixels, those of all images, into tiles; kernels without cut its
pooling windows, those at an odd last line or column, which give no y, among them. A convolution is a product of
patches [P, k k C] with filters [k k C, O], of which neither is ever stored: a step takes K columns, of one tap where K
divides C, else across taps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from metadarts.ops.gpu.launch import Kernel, interpreting
from metadarts.ops.gpu.pixels import place_of, read, write
from metadarts.ops.gpu.sums import merge_moments, moments_of_parts, store_moments, store_row, sum_of_parts
from metadarts.ops.gpu.tiles import Tiling, power_of_two, tiling, types, wide_memory

SPAN = 256
"""Numbers of a weight's gradient that one program joins."""
SMALL = 4096
"""Numbers of one task's filters up to which reading them as they lie is cheaper than a launch that packs them."""


@triton.jit
def _row(base, c, in_c, ACC: tl.constexpr):
    """A group's numbers by channel, [C]."""
    return tl.load(base + c, mask=in_c, other=0.0).to(ACC)


@triton.jit
def _columns(step, channels, KERNEL: tl.constexpr, PACKED: tl.constexpr, K: tl.constexpr):
    """Tap (one number unless PACKED, else [K]), channel [K] and whether there is one, of columns step * K ..."""
    if PACKED:
        column = step * K + tl.arange(0, K)
        tap = column // channels
        return tap, column - tap * channels, tap < KERNEL * KERNEL
    else:
        blocks = channels // K
        tap = step // blocks
        c = (step - tap * blocks) * K + tl.arange(0, K)
        return tap, c, c < channels


@triton.jit
def _patch(
    p, row, col, ok, tap, c, inside, high, wide, channels,
    KERNEL: tl.constexpr, PACKED: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """Where in a group the numbers under the taps lie, [P, K], and whether they are inside; over them, where BACK."""
    taps = tap[None, :] if PACKED else tap
    a = taps // KERNEL
    b = taps - a * KERNEL
    a -= KERNEL // 2
    b -= KERNEL // 2
    if BACK:
        a = -a
        b = -b
    rows, cols = row[:, None] + a, col[:, None] + b
    seen = ok[:, None] & (rows >= 0) & (rows < high) & (cols >= 0) & (cols < wide)
    return (p[:, None] + a * wide + b) * channels + c[None, :], seen & inside[None, :]


@triton.jit
def _filters(base, tap, c, inside, o, in_o, tap_step, in_step, out_step, PACKED: tl.constexpr, DOT: tl.constexpr):
    """Filters [K, O] of columns (tap, c)."""
    first = (tap * tap_step + c * in_step)[:, None]
    return tl.load(base + first + o[None, :] * out_step, mask=inside[:, None] & in_o[None, :], other=0.0).to(DOT)


@triton.jit
def _convolve(
    x, x_filters, v, v_filters, total, p, row, col, ok, o, in_o, high, wide, channels, tap_step, in_step, out_step,
    RECTIFY: tl.constexpr, BACK: tl.constexpr, KERNEL: tl.constexpr, PACKED: tl.constexpr, K: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """total [P, O] + F(x, x_filters) + F(v, v_filters), each where given; B instead of F where BACK.

    Where RECTIFY, x is taken through a ReLU and v counts where x > 0.
    """
    steps = tl.cdiv(KERNEL * KERNEL * channels, K)
    for step in range(steps):
        tap, c, inside = _columns(step, channels, KERNEL, PACKED, K)
        at, seen = _patch(p, row, col, ok, tap, c, inside, high, wide, channels, KERNEL, PACKED, BACK)
        if x_filters is not None or RECTIFY:
            values = tl.load(x + at, mask=seen, other=0.0).to(DOT)
        if v is not None:
            moved = tl.load(v + at, mask=seen, other=0.0).to(DOT)
            if RECTIFY:
                moved = tl.where(values > 0.0, moved, 0.0).to(DOT)
            right = _filters(v_filters, tap, c, inside, o, in_o, tap_step, in_step, out_step, PACKED, DOT)
            total = tl.dot(moved, right, acc=total, out_dtype=ACC, input_precision=PRECISION)
        if x_filters is not None:
            if RECTIFY:
                values = tl.where(values < 0.0, 0.0, values).to(DOT)  # NaN stays NaN
            right = _filters(x_filters, tap, c, inside, o, in_o, tap_step, in_step, out_step, PACKED, DOT)
            total = tl.dot(values, right, acc=total, out_dtype=ACC, input_precision=PRECISION)
    return total


@triton.jit
def _windows(q, images, high, wide):
    """Image, line and column [P] of windows q [P]; whether there is such a window; whether all of it is inside."""
    down, across = (high + 1) // 2, (wide + 1) // 2
    n, i, j = place_of(q, down, across)
    ok = q < images * down * across
    return n, i, j, ok, ok & (i < high // 2) & (j < wide // 2)


@triton.jit
def _corner(n, i, j, ok, corner: tl.constexpr, high, wide):
    """The pixel [P] at a corner, 0 to 3, of windows, and whether it is inside."""
    row, col = 2 * i + corner // 2, 2 * j + corner % 2
    return (n * high + row) * wide + col, ok & (row < high) & (col < wide)


@triton.jit
def _upstream(g, which, n, i, j, whole, high, wide, outer, o, in_o, ACC: tl.constexpr):
    """g and the maximum's corner (4, none, where there is no whole window), both [P, O]."""
    at = (n * (high // 2) + i) * (wide // 2) + j
    mask = whole[:, None] & in_o[None, :]
    code = tl.load(which + at[:, None] * outer + o[None, :], mask=mask, other=4).to(tl.int32)
    return read(g, at, whole, outer, o, in_o, ACC), code


@triton.jit
def _forward(
    x, filters, shares, u, parts,
    images, high, wide, channels, outer, programs, tap_step, in_step, out_step,
    RECTIFY: tl.constexpr, KERNEL: tl.constexpr, PACKED: tl.constexpr,
    P: tl.constexpr, K: tl.constexpr, O: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """u = F(x, K) and its moments by program."""
    program, task = tl.program_id(1), tl.program_id(2).to(tl.int64)
    o = tl.program_id(0) * O + tl.arange(0, O)
    in_o = o < outer
    pixels = images * high * wide
    x += task * pixels * channels
    u += task * pixels * outer
    filters += task * (KERNEL * KERNEL * channels * outer)
    shares += task * images
    weight = tl.zeros([O], ACC)
    mean = tl.zeros([O], ACC)
    spread = tl.zeros([O], ACC)
    for start in range(program * P, pixels, programs * P):
        p = start + tl.arange(0, P)
        ok = p < pixels
        n, row, col = place_of(p, high, wide)
        total = _convolve(
            x, filters, None, None, tl.zeros([P, O], ACC), p, row, col, ok, o, in_o, high, wide, channels,
            tap_step, in_step, out_step, RECTIFY, False, KERNEL, PACKED, K, ACC, DOT, PRECISION,
        )  # fmt: skip
        write(u, p, ok, outer, o, in_o, total)
        share = tl.load(shares + n, mask=ok, other=0.0).to(ACC)
        weight, mean, spread = merge_moments(weight, mean, spread, total, share)
    parts += (task * programs + program) * (3 * outer)
    store_moments(parts, outer, o, in_o, weight, mean, spread)


@triton.jit
def _finish(
    parts, scale, bias, normed, y, which, r, images, high, wide, outer, programs,
    EPS: tl.constexpr, P: tl.constexpr, O: tl.constexpr, PROGRAMS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """n = (u - m) r in the memory of u, r, and y = Q (s n + b) with the places of the maxima."""
    program, task = tl.program_id(1), tl.program_id(2).to(tl.int64)
    o = tl.program_id(0) * O + tl.arange(0, O)
    in_o = o < outer
    mean, variance = moments_of_parts(parts + task * programs * (3 * outer), programs, PROGRAMS, outer, o, in_o)
    inverse = 1.0 / tl.sqrt(variance + EPS)
    if program == 0:
        tl.store(r + task * outer + o, inverse, mask=in_o)
    s, b = _row(scale + task * outer, o, in_o, ACC), _row(bias + task * outer, o, in_o, ACC)
    normed += task * (images * high * wide) * outer
    y += task * (images * (high // 2) * (wide // 2)) * outer
    which += task * (images * (high // 2) * (wide // 2)) * outer
    count = images * ((high + 1) // 2) * ((wide + 1) // 2)
    for start in range(program * P, count, tl.num_programs(1) * P):
        n, i, j, ok, whole = _windows(start + tl.arange(0, P), images, high, wide)
        best = tl.zeros([P, O], ACC)
        code = tl.zeros([P, O], tl.int32)
        for corner in tl.static_range(4):
            at, inside = _corner(n, i, j, ok, corner, high, wide)
            normal = (read(normed, at, inside, outer, o, in_o, ACC) - mean[None, :]) * inverse[None, :]
            write(normed, at, inside, outer, o, in_o, normal)
            z = s[None, :] * normal + b[None, :]
            if corner == 0:
                best = z
            else:
                more = z > best
                code = tl.where(more, corner, code)
                best = tl.where(more, z, best)
        at = (n * (high // 2) + i) * (wide // 2) + j
        write(y, at, whole, outer, o, in_o, best)
        write(which, at, whole, outer, o, in_o, code.to(tl.int8))


@triton.jit
def _sums(
    g, normed, which, pull, parts, images, high, wide, outer, programs,
    P: tl.constexpr, O: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A program's part of sum g and <g, Q n>, and of S(c) and S(c n) where there is a pull c."""
    program, task = tl.program_id(1), tl.program_id(2).to(tl.int64)
    o = tl.program_id(0) * O + tl.arange(0, O)
    in_o = o < outer
    g += task * (images * (high // 2) * (wide // 2)) * outer
    which += task * (images * (high // 2) * (wide // 2)) * outer
    normed += task * (images * high * wide) * outer
    if pull is not None:
        pull += task * (images * high * wide) * outer
    total = tl.zeros([P, O], ACC)
    total_n = tl.zeros([P, O], ACC)
    pulled = tl.zeros([P, O], ACC)
    pulled_n = tl.zeros([P, O], ACC)
    count = images * ((high + 1) // 2) * ((wide + 1) // 2)
    for start in range(program * P, count, programs * P):
        n, i, j, ok, whole = _windows(start + tl.arange(0, P), images, high, wide)
        upstream, code = _upstream(g, which, n, i, j, whole, high, wide, outer, o, in_o, ACC)
        total += upstream
        if pull is not None:
            for corner in tl.static_range(4):
                at, inside = _corner(n, i, j, ok, corner, high, wide)
                normal = read(normed, at, inside, outer, o, in_o, ACC)
                c = read(pull, at, inside, outer, o, in_o, ACC)
                total_n += tl.where(code == corner, upstream * normal, 0.0)
                pulled += c
                pulled_n += c * normal
        else:
            at = (n * high + 2 * i)[:, None] * wide + (2 * j)[:, None] + (code // 2) * wide + code % 2
            mask = whole[:, None] & in_o[None, :]
            total_n += upstream * tl.load(normed + at * outer + o[None, :], mask=mask, other=0.0).to(ACC)
    rows: tl.constexpr = 2 if pull is None else 4
    parts += (task * programs + program) * (rows * outer)
    store_row(parts, 0, outer, o, in_o, tl.sum(total, 0))
    store_row(parts, 1, outer, o, in_o, tl.sum(total_n, 0))
    if pull is not None:
        store_row(parts, 2, outer, o, in_o, tl.sum(pulled, 0))
        store_row(parts, 3, outer, o, in_o, tl.sum(pulled_n, 0))


@triton.jit
def _pullback(
    g, normed, which, r, scale, shares, pull, pull_r, parts, gu, d_scale, d_bias,
    images, high, wide, outer, programs,
    P: tl.constexpr, O: tl.constexpr, PROGRAMS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """gu = r (gz - w (S(gz) + n S(gz n))) - h r^2 w n with gz = s Q'g + c, ds = <g, Q n>, db = sum g."""
    program, task = tl.program_id(1), tl.program_id(2).to(tl.int64)
    o = tl.program_id(0) * O + tl.arange(0, O)
    in_o = o < outer
    rows: tl.constexpr = 2 if pull is None else 4
    parts += task * programs * (rows * outer)
    flat = sum_of_parts(parts, 0, rows, programs, PROGRAMS, outer, o, in_o)
    along = sum_of_parts(parts, 1, rows, programs, PROGRAMS, outer, o, in_o)
    if program == 0:
        tl.store(d_bias + task * outer + o, flat, mask=in_o)
        tl.store(d_scale + task * outer + o, along, mask=in_o)
    s, inverse = _row(scale + task * outer, o, in_o, ACC), _row(r + task * outer, o, in_o, ACC)
    flat *= s
    along *= s
    if pull is not None:
        flat += sum_of_parts(parts, 2, rows, programs, PROGRAMS, outer, o, in_o)
        along += sum_of_parts(parts, 3, rows, programs, PROGRAMS, outer, o, in_o)
        # -h r^2 w n is what r S(gz n) would be if it were larger by h r
        along += _row(pull_r + task * outer, o, in_o, ACC) * inverse
        pull += task * (images * high * wide) * outer
    g += task * (images * (high // 2) * (wide // 2)) * outer
    which += task * (images * (high // 2) * (wide // 2)) * outer
    normed += task * (images * high * wide) * outer
    gu += task * (images * high * wide) * outer
    shares += task * images
    count = images * ((high + 1) // 2) * ((wide + 1) // 2)
    for start in range(program * P, count, tl.num_programs(1) * P):
        n, i, j, ok, whole = _windows(start + tl.arange(0, P), images, high, wide)
        upstream, code = _upstream(g, which, n, i, j, whole, high, wide, outer, o, in_o, ACC)
        upstream *= s[None, :]
        share = tl.load(shares + n, mask=ok, other=0.0).to(ACC)[:, None]
        for corner in tl.static_range(4):
            at, inside = _corner(n, i, j, ok, corner, high, wide)
            gz = tl.where(code == corner, upstream, 0.0)
            if pull is not None:
                gz += read(pull, at, inside, outer, o, in_o, ACC)
            normal = read(normed, at, inside, outer, o, in_o, ACC)
            value = inverse[None, :] * (gz - share * (flat[None, :] + normal * along[None, :]))
            write(gu, at, inside, outer, o, in_o, value)


@triton.jit
def _weight_gradient(
    x, v, gu, parts, images, high, wide, channels, outer, blocks, programs,
    RECTIFY: tl.constexpr, KERNEL: tl.constexpr, PACKED: tl.constexpr,
    P: tl.constexpr, K: tl.constexpr, O: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A program's part of W(x, gu), or of W(v, gu) where there is a v, as [k, k, C, O]: K columns, O channels."""
    # Blocks of columns are the fastest axis: those that read the same pixels run side by side.
    block, program, task = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    step = block % blocks
    o = (block // blocks) * O + tl.arange(0, O)
    in_o = o < outer
    pixels = images * high * wide
    x += task * pixels * channels
    if v is not None:
        v += task * pixels * channels
    gu += task * pixels * outer
    tap, c, inside = _columns(step, channels, KERNEL, PACKED, K)
    total = tl.zeros([K, O], ACC)
    for start in range(program * P, pixels, programs * P):
        p = start + tl.arange(0, P)
        ok = p < pixels
        _n, row, col = place_of(p, high, wide)
        at, seen = _patch(p, row, col, ok, tap, c, inside, high, wide, channels, KERNEL, PACKED, False)
        if v is None:
            values = tl.load(x + at, mask=seen, other=0.0).to(DOT)
            if RECTIFY:
                values = tl.where(values < 0.0, 0.0, values).to(DOT)
        else:
            values = tl.load(v + at, mask=seen, other=0.0).to(DOT)
            if RECTIFY:
                gate = tl.load(x + at, mask=seen, other=0.0).to(DOT) > 0.0
                values = tl.where(gate, values, 0.0).to(DOT)
        upstream = read(gu, p, ok, outer, o, in_o, DOT)
        total = tl.dot(tl.trans(values), upstream, acc=total, out_dtype=ACC, input_precision=PRECISION)
    parts += (task * programs + program) * (KERNEL * KERNEL * channels * outer)
    at = (tap * channels + c)[:, None] * outer + o[None, :]
    tl.store(parts + at, total, mask=inside[:, None] & in_o[None, :])


@triton.jit
def _join(parts, result, size, programs, PROGRAMS: tl.constexpr, SPAN: tl.constexpr):
    """The programs' parts [programs, size] of a weight's gradient, summed."""
    task = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * SPAN + tl.arange(0, SPAN)
    values = sum_of_parts(parts + task * programs * size, 0, 1, programs, PROGRAMS, size, at, at < size)
    tl.store(result + task * size + at, values, mask=at < size)


@triton.jit
def _input_gradient(
    gu, x, filters, dx, images, high, wide, channels, outer, tap_step, in_step, out_step,
    RECTIFY: tl.constexpr, KERNEL: tl.constexpr, PACKED: tl.constexpr,
    P: tl.constexpr, K: tl.constexpr, O: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dx = B(gu, K), where x > 0 if x was rectified. What goes in is here the O channels of gu, what comes out C."""
    task = tl.program_id(2).to(tl.int64)
    c = tl.program_id(0) * O + tl.arange(0, O)
    in_c = c < channels
    pixels = images * high * wide
    p = tl.program_id(1) * P + tl.arange(0, P)
    ok = p < pixels
    _n, row, col = place_of(p, high, wide)
    total = _convolve(
        gu + task * pixels * outer, filters + task * (KERNEL * KERNEL * channels * outer), None, None,
        tl.zeros([P, O], ACC), p, row, col, ok, c, in_c, high, wide, outer, tap_step, out_step, in_step,
        False, True, KERNEL, PACKED, K, ACC, DOT, PRECISION,
    )  # fmt: skip
    if RECTIFY:
        total = tl.where(read(x + task * pixels * channels, p, ok, channels, c, in_c, ACC) > 0.0, total, 0.0)
    write(dx + task * pixels * channels, p, ok, channels, c, in_c, total)


@triton.jit
def _second(
    vx, v_filters, x, filters, normed, g, which, shares, q, parts,
    images, high, wide, channels, outer, programs, tap_step, in_step, out_step,
    RECTIFY: tl.constexpr, KERNEL: tl.constexpr, PACKED: tl.constexpr,
    P: tl.constexpr, K: tl.constexpr, O: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """q = F(vx, K) + F(x, vK), and a program's part of sum g, <g, Q n>, A(q), A(q n) and <q, Q'g>."""
    program, task = tl.program_id(1), tl.program_id(2).to(tl.int64)
    o = tl.program_id(0) * O + tl.arange(0, O)
    in_o = o < outer
    pixels = images * high * wide
    x += task * pixels * channels
    if vx is not None:
        vx += task * pixels * channels
    filters += task * (KERNEL * KERNEL * channels * outer)
    if v_filters is not None:
        v_filters += task * (KERNEL * KERNEL * channels * outer)
    normed += task * pixels * outer
    q += task * pixels * outer
    g += task * (images * (high // 2) * (wide // 2)) * outer
    which += task * (images * (high // 2) * (wide // 2)) * outer
    shares += task * images
    sum_g = tl.zeros([O], ACC)
    sum_gn = tl.zeros([O], ACC)
    sum_q = tl.zeros([O], ACC)
    sum_qn = tl.zeros([O], ACC)
    sum_qg = tl.zeros([O], ACC)
    for start in range(program * P, pixels, programs * P):
        p = start + tl.arange(0, P)
        ok = p < pixels
        n, row, col = place_of(p, high, wide)
        total = tl.zeros([P, O], ACC)
        if vx is not None or v_filters is not None:
            total = _convolve(
                x, v_filters, vx, filters, total, p, row, col, ok, o, in_o, high, wide, channels,
                tap_step, in_step, out_step, RECTIFY, False, KERNEL, PACKED, K, ACC, DOT, PRECISION,
            )  # fmt: skip
        write(q, p, ok, outer, o, in_o, total)
        i, j = row // 2, col // 2
        whole = ok & (i < high // 2) & (j < wide // 2)
        upstream, code = _upstream(g, which, n, i, j, whole, high, wide, outer, o, in_o, ACC)
        corner = (row - 2 * i) * 2 + (col - 2 * j)
        upstream = tl.where(code == corner[:, None], upstream, 0.0)
        normal = read(normed, p, ok, outer, o, in_o, ACC)
        share = tl.load(shares + n, mask=ok, other=0.0).to(ACC)
        sum_g += tl.sum(upstream, 0)
        sum_gn += tl.sum(upstream * normal, 0)
        sum_qg += tl.sum(upstream * total, 0)
        total *= share[:, None]
        sum_q += tl.sum(total, 0)
        sum_qn += tl.sum(total * normal, 0)
    parts += (task * programs + program) * (5 * outer)
    store_row(parts, 0, outer, o, in_o, sum_g)
    store_row(parts, 1, outer, o, in_o, sum_gn)
    store_row(parts, 2, outer, o, in_o, sum_q)
    store_row(parts, 3, outer, o, in_o, sum_qn)
    store_row(parts, 4, outer, o, in_o, sum_qg)


@triton.jit
def _second_finish(
    v_scale, v_bias, g, normed, which, r, scale, shares, parts, d_n, d_g, d_scale, d_r,
    images, high, wide, outer, programs,
    P: tl.constexpr, O: tl.constexpr, PROGRAMS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dL/dn in the memory of q, dL/dg, dL/ds = <g, Q a> and dL/dr; with D = <q, Q'g> - A(q) sum g - A(q n) <g, Q n>
    these two are r D and s D."""
    program, task = tl.program_id(1), tl.program_id(2).to(tl.int64)
    o = tl.program_id(0) * O + tl.arange(0, O)
    in_o = o < outer
    parts += task * programs * (5 * outer)
    sum_g = sum_of_parts(parts, 0, 5, programs, PROGRAMS, outer, o, in_o)
    sum_gn = sum_of_parts(parts, 1, 5, programs, PROGRAMS, outer, o, in_o)
    sum_q = sum_of_parts(parts, 2, 5, programs, PROGRAMS, outer, o, in_o)
    sum_qn = sum_of_parts(parts, 3, 5, programs, PROGRAMS, outer, o, in_o)
    s, inverse = _row(scale + task * outer, o, in_o, ACC), _row(r + task * outer, o, in_o, ACC)
    if program == 0:
        differ = sum_of_parts(parts, 4, 5, programs, PROGRAMS, outer, o, in_o) - sum_q * sum_g - sum_qn * sum_gn
        tl.store(d_scale + task * outer + o, inverse * differ, mask=in_o)
        tl.store(d_r + task * outer + o, s * differ, mask=in_o)
    # dL/dg = Q (gained q + slope n + level), dL/dn = w along q + push Q'g
    gained = s * inverse
    slope = -gained * sum_qn
    level = -gained * sum_q
    along = -gained * sum_gn
    if v_scale is not None:
        slope += _row(v_scale + task * outer, o, in_o, ACC)
    if v_bias is not None:
        level += _row(v_bias + task * outer, o, in_o, ACC)
    g += task * (images * (high // 2) * (wide // 2)) * outer
    d_g += task * (images * (high // 2) * (wide // 2)) * outer
    which += task * (images * (high // 2) * (wide // 2)) * outer
    normed += task * (images * high * wide) * outer
    d_n += task * (images * high * wide) * outer
    shares += task * images
    count = images * ((high + 1) // 2) * ((wide + 1) // 2)
    for start in range(program * P, count, tl.num_programs(1) * P):
        n, i, j, ok, whole = _windows(start + tl.arange(0, P), images, high, wide)
        upstream, code = _upstream(g, which, n, i, j, whole, high, wide, outer, o, in_o, ACC)
        share = tl.load(shares + n, mask=ok, other=0.0).to(ACC)[:, None]
        at = (n * high + 2 * i)[:, None] * wide + (2 * j)[:, None] + (code // 2) * wide + code % 2
        mask = whole[:, None] & in_o[None, :]
        normal = tl.load(normed + at * outer + o[None, :], mask=mask, other=0.0).to(ACC)
        reached = slope[None, :] * normal + level[None, :]
        for corner in tl.static_range(4):
            at, inside = _corner(n, i, j, ok, corner, high, wide)
            q = read(d_n, at, inside, outer, o, in_o, ACC)
            here = code == corner
            reached += tl.where(here, gained[None, :] * q, 0.0)
            value = share * along[None, :] * q + tl.where(here, slope[None, :] * upstream, 0.0)
            write(d_n, at, inside, outer, o, in_o, value)
        at = (n * (high // 2) + i) * (wide // 2) + j
        write(d_g, at, whole, outer, o, in_o, reached)


_FORWARD, _FINISH = Kernel(_forward, "conv_block.forward"), Kernel(_finish, "conv_block.finish")
_SUMS, _PULLBACK = Kernel(_sums, "conv_block.sums"), Kernel(_pullback, "conv_block.pullback")
_WEIGHT, _JOIN = Kernel(_weight_gradient, "conv_block.weight_gradient"), Kernel(_join, "conv_block.join")
_INPUT, _SECOND = Kernel(_input_gradient, "conv_block.input_gradient"), Kernel(_second, "conv_block.second")
_SECOND_FINISH = Kernel(_second_finish, "conv_block.second_finish")


class _Plan(NamedTuple):
    """Sizes, and how the work is cut.

    Args:
        pixels: how the kernels with products cut a task's pixels.
        windows: how the others cut its pooling windows, and how many programs a task has there.
        block: output channels that one program of either takes.
    """

    tasks: int
    images: int
    high: int
    wide: int
    channels: int
    outer: int
    kernel: int
    rectify: bool
    pixels: Tiling
    windows: Tiling
    block: int
    dtype: torch.dtype

    @property
    def blocks(self) -> int:
        return -(-self.outer // self.block)

    @property
    def image(self) -> tuple[int, int, int]:
        return self.images, self.high, self.wide

    @property
    def acc(self) -> dict[str, Any]:
        return {"ACC": types(self.dtype)["ACC"]}

    def product(self, columns: int, most: int) -> dict[str, Any]:
        """Constants of a product over patches of ``columns`` channels, at most ``most`` columns a step."""
        whole = next((size for size in (64, 32, 16) if size <= most and columns % size == 0), 0)
        step = whole or min(most, power_of_two(columns * self.kernel**2, 16))
        return {
            "RECTIFY": self.rectify, "KERNEL": self.kernel, "PACKED": not whole, "K": step, **types(self.dtype)
        }  # fmt: skip


def _plan(x: Tensor, weight: Tensor, options: Any) -> _Plan:
    tasks, images, high, wide_, channels = x.shape
    outer, kernel = weight.shape[1], weight.shape[-1]
    block = min(power_of_two(outer, 16), _most(x.dtype))
    groups = tasks * -(-outer // block)
    pixels = tiling(groups, images * high * wide_, block, x.device)
    windows = tiling(groups, images * -(-high // 2) * -(-wide_ // 2), block, x.device)
    if not interpreting():  # such that nothing spills: a thread holds four corners, or a product and what goes into it
        double = x.dtype == torch.float64
        windows = windows._replace(pixels=16 if double or block == 64 else 32)
        pixels = pixels._replace(pixels=32 if double else 64, warps=8 if block == 64 else 4)
    return _Plan(
        tasks, images, high, wide_, channels, outer, kernel, bool(options.rectify), pixels, windows, block, x.dtype
    )


def _most(dtype: torch.dtype) -> int:
    """Channels of a tile at most."""
    return 16 if interpreting() else 32 if dtype == torch.float64 else 64


def _columns_at_most(dtype: torch.dtype) -> int:
    """Columns of a patch that one step of a product takes at most: a thread holds rows of them in float32."""
    return 16 if interpreting() or dtype == torch.float64 else 32 if dtype == torch.float32 else 64


class _Filters(NamedTuple):
    """A weight [T, O, C, k, k] as it lies, or packed to [T, k, k, C, O]; steps by tap, by C, by O."""

    memory: Tensor
    steps: tuple[int, int, int]

    @classmethod
    def of(cls, weight: Tensor) -> _Filters:
        outer, channels, taps = weight.shape[1], weight.shape[2], weight.shape[3] ** 2
        if outer * channels * taps <= SMALL:
            return cls(weight.contiguous(), (1, taps, taps * channels))
        return cls(weight.permute(0, 3, 4, 2, 1).contiguous(), (channels * outer, outer, 1))


def forward(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, shares: Tensor, options: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(y, normed, r, which) as in `op._Block`; ``which`` is int8."""
    plan = _plan(x, weight, options)
    x, scale, bias, filters = x.contiguous(), scale.contiguous(), bias.contiguous(), _Filters.of(weight)
    y = x.new_empty(plan.tasks, plan.images, plan.high // 2, plan.wide // 2, plan.outer)
    normed, which = x.new_empty(*x.shape[:4], plan.outer), torch.empty_like(y, dtype=torch.int8)
    r, cut = wide_memory(x, plan.tasks, plan.outer), plan.pixels
    parts = wide_memory(x, plan.tasks, cut.programs, 3, plan.outer)
    _FORWARD(
        (plan.blocks, cut.programs, plan.tasks), x, filters.memory, shares, normed, parts, *plan.image, plan.channels,
        plan.outer, cut.programs, *filters.steps, P=cut.pixels, O=plan.block,
        **plan.product(plan.channels, _columns_at_most(x.dtype)), num_warps=cut.warps,
    )  # fmt: skip
    _FINISH(
        (plan.blocks, plan.windows.programs, plan.tasks), parts, scale, bias, normed, y, which, r, *plan.image,
        plan.outer, cut.programs, EPS=options.eps, P=plan.windows.pixels, O=plan.block, PROGRAMS=cut.padded,
        **plan.acc, num_warps=plan.windows.warps,
    )  # fmt: skip
    return y, normed, r, which


def gradient(
    g: Tensor, x: Tensor, weight: Tensor, scale: Tensor, normed: Tensor, r: Tensor, which: Tensor, shares: Tensor,
    options: Any, wants_x: bool, pulls: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x (None unless wanted), weight, scale and bias, and gu for the second derivative.

    Args:
        pulls: upstream of normed and of r besides g's of y; only after a second derivative.
    """
    plan = _plan(x, weight, options)
    g, x, scale = g.contiguous(), x.contiguous(), scale.contiguous()
    pull, pull_r = (None, None) if pulls is None else (p.contiguous() for p in pulls)
    gu, d_scale, d_bias, cut = torch.empty_like(normed), torch.empty_like(scale), torch.empty_like(scale), plan.windows
    parts = wide_memory(x, plan.tasks, cut.programs, 2 if pull is None else 4, plan.outer)
    grid, sizes = (plan.blocks, cut.programs, plan.tasks), (*plan.image, plan.outer, cut.programs)
    window = {"P": cut.pixels, "O": plan.block, **plan.acc, "num_warps": cut.warps}
    _SUMS(grid, g, normed, which, pull, parts, *sizes, **window)
    _PULLBACK(
        grid, g, normed, which, r, scale, shares, pull, pull_r, parts, gu, d_scale, d_bias, *sizes,
        PROGRAMS=cut.padded, **window,
    )  # fmt: skip
    d_x = _input_gradient_of(gu, x, weight, plan) if wants_x else None
    return d_x, _weight_gradient_of(x, None, gu, weight, plan), d_scale, d_bias, gu


def second(
    vx: Tensor | None, v_weight: Tensor | None, v_scale: Tensor | None, v_bias: Tensor | None, g: Tensor, x: Tensor,
    weight: Tensor, scale: Tensor, normed: Tensor, r: Tensor, which: Tensor, shares: Tensor, gu: Tensor, options: Any,
    wants_x: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of g, x, weight, scale, normed and r for upstream v of what `gradient` returned; None is zero."""
    plan = _plan(x, weight, options)
    g, x, scale, filters = g.contiguous(), x.contiguous(), scale.contiguous(), _Filters.of(weight)
    vx, v_scale, v_bias = (None if v is None else v.contiguous() for v in (vx, v_scale, v_bias))
    v_filters = None if v_weight is None else _Filters.of(v_weight).memory
    d_g, d_normed, d_r, d_scale = (torch.empty_like(tensor) for tensor in (g, normed, r, scale))
    cut, windows = plan.pixels, plan.windows
    parts = wide_memory(x, plan.tasks, cut.programs, 5, plan.outer)
    _SECOND(
        (plan.blocks, cut.programs, plan.tasks), vx, v_filters, x, filters.memory, normed, g, which, shares, d_normed,
        parts, *plan.image, plan.channels, plan.outer, cut.programs, *filters.steps,
        P=max(16, cut.pixels // 2), O=plan.block,  # two products at once
        **plan.product(plan.channels, _columns_at_most(x.dtype)), num_warps=cut.warps,
    )  # fmt: skip
    _SECOND_FINISH(
        (plan.blocks, windows.programs, plan.tasks), v_scale, v_bias, g, normed, which, r, scale, shares, parts,
        d_normed, d_g, d_scale, d_r, *plan.image, plan.outer, cut.programs, P=windows.pixels, O=plan.block,
        PROGRAMS=cut.padded, **plan.acc, num_warps=windows.warps,
    )  # fmt: skip
    d_x = _input_gradient_of(gu, x, v_weight, plan) if wants_x and v_weight is not None else None
    d_weight = None if vx is None else _weight_gradient_of(x, vx, gu, weight, plan)
    return d_g, d_x, d_weight, d_scale, d_normed, d_r


def _weight_gradient_of(x: Tensor, v: Tensor | None, gu: Tensor, weight: Tensor, plan: _Plan) -> Tensor:
    """W(x, gu), or W(v, gu) gated by x: [T, O, C, k, k], in the memory of [T, k, k, C, O]."""
    kernel = plan.kernel
    product = plan.product(plan.channels, _most(x.dtype))
    if product["K"] < min(_most(x.dtype), kernel**2 * plan.channels):  # rather across taps than often over the pixels
        product |= {"PACKED": True, "K": min(_most(x.dtype), power_of_two(kernel**2 * plan.channels, 16))}
    size, steps = kernel**2 * plan.channels * plan.outer, -(-(kernel**2) * plan.channels // product["K"])
    blocks = steps * plan.blocks
    cut = tiling(plan.tasks * blocks, plan.images * plan.high * plan.wide, plan.block, x.device)
    tile = 16 if interpreting() else 64 if x.dtype == torch.bfloat16 else 32
    result = weight.new_empty(plan.tasks, kernel, kernel, plan.channels, plan.outer)
    parts = result if cut.programs == 1 else wide_memory(weight, plan.tasks, cut.programs, size)
    _WEIGHT(
        (blocks, cut.programs, plan.tasks), x, v, gu, parts, *plan.image, plan.channels, plan.outer, steps,
        cut.programs, P=tile, O=plan.block, **product, num_warps=cut.warps,
    )  # fmt: skip
    if cut.programs > 1:
        _JOIN(
            (-(-size // SPAN), plan.tasks), parts, result, size, cut.programs, PROGRAMS=cut.padded, SPAN=SPAN,
            num_warps=cut.warps,
        )  # fmt: skip
    return result.permute(0, 4, 3, 1, 2)


def _input_gradient_of(gu: Tensor, x: Tensor, weight: Tensor, plan: _Plan) -> Tensor:
    """B(gu, weight), gated by x where it was rectified."""
    d_x, filters, tile = torch.empty_like(x), _Filters.of(weight), plan.pixels.pixels
    block = min(power_of_two(plan.channels, 16), _most(x.dtype))
    grid = (-(-plan.channels // block), -(-plan.images * plan.high * plan.wide // tile), plan.tasks)
    _INPUT(
        grid, gu, x, filters.memory, d_x, *plan.image, plan.channels, plan.outer, *filters.steps, P=tile, O=block,
        **plan.product(plan.outer, _columns_at_most(x.dtype)), num_warps=plan.pixels.warps,
    )  # fmt: skip
    return d_x
