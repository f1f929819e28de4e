"""Triton kernels of the separable convolution; names as in README.md.

A group is one task's edge; its pixels, those of all images, are cut into tiles that its programs take in turn. A
product takes one side's channels whole and the other side's in blocks: whole is what is summed over.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from metadarts.ops.gpu.launch import Kernel, interpreting
from metadarts.ops.gpu.normal import pullback_sums
from metadarts.ops.gpu.pixels import place_of, read, write
from metadarts.ops.gpu.sums import merge_moments, moments_of_parts, store_moments, store_row, sum_of_parts
from metadarts.ops.gpu.tiles import power_of_two, tiling, types, wide, wide_memory

SPAN = 128
"""Numbers of a weight's gradient that one program joins."""


@triton.jit
def _clear(image, first, step, pixels, channels, c, in_c, P: tl.constexpr, C: tl.constexpr):
    """A program's tiles of ``image`` set to zero."""
    for start in range(first, pixels, step):
        at = start + tl.arange(0, P)
        write(image, at, at < pixels, channels, c, in_c, tl.zeros([P, C], tl.float32))


@triton.jit
def _relu(x):
    """max(x, 0); NaN stays NaN."""
    return tl.where(x < 0.0, 0.0, x)


@triton.jit
def _under_tap(n, row, col, ok, i, j, high, wide, KERNEL: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr):
    """The pixel of x that tap (i, j) reads for each pixel of d, and whether it is inside."""
    row = row * STRIDE + (i - KERNEL // 2) * DILATION
    col = col * STRIDE + (j - KERNEL // 2) * DILATION
    return (n * high + row) * wide + col, ok & (row >= 0) & (row < high) & (col >= 0) & (col < wide)


@triton.jit
def _over_tap(n, row, col, ok, i, j, h, w, KERNEL: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr):
    """The pixel of d for which tap (i, j) reads each pixel of x, and whether there is one."""
    row += (KERNEL // 2 - i) * DILATION
    col += (KERNEL // 2 - j) * DILATION
    ok = ok & (row >= 0) & (col >= 0)
    if STRIDE > 1:
        ok = ok & (row % STRIDE == 0) & (col % STRIDE == 0)
        row = row // STRIDE
        col = col // STRIDE
    return (n * h + row) * w + col, ok & (row < h) & (col < w)


@triton.jit
def _matrix(base, channels, outer, c, in_c, o, in_o, DOT: tl.constexpr):
    """M [C, O] of one group."""
    mask = in_c[:, None] & in_o[None, :]
    return tl.load(base + c[:, None] * outer + o[None, :], mask=mask, other=0.0).to(DOT)


@triton.jit
def _pullback(g, y, r, share, total, total_y):
    """gu [P, O] = r (g - w (S(g) + y S(g y)))."""
    return r[None, :] * (g - share[:, None] * (total[None, :] + y * total_y[None, :]))


@triton.jit
def _join(parts, result, group, chunk, size, programs, PROGRAMS: tl.constexpr, SPAN: tl.constexpr):
    """Numbers ``chunk * SPAN ...`` of a group's weight gradient, from its programs' parts [programs, size]."""
    at = chunk * SPAN + tl.arange(0, SPAN)
    values = sum_of_parts(parts + group * programs * size, 0, 1, programs, PROGRAMS, size, at, at < size)
    tl.store(result + group * size + at, values, mask=at < size)


@triton.jit
def _join_weights(
    parts_m, parts_k, d_mixing, d_taps, group, chunk, channels, outer, programs,
    KERNEL: tl.constexpr, PROGRAMS: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """Chunk ``chunk`` of dM, or, after its last, of dk."""
    chunks = tl.cdiv(channels * outer, SPAN)
    if chunk < chunks:
        _join(parts_m, d_mixing, group, chunk, channels * outer, programs, PROGRAMS, SPAN)
    if KERNEL:
        if chunk >= chunks:
            _join(parts_k, d_taps, group, chunk - chunks, channels * KERNEL * KERNEL, programs, PROGRAMS, SPAN)


@triton.jit
def _forward(
    x, taps, mixing, shares, needed, d, y, parts,
    images, high, wide, h, w, channels, outer, edges, programs,
    OWN: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr, AGAIN: tl.constexpr,
    P: tl.constexpr, C: tl.constexpr, O: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """d = F(relu x, k) and the moments of u = d M; u itself, into the memory of y, unless it is computed AGAIN."""
    group, program = tl.program_id(0).to(tl.int64), tl.program_id(1)
    pixels = images * h * w
    c = tl.arange(0, C)
    o = tl.program_id(2) * O + tl.arange(0, O)
    in_c, in_o = c < channels, o < outer
    d += group * (pixels * channels)
    y += group * (pixels * outer)
    first, step = program * P, programs * P
    if needed is not None:
        if tl.load(needed + group) == 0:
            if tl.program_id(2) == 0:
                _clear(d, first, step, pixels, channels, c, in_c, P, C)
            return
    x += (group if OWN else group // edges) * (images * high * wide * channels)
    shares += group // edges * images
    matrix = _matrix(mixing + group * (channels * outer), channels, outer, c, in_c, o, in_o, DOT)
    weight = tl.zeros([O], ACC)
    mean = tl.zeros([O], ACC)
    spread = tl.zeros([O], ACC)
    for start in range(first, pixels, step):
        p = start + tl.arange(0, P)
        ok = p < pixels
        n, row, col = place_of(p, h, w)
        if KERNEL:
            sums = tl.zeros([P, C], ACC)
            for i in range(KERNEL):
                for j in tl.static_range(KERNEL):
                    at, inside = _under_tap(n, row, col, ok, i, j, high, wide, KERNEL, STRIDE, DILATION)
                    z = _relu(read(x, at, inside, channels, c, in_c, ACC))
                    k_at = taps + (group * channels + c) * (KERNEL * KERNEL) + i * KERNEL + j
                    sums += z * tl.load(k_at, mask=in_c, other=0.0).to(ACC)[None, :]
        else:
            sums = _relu(read(x, p, ok, channels, c, in_c, ACC))
        if tl.program_id(2) == 0:
            write(d, p, ok, channels, c, in_c, sums)
        u = tl.dot(sums.to(DOT), matrix, out_dtype=ACC, input_precision=PRECISION)
        if not AGAIN:
            write(y, p, ok, outer, o, in_o, u)
        share = tl.load(shares + n, mask=ok, other=0.0).to(ACC)
        weight, mean, spread = merge_moments(weight, mean, spread, u, share)
    parts += (group * programs + program) * (3 * outer)
    store_moments(parts, outer, o, in_o, weight, mean, spread)


@triton.jit
def _normalise(
    parts, mixing, needed, d, y, r, pixels, channels, outer, programs,
    EPS: tl.constexpr, AGAIN: tl.constexpr, P: tl.constexpr, C: tl.constexpr, O: tl.constexpr, PROGRAMS: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y = (u - m) r and r, the inverse deviation; u is in the memory of y, or d M AGAIN."""
    group, program = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = tl.arange(0, C)
    o = tl.program_id(2) * O + tl.arange(0, O)
    in_c, in_o = c < channels, o < outer
    y += group * (pixels * outer)
    first, step = program * P, programs * P
    if needed is not None:
        if tl.load(needed + group) == 0:
            _clear(y, first, step, pixels, outer, o, in_o, P, O)
            if program == 0:
                tl.store(r + group * outer + o, tl.zeros([O], ACC), mask=in_o)
            return
    mean, variance = moments_of_parts(parts + group * programs * (3 * outer), programs, PROGRAMS, outer, o, in_o)
    inverse = 1.0 / tl.sqrt(variance + EPS)
    if program == 0:
        tl.store(r + group * outer + o, inverse, mask=in_o)
    if AGAIN:
        d += group * (pixels * channels)
        matrix = _matrix(mixing + group * (channels * outer), channels, outer, c, in_c, o, in_o, DOT)
    for start in range(first, pixels, step):
        p = start + tl.arange(0, P)
        ok = p < pixels
        if AGAIN:
            tile = read(d, p, ok, channels, c, in_c, ACC).to(DOT)
            u = tl.dot(tile, matrix, out_dtype=ACC, input_precision=PRECISION)
        else:
            u = read(y, p, ok, outer, o, in_o, ACC)
        write(y, p, ok, outer, o, in_o, (u - mean[None, :]) * inverse[None, :])


@triton.jit
def _backward(
    g, x, mixing, y, r, d, shares, needed, pull_r, pull_d, sums, gd, parts_m, parts_k,
    images, high, wide, h, w, channels, outer, edges, programs,
    OWN: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr, TAPS: tl.constexpr,
    P: tl.constexpr, C: tl.constexpr, O: tl.constexpr, PROGRAMS: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """gd = gu M' + c, and a program's part of dM = d' gu and dk = W(z, gd), for a block of channels c."""
    group, program = tl.program_id(0).to(tl.int64), tl.program_id(1)
    pixels = images * h * w
    c = tl.program_id(2) * C + tl.arange(0, C)
    o = tl.arange(0, O)
    in_c, in_o = c < channels, o < outer
    tap = tl.arange(0, TAPS)
    gd += group * (pixels * channels)
    parts_m += (group * programs + program) * (channels * outer)
    m_at, m_mask = c[:, None] * outer + o[None, :], in_c[:, None] & in_o[None, :]
    if KERNEL:
        parts_k += (group * programs + program) * (channels * KERNEL * KERNEL)
        k_at = c[None, :] * (KERNEL * KERNEL) + tap[:, None]
        k_mask = in_c[None, :] & (tap < KERNEL * KERNEL)[:, None]
    d_m = tl.zeros([C, O], ACC)
    d_k = tl.zeros([TAPS, C], ACC)
    first, step = program * P, programs * P
    if needed is not None:
        if tl.load(needed + group) == 0:
            _clear(gd, first, step, pixels, channels, c, in_c, P, C)
            tl.store(parts_m + m_at, d_m, mask=m_mask)
            if KERNEL:
                tl.store(parts_k + k_at, d_k, mask=k_mask)
            return
    x += (group if OWN else group // edges) * (images * high * wide * channels)
    d += group * (pixels * channels)
    g += group * (pixels * outer)
    y += group * (pixels * outer)
    shares += group // edges * images
    sums += group * programs * (2 * outer)
    total = sum_of_parts(sums, 0, 2, programs, PROGRAMS, outer, o, in_o)
    total_y = sum_of_parts(sums, 1, 2, programs, PROGRAMS, outer, o, in_o)
    inverse = tl.load(r + group * outer + o, mask=in_o, other=0.0).to(ACC)
    if pull_r is not None:
        # -h r^2 w y is what r S(g y) would be if it were larger by h r
        total_y += tl.load(pull_r + group * outer + o, mask=in_o, other=0.0).to(ACC) * inverse
    back = tl.trans(_matrix(mixing + group * (channels * outer), channels, outer, c, in_c, o, in_o, DOT))
    for start in range(first, pixels, step):
        p = start + tl.arange(0, P)
        ok = p < pixels
        n, row, col = place_of(p, h, w)
        share = tl.load(shares + n, mask=ok, other=0.0).to(ACC)
        upstream, normal = read(g, p, ok, outer, o, in_o, ACC), read(y, p, ok, outer, o, in_o, ACC)
        gu = _pullback(upstream, normal, inverse, share, total, total_y).to(DOT)
        pulled = tl.dot(gu, back, out_dtype=ACC, input_precision=PRECISION)
        tile = read(d, p, ok, channels, c, in_c, ACC).to(DOT)
        d_m = tl.dot(tl.trans(tile), gu, acc=d_m, out_dtype=ACC, input_precision=PRECISION)
        if pull_d is not None:
            pulled += read(pull_d + group * (pixels * channels), p, ok, channels, c, in_c, ACC)
        write(gd, p, ok, channels, c, in_c, pulled)
        if KERNEL:
            for i in range(KERNEL):
                for j in tl.static_range(KERNEL):
                    at, inside = _under_tap(n, row, col, ok, i, j, high, wide, KERNEL, STRIDE, DILATION)
                    z = _relu(read(x, at, inside, channels, c, in_c, ACC))
                    here = tl.sum(z * pulled, 0)
                    d_k += tl.where((tap == i * KERNEL + j)[:, None], here[None, :], 0.0)
    tl.store(parts_m + m_at, d_m, mask=m_mask)
    if KERNEL:
        tl.store(parts_k + k_at, d_k, mask=k_mask)


@triton.jit
def _input_gradient(
    gd, x, taps, needed, dx, parts_m, parts_k, d_mixing, d_taps,
    images, high, wide, h, w, channels, outer, edges, programs, tiles, chunks,
    OWN: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr,
    P: tl.constexpr, C: tl.constexpr, PROGRAMS: tl.constexpr, SPAN: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dx = [x > 0] sum_e B(gd, k), a program per tile of x; further programs join the parts of dM and dk."""
    image, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if parts_m is not None:
        if tile >= tiles:
            if tl.program_id(2) == 0:
                mine = (tile - tiles) // chunks
                group = image if OWN else image * edges + mine
                _join_weights(
                    parts_m, parts_k, d_mixing, d_taps, group, tile - tiles - mine * chunks, channels, outer, programs,
                    KERNEL, PROGRAMS, SPAN,
                )  # fmt: skip
            return
    c = tl.program_id(2) * C + tl.arange(0, C)
    in_c = c < channels
    p = tile * P + tl.arange(0, P)
    ok = p < images * high * wide
    n, row, col = place_of(p, high, wide)
    size = images * h * w * channels
    total = tl.zeros([P, C], ACC)
    for e in range(1 if OWN else edges):
        group = image if OWN else image * edges + e
        wanted = ok
        if needed is not None:
            wanted = ok & (tl.load(needed + group) != 0)
        if KERNEL:
            for i in range(KERNEL):
                for j in tl.static_range(KERNEL):
                    at, inside = _over_tap(n, row, col, wanted, i, j, h, w, KERNEL, STRIDE, DILATION)
                    k_at = taps + (group * channels + c) * (KERNEL * KERNEL) + i * KERNEL + j
                    weight = tl.load(k_at, mask=in_c, other=0.0).to(ACC)
                    total += read(gd + group * size, at, inside, channels, c, in_c, ACC) * weight[None, :]
        else:
            total += read(gd + group * size, p, wanted, channels, c, in_c, ACC)
    x += image * (images * high * wide * channels)
    dx += image * (images * high * wide * channels)
    gate = read(x, p, ok, channels, c, in_c, ACC) > 0.0
    write(dx, p, ok, channels, c, in_c, tl.where(gate, total, 0.0))


@triton.jit
def _second(
    vx, vk, vm, g, x, taps, mixing, y, r, d, shares, gd, needed, sums, q, dd, parts, parts_m, parts_k,
    images, high, wide, h, w, channels, outer, edges, programs,
    OWN: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr, TAPS: tl.constexpr,
    OUT: tl.constexpr, BACK: tl.constexpr,
    P: tl.constexpr, C: tl.constexpr, O: tl.constexpr, PROGRAMS: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """With p = F(zv, k) + F(z, vk): OUT for a block of channels o, BACK for a block of channels c, or both of all.

    OUT: q = p M + d vM and a program's part of A(q), A(q y), S(q g), A(f) = S(w f).
    BACK: dd = gu vM', and a program's part of dM = p' gu and dk = W(zv, gd).
    """
    group, program, block = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    pixels = images * h * w
    c = (block * C if BACK and not OUT else 0) + tl.arange(0, C)
    o = (block * O if OUT and not BACK else 0) + tl.arange(0, O)
    in_c, in_o = c < channels, o < outer
    tap = tl.arange(0, TAPS)
    dd += group * (pixels * channels)
    q += group * (pixels * outer)
    m_at, m_mask = c[:, None] * outer + o[None, :], in_c[:, None] & in_o[None, :]
    d_m = tl.zeros([C, O], ACC)
    d_k = tl.zeros([TAPS, C], ACC)
    if BACK:
        parts_m += (group * programs + program) * (channels * outer)
        if KERNEL:
            parts_k += (group * programs + program) * (channels * KERNEL * KERNEL)
            k_at = c[None, :] * (KERNEL * KERNEL) + tap[:, None]
            k_mask = in_c[None, :] & (tap < KERNEL * KERNEL)[:, None]
    first, step = program * P, programs * P
    if needed is not None:
        if tl.load(needed + group) == 0:
            if BACK:
                _clear(dd, first, step, pixels, channels, c, in_c, P, C)
                tl.store(parts_m + m_at, d_m, mask=m_mask)
                if KERNEL:
                    tl.store(parts_k + k_at, d_k, mask=k_mask)
            return
    own = (group if OWN else group // edges) * (images * high * wide * channels)
    g += group * (pixels * outer)
    y += group * (pixels * outer)
    shares += group // edges * images
    if BACK:
        sums += group * programs * (2 * outer)
        total = sum_of_parts(sums, 0, 2, programs, PROGRAMS, outer, o, in_o)
        total_y = sum_of_parts(sums, 1, 2, programs, PROGRAMS, outer, o, in_o)
        inverse = tl.load(r + group * outer + o, mask=in_o, other=0.0).to(ACC)
    matrix = _matrix(mixing + group * (channels * outer), channels, outer, c, in_c, o, in_o, DOT)
    if vm is not None:
        v_matrix = _matrix(vm + group * (channels * outer), channels, outer, c, in_c, o, in_o, DOT)
    sum_q = tl.zeros([O], ACC)
    sum_qy = tl.zeros([O], ACC)
    sum_qg = tl.zeros([O], ACC)
    for start in range(first, pixels, step):
        p = start + tl.arange(0, P)
        ok = p < pixels
        n, row, col = place_of(p, h, w)
        pushed = tl.zeros([P, C], ACC)
        if KERNEL:
            if vx is not None or vk is not None:
                if BACK and vx is not None:
                    pulled = read(gd + group * (pixels * channels), p, ok, channels, c, in_c, ACC)
                for i in range(KERNEL):
                    for j in tl.static_range(KERNEL):
                        at, inside = _under_tap(n, row, col, ok, i, j, high, wide, KERNEL, STRIDE, DILATION)
                        k_from = (group * channels + c) * (KERNEL * KERNEL) + i * KERNEL + j
                        z = read(x + own, at, inside, channels, c, in_c, ACC)
                        if vk is not None:
                            pushed += _relu(z) * tl.load(vk + k_from, mask=in_c, other=0.0).to(ACC)[None, :]
                        if vx is not None:
                            zv = tl.where(z > 0.0, read(vx + own, at, inside, channels, c, in_c, ACC), 0.0)
                            pushed += zv * tl.load(taps + k_from, mask=in_c, other=0.0).to(ACC)[None, :]
                            if BACK:
                                here = tl.sum(zv * pulled, 0)
                                d_k += tl.where((tap == i * KERNEL + j)[:, None], here[None, :], 0.0)
        elif vx is not None:
            gate = read(x + own, p, ok, channels, c, in_c, ACC) > 0.0
            pushed = tl.where(gate, read(vx + own, p, ok, channels, c, in_c, ACC), 0.0)
        share = tl.load(shares + n, mask=ok, other=0.0).to(ACC)
        upstream, normal = read(g, p, ok, outer, o, in_o, ACC), read(y, p, ok, outer, o, in_o, ACC)
        if OUT:
            turned = tl.dot(pushed.to(DOT), matrix, out_dtype=ACC, input_precision=PRECISION)
            if vm is not None:
                tile = read(d + group * (pixels * channels), p, ok, channels, c, in_c, ACC).to(DOT)
                turned = tl.dot(tile, v_matrix, acc=turned, out_dtype=ACC, input_precision=PRECISION)
            write(q, p, ok, outer, o, in_o, turned)
            shared = turned * share[:, None]
            sum_q += tl.sum(shared, 0)
            sum_qy += tl.sum(shared * normal, 0)
            sum_qg += tl.sum(turned * upstream, 0)
        if BACK:
            gu = _pullback(upstream, normal, inverse, share, total, total_y).to(DOT)
            d_m = tl.dot(tl.trans(pushed.to(DOT)), gu, acc=d_m, out_dtype=ACC, input_precision=PRECISION)
            if vm is not None:
                back = tl.dot(gu, tl.trans(v_matrix), out_dtype=ACC, input_precision=PRECISION)
                write(dd, p, ok, channels, c, in_c, back)
            else:
                write(dd, p, ok, channels, c, in_c, tl.zeros([P, C], ACC))
    if OUT:
        parts += (group * programs + program) * (3 * outer)
        store_row(parts, 0, outer, o, in_o, sum_q)
        store_row(parts, 1, outer, o, in_o, sum_qy)
        store_row(parts, 2, outer, o, in_o, sum_qg)
    if BACK:
        tl.store(parts_m + m_at, d_m, mask=m_mask)
        if KERNEL:
            tl.store(parts_k + k_at, d_k, mask=k_mask)


@triton.jit
def _finish(
    q, g, y, r, shares, needed, sums, parts, dy, dr, parts_m, parts_k, d_mixing, d_taps,
    images, pixels, channels, outer, edges, programs,
    KERNEL: tl.constexpr, P: tl.constexpr, O: tl.constexpr, PROGRAMS: tl.constexpr, SPAN: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """dg = r (q - A(q) - A(q y) y) in the place of q, dy = -r (w S(g y) q + A(q y) g), and
    dr = S(q g) - A(q) S(g) - A(q y) S(g y); further programs join the parts of dM and dk.
    """
    group, program = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if parts_m is not None:
        if program >= programs:
            if tl.program_id(2) == 0:
                _join_weights(
                    parts_m, parts_k, d_mixing, d_taps, group, program - programs, channels, outer, programs,
                    KERNEL, PROGRAMS, SPAN,
                )  # fmt: skip
            return
    o = tl.program_id(2) * O + tl.arange(0, O)
    in_o = o < outer
    q += group * (pixels * images * outer)
    dy += group * (pixels * images * outer)
    first, step, most = program * P, programs * P, pixels * images
    if needed is not None:
        if tl.load(needed + group) == 0:
            _clear(q, first, step, most, outer, o, in_o, P, O)
            _clear(dy, first, step, most, outer, o, in_o, P, O)
            if program == 0:
                tl.store(dr + group * outer + o, tl.zeros([O], ACC), mask=in_o)
            return
    g += group * (most * outer)
    y += group * (most * outer)
    shares += group // edges * images
    sums += group * programs * (2 * outer)
    parts += group * programs * (3 * outer)
    total_y = sum_of_parts(sums, 1, 2, programs, PROGRAMS, outer, o, in_o)
    mean_q = sum_of_parts(parts, 0, 3, programs, PROGRAMS, outer, o, in_o)
    mean_qy = sum_of_parts(parts, 1, 3, programs, PROGRAMS, outer, o, in_o)
    inverse = tl.load(r + group * outer + o, mask=in_o, other=0.0).to(ACC)
    if program == 0:
        total = sum_of_parts(sums, 0, 2, programs, PROGRAMS, outer, o, in_o)
        sum_qg = sum_of_parts(parts, 2, 3, programs, PROGRAMS, outer, o, in_o)
        tl.store(dr + group * outer + o, sum_qg - mean_q * total - mean_qy * total_y, mask=in_o)
    for start in range(first, most, step):
        p = start + tl.arange(0, P)
        ok = p < most
        share = tl.load(shares + p // pixels, mask=ok, other=0.0).to(ACC)
        turned, upstream = read(q, p, ok, outer, o, in_o, ACC), read(g, p, ok, outer, o, in_o, ACC)
        normal = read(y, p, ok, outer, o, in_o, ACC)
        of_g = inverse[None, :] * (turned - mean_q[None, :] - mean_qy[None, :] * normal)
        of_y = -inverse[None, :] * (share[:, None] * total_y[None, :] * turned + mean_qy[None, :] * upstream)
        write(q, p, ok, outer, o, in_o, of_g)
        write(dy, p, ok, outer, o, in_o, of_y)


_FORWARD, _NORMALISE = Kernel(_forward, "separable.forward"), Kernel(_normalise, "separable.normalise")
_SUMS, _BACKWARD = Kernel(pullback_sums, "separable.sums"), Kernel(_backward, "separable.backward")
_INPUT = Kernel(_input_gradient, "separable.input_gradient")
_SECOND, _FINISH = Kernel(_second, "separable.second"), Kernel(_finish, "separable.finish")


class _Plan(NamedTuple):
    """Sizes, and how the work on one operator's tensors is cut.

    Args:
        tile: pixels of a tile.
        narrow: pixels of a tile of a kernel that has a product in it.
        programs, padded, warps: as in `metadarts.ops.gpu.tiles.Tiling`.
        strong: warps of a kernel that has a product in it.
        whole_c, whole_o: channels C and O as a product takes them whole, a power of two, at least 16.
        block_c, block_o: as one takes them in blocks.
    """

    tasks: int
    edges: int
    images: int
    high: int
    wide: int
    h: int
    w: int
    channels: int
    outer: int
    kernel: int
    own: bool
    again: bool
    tile: int
    narrow: int
    programs: int
    padded: int
    warps: int
    strong: int
    whole_c: int
    whole_o: int
    block_c: int
    block_o: int
    types: dict[str, Any]
    window: dict[str, Any]

    @property
    def groups(self) -> int:
        return self.tasks * self.edges

    @property
    def pixels(self) -> int:
        """Of y, of one image."""
        return self.h * self.w

    @property
    def sizes(self) -> tuple[int, ...]:
        return (*self[2:9], self.edges, self.programs)

    @property
    def acc(self) -> dict[str, Any]:
        return {"ACC": self.types["ACC"]}

    @property
    def taps(self) -> int:
        return power_of_two(self.kernel**2)

    @property
    def blocks_c(self) -> int:
        return -(-self.channels // self.block_c)

    @property
    def blocks_o(self) -> int:
        return -(-self.outer // self.block_o)

    @property
    def chunks(self) -> int:
        """Programs that join one group's weight gradients."""
        return -(-self.channels * self.outer // SPAN) + -(-self.channels * self.kernel**2 // SPAN)


def _plan(x: Tensor, depthwise: Tensor | None, pointwise: Tensor, options: Any) -> _Plan:
    tasks, edges, channels, outer = pointwise.shape
    images, high, wide_ = x.shape[2:5]
    h, w = -(-high // options.stride), -(-wide_ // options.stride)
    kernel = 0 if depthwise is None else depthwise.shape[-1]
    own = x.shape[1] == edges
    cut = tiling(tasks * edges, images * h * w, max(channels, outer), x.device)
    whole_c, whole_o = power_of_two(channels, 16), power_of_two(outer, 16)
    most = max(whole_c, whole_o)
    block = 64 if most <= 128 else 32
    # larger tiles, or fewer warps, spill registers: float32 is multiplied by hand, all that is summed over at once
    narrow = 16 if interpreting() else max(16, min(32, 4096 // (most * x.element_size())))
    strong = 8 if most >= 64 and not interpreting() else cut.warps
    return _Plan(
        tasks, edges, images, high, wide_, h, w, channels, outer, kernel, own, x.dtype != wide(x.dtype),
        cut.pixels, narrow, cut.programs, cut.padded, cut.warps, strong,
        whole_c, whole_o, min(whole_c, block), min(whole_o, block), types(x.dtype),
        {"OWN": own, "KERNEL": kernel, "STRIDE": options.stride, "DILATION": options.dilation},
    )  # fmt: skip


def forward(
    x: Tensor, depthwise: Tensor | None, pointwise: Tensor, shares: Tensor, needed: Tensor | None, options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, r, d); arguments and results as in `op._Separable`."""
    plan = _plan(x, depthwise, pointwise, options)
    x, depthwise, pointwise = x.contiguous(), _packed(depthwise), pointwise.contiguous()
    around = (plan.tasks, plan.edges, plan.images, plan.h, plan.w)
    d, y = x.new_empty(*around, plan.channels), x.new_empty(*around, plan.outer)
    r, parts = (
        wide_memory(x, plan.tasks, plan.edges, plan.outer),
        wide_memory(x, plan.groups, plan.programs, 3, plan.outer),
    )
    grid = (plan.groups, plan.programs, plan.blocks_o)
    product = {"P": plan.narrow, "C": plan.whole_c, "O": plan.block_o, "AGAIN": plan.again, **plan.types}
    _FORWARD(
        grid, x, depthwise, pointwise, shares, needed, d, y, parts, *plan.sizes,
        **product, **plan.window, num_warps=plan.strong,
    )  # fmt: skip
    _NORMALISE(
        grid, parts, pointwise, needed, d, y, r, plan.images * plan.pixels, plan.channels, plan.outer, plan.programs,
        **product, EPS=options.eps, PROGRAMS=plan.padded, num_warps=plan.strong,
    )  # fmt: skip
    return y, r, d


def gradient(
    g: Tensor, x: Tensor, depthwise: Tensor | None, pointwise: Tensor, y: Tensor, r: Tensor, d: Tensor, shares: Tensor,
    needed: Tensor | None, options: Any, pulls: tuple[Tensor, Tensor | None] | None,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, depthwise and pointwise, and gd (of d, for the second derivative).

    Args:
        pulls: upstream of r and of d besides g's of y; only after a second derivative.
    """
    plan = _plan(x, depthwise, pointwise, options)
    g, x, depthwise, pointwise = g.contiguous(), x.contiguous(), _packed(depthwise), pointwise.contiguous()
    pull_r, pull_d = pulls or (None, None)
    gd, weights = torch.empty_like(d), _Weights.of(plan, depthwise, pointwise)
    sums = _sums_of(g, y, needed, plan)
    _BACKWARD(
        (plan.groups, plan.programs, plan.blocks_c), g, x, pointwise, y, r, d, shares, needed, _packed(pull_r),
        _packed(pull_d), sums, gd, *weights.parts, *plan.sizes, TAPS=plan.taps, P=plan.narrow, C=plan.block_c,
        O=plan.whole_o, PROGRAMS=plan.padded, **plan.types, **plan.window, num_warps=plan.strong,
    )  # fmt: skip
    d_x = _input_gradient_of(gd, x, depthwise, needed, weights, plan)
    return d_x, weights.d_depthwise, weights.d_pointwise, gd


def second(
    vx: Tensor | None, vw: Tensor | None, vm: Tensor | None, g: Tensor, x: Tensor, depthwise: Tensor | None,
    pointwise: Tensor, y: Tensor, r: Tensor, d: Tensor, shares: Tensor, gd: Tensor, needed: Tensor | None, options: Any,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of g, x, depthwise, pointwise, y, r and d for upstream vx, vw, vm of what `gradient` returned."""
    plan = _plan(x, depthwise, pointwise, options)
    g, x, depthwise, pointwise = g.contiguous(), x.contiguous(), _packed(depthwise), pointwise.contiguous()
    vx, vw, vm = _packed(vx), _packed(vw), _packed(vm)
    d_g, d_y, d_r, d_d = torch.empty_like(y), torch.empty_like(y), torch.empty_like(r), torch.empty_like(d)
    weights = _Weights.of(plan, depthwise, pointwise)
    sums = _sums_of(g, y, needed, plan)
    parts = wide_memory(x, plan.groups, plan.programs, 3, plan.outer)
    together = plan.blocks_c == plan.blocks_o == 1
    roles = [(True, True, 1)] if together else [(True, False, plan.blocks_o), (False, True, plan.blocks_c)]
    for out, back, blocks in roles:
        _SECOND(
            (plan.groups, plan.programs, blocks), vx, vw, vm, g, x, depthwise, pointwise, y, r, d, shares, gd, needed,
            sums, d_g, d_d, parts, *weights.parts, *plan.sizes, OUT=out, BACK=back, TAPS=plan.taps, P=plan.narrow,
            C=plan.whole_c if out else plan.block_c, O=plan.whole_o if back else plan.block_o, PROGRAMS=plan.padded,
            **plan.types, **plan.window, num_warps=plan.strong,
        )  # fmt: skip
    _FINISH(
        (plan.groups, plan.programs + weights.joined * plan.chunks, plan.blocks_o), d_g, g, y, r, shares, needed, sums,
        parts, d_y, d_r, *weights.rest, plan.images, plan.pixels, plan.channels, plan.outer, plan.edges, plan.programs,
        KERNEL=plan.kernel, P=plan.tile, O=plan.block_o, PROGRAMS=plan.padded, SPAN=SPAN, **plan.acc,
        num_warps=plan.warps,
    )  # fmt: skip
    d_x = None if vw is None else _input_gradient_of(gd, x, vw, needed, None, plan)
    return d_g, d_x, weights.d_depthwise, weights.d_pointwise, d_y, d_r, d_d


class _Weights(NamedTuple):
    """Gradients of the weights, and the programs' parts of them; one program's part is the gradient itself."""

    d_depthwise: Tensor | None
    d_pointwise: Tensor
    parts: tuple[Tensor, Tensor | None]
    joined: bool

    @classmethod
    def of(cls, plan: _Plan, depthwise: Tensor | None, pointwise: Tensor) -> _Weights:
        d_depthwise = None if depthwise is None else torch.empty_like(depthwise)
        d_pointwise = torch.empty_like(pointwise)
        if plan.programs == 1:
            return cls(d_depthwise, d_pointwise, (d_pointwise, d_depthwise), False)
        parts_m = wide_memory(pointwise, plan.groups, plan.programs, plan.channels * plan.outer)
        taps = plan.channels * plan.kernel**2
        parts_k = None if depthwise is None else wide_memory(depthwise, plan.groups, plan.programs, taps)
        return cls(d_depthwise, d_pointwise, (parts_m, parts_k), True)

    @property
    def rest(self) -> tuple[Tensor | None, ...]:
        """For a kernel that joins the parts."""
        return (*self.parts, self.d_pointwise, self.d_depthwise) if self.joined else (None,) * 4


def _sums_of(g: Tensor, y: Tensor, needed: Tensor | None, plan: _Plan) -> Tensor:
    """S(g), S(g y) by program: [groups, programs, 2, O]."""
    sums = wide_memory(y, plan.groups, plan.programs, 2, plan.outer)
    _SUMS(
        (plan.groups, plan.programs, plan.blocks_o), g, y, needed, sums, plan.images * plan.pixels, plan.outer,
        plan.programs, P=plan.tile, C=plan.block_o, **plan.acc, num_warps=plan.warps,
    )  # fmt: skip
    return sums


def _input_gradient_of(
    gd: Tensor, x: Tensor, depthwise: Tensor | None, needed: Tensor | None, weights: _Weights | None, plan: _Plan
) -> Tensor:
    """d_x, and, where ``weights`` are given in parts, these joined."""
    d_x = torch.empty_like(x)
    rest, joined = (weights.rest, weights.joined) if weights else ((None,) * 4, False)
    tiles = -(-plan.images * plan.high * plan.wide // plan.tile)
    joining = joined * plan.chunks * (1 if plan.own else plan.edges)
    _INPUT(
        (plan.tasks * x.shape[1], tiles + joining, plan.blocks_c), gd, x, depthwise, needed, d_x, *rest,
        *plan.sizes, tiles, plan.chunks, P=plan.tile, C=plan.block_c, PROGRAMS=plan.padded, SPAN=SPAN,
        **plan.acc, **plan.window, num_warps=plan.warps,
    )  # fmt: skip
    return d_x


def _packed(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()
