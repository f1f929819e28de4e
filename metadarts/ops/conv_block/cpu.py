"""CPU kernels of the convolutional block.

The convolution is taken line by line: in a framed image the pixels under one line of the filter lie side by side, so
that a line of the output is k products of matrices [W, k C] x [k C, O], and nothing is copied to make them.
A work item is one task and one register's width of output channels; the input's gradient, which sums over output
channels, has one per task and image.
"""

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
    everywhere,
    fma,
    lanes,
    multiply,
    pointer,
    real_argument,
    shifted,
    subtract,
    take_a_number,
    where_equal,
    where_greater,
)
from metadarts.ops.vector.launch import FIRST, Kernel
from metadarts.ops.vector.pieces import clear, frame, gated, get, normalise, outer_sum, product, put
from metadarts.ops.vector.places import PLACE, image_of, place, placed

# tasks, images; height and width of x; channels in and out; kernel; whether x is rectified
Sizes = namedtuple("Sizes", "tasks images high wide channels outer kernel rectify")
REST = FIRST + 8


@njit
def _sizes(block: Any) -> Any:
    f = FIRST
    return Sizes(
        argument(block, f), argument(block, f + 1), argument(block, f + 2), argument(block, f + 3),
        argument(block, f + 4), argument(block, f + 5), argument(block, f + 6), argument(block, f + 7),
    )  # fmt: skip


@njit
def _framed(x: Any, row: int, gate: Any, gate_row: int, s: Any, out: Any) -> None:
    """One image, where x was rectified only as far as its gate is open, into a frame of zeros."""
    pad = s.kernel // 2
    frame(x, row, gate, gate_row, s.rectify != 0, s.high, s.wide, s.channels, 1, pad, s.wide + 2 * pad, out)


@njit
def _add_at_maxima(g: Any, which: Any, factor: Any, s: Any, some: int, out: Any) -> None:
    """out [H, W, O] += factor * g at each window's maximum; g and which [h, w, O]."""
    zero = constant(out, 0.0)
    for i in range(s.high // 2):
        for j in range(s.wide // 2):
            at = (i * (s.wide // 2) + j) * s.outer
            step, code = multiply(factor, get(g, at, some)), get(which, at, some)
            for corner in range(4):
                to = _pixel(s, i, j, corner)
                part = where_equal(code, constant(out, float(corner)), step, zero)
                put(out, to, add(get(out, to, some), part), some)


@njit
def _convolve(framed: Any, s: Any, weight: Any, some: int, out: Any, more: bool) -> None:
    """out (+)= the convolution of one framed image, for ``some`` output channels; weight [k, k, C, O]."""
    across = s.wide + 2 * (s.kernel // 2)
    for i in range(s.high):
        for a in range(s.kernel):
            line = shifted(framed, (i + a) * across * s.channels)
            filters = shifted(weight, a * s.kernel * s.channels * s.outer)
            to = shifted(out, i * s.wide * s.outer)
            product(line, s.channels, s.wide, s.kernel * s.channels, filters, s.outer, some, to, s.outer, more or a > 0)


@njit
def _convolve_weight(framed: Any, s: Any, g: Any, some: int, out: Any) -> None:
    """out [k, k, C, O] += the gradient of `_convolve` with respect to its weight."""
    across = s.wide + 2 * (s.kernel // 2)
    for a in range(s.kernel):
        to = shifted(out, a * s.kernel * s.channels * s.outer)
        for i in range(s.high):
            line = shifted(framed, (i + a) * across * s.channels)
            upstream = shifted(g, i * s.wide * s.outer)
            outer_sum(line, s.channels, upstream, s.outer, s.wide, s.kernel * s.channels, some, to, s.outer)


@njit
def _clear_columns(p: Any, rows: int, row: int, some: int) -> None:
    for m in range(rows):
        put(p, m * row, constant(p, 0.0), some)


@njit
def _pixel(s: Any, i: int, j: int, corner: int) -> int:
    """Where pixel ``corner`` (0 to 3) of a pooling window lies in an image [H, W, O]."""
    return ((2 * i + corner // 2) * s.wide + 2 * j + corner % 2) * s.outer


def _forward(block: Any) -> None:
    """normed = normalise(F(x)), y = max over windows of scale * normed + bias."""
    s, x, a = _sizes(block), place(block, REST), REST + PLACE
    width = lanes(x.start)
    parts, pixels = (s.outer + width - 1) // width, s.high * s.wide
    pad, h, w = s.kernel // 2, s.high // 2, s.wide // 2
    frame_size = (s.high + 2 * pad) * (s.wide + 2 * pad) * s.channels
    framed = shifted(pointer(block, a + 9), take_a_number(block, 2) * argument(block, a + 10))
    clear(framed, frame_size)
    while True:
        item = take_a_number(block, 0)
        if item >= s.tasks * parts:
            break
        t, v = item // parts, item % parts * width
        some = min(width, s.outer - v)
        weight = shifted(pointer(block, a), t * s.kernel * s.kernel * s.channels * s.outer + v)
        scale = get(shifted(pointer(block, a + 1), t * s.outer), v, some)
        bias = get(shifted(pointer(block, a + 2), t * s.outer), v, some)
        shares, r = shifted(pointer(block, a + 3), t * s.images), shifted(pointer(block, a + 7), t * s.outer + v)
        normed = shifted(pointer(block, a + 6), t * s.images * pixels * s.outer + v)
        for n in range(s.images):
            source = image_of(x, t, 0, n)
            _framed(source, x.row, source, x.row, s, framed)
            _convolve(framed, s, weight, some, shifted(normed, n * pixels * s.outer), False)
        normalise(normed, s.outer, shares, s.images, pixels, some, real_argument(block, a + 4), r)
        for n in range(s.images):
            image = shifted(normed, n * pixels * s.outer)
            start = (t * s.images + n) * h * w * s.outer + v
            for i in range(h):
                for j in range(w):
                    best = fma(scale, get(image, _pixel(s, i, j, 0), some), bias)
                    which = constant(image, 0.0)
                    for corner in range(1, 4):
                        z = fma(scale, get(image, _pixel(s, i, j, corner), some), bias)
                        which = where_greater(z, best, constant(image, float(corner)), which)
                        best = where_greater(z, best, z, best)
                    put(pointer(block, a + 5), start + (i * w + j) * s.outer, best, some)
                    put(pointer(block, a + 8), start + (i * w + j) * s.outer, which, some)


@njit
def _chosen(image: Any, s: Any, i: int, j: int, which: Any, some: int) -> Any:
    """The value at each lane's maximum of a window."""
    value = get(image, _pixel(s, i, j, 0), some)
    for corner in range(1, 4):
        value = where_equal(which, constant(image, float(corner)), get(image, _pixel(s, i, j, corner), some), value)
    return value


@njit
def _window_sums(g: Any, which: Any, image: Any, s: Any, some: int, totals: Any) -> None:
    """totals[0] += sum g, totals[1] += sum g * image at the maxima; g and which [h, w, O], of one image."""
    sum_g, sum_gy = get(totals, 0, some), get(totals, lanes(totals), some)
    for i in range(s.high // 2):
        for j in range(s.wide // 2):
            at = (i * (s.wide // 2) + j) * s.outer
            g0 = get(g, at, some)
            sum_g = add(sum_g, g0)
            sum_gy = fma(g0, _chosen(image, s, i, j, get(which, at, some), some), sum_gy)
    put(totals, 0, sum_g, some)
    put(totals, lanes(totals), sum_gy, some)


def _gradient(block: Any) -> None:
    """gu (of the convolution), d_weight, d_scale, d_bias."""
    s, x, a = _sizes(block), place(block, REST), REST + PLACE
    width = lanes(x.start)
    parts, pixels = (s.outer + width - 1) // width, s.high * s.wide
    pad, h, w = s.kernel // 2, s.high // 2, s.wide // 2
    frame_size = (s.high + 2 * pad) * (s.wide + 2 * pad) * s.channels
    totals = shifted(pointer(block, a + 12), take_a_number(block, 2) * argument(block, a + 13))
    framed = shifted(totals, 2 * width)
    clear(framed, frame_size)
    pulled = argument(block, a + 6) != 0
    weight_size = s.kernel * s.kernel * s.channels * s.outer
    while True:
        item = take_a_number(block, 0)
        if item >= s.tasks * parts:
            break
        t, v = item // parts, item % parts * width
        some = min(width, s.outer - v)
        zero = constant(framed, 0.0)
        scale = get(shifted(pointer(block, a), t * s.outer), v, some)
        shares = shifted(pointer(block, a + 1), t * s.images)
        normed = shifted(pointer(block, a + 2), t * s.images * pixels * s.outer + v)
        r = get(shifted(pointer(block, a + 3), t * s.outer), v, some)
        which = shifted(pointer(block, a + 4), t * s.images * h * w * s.outer + v)
        g = shifted(pointer(block, a + 5), t * s.images * h * w * s.outer + v)
        pull = shifted(pointer(block, a + 6), t * s.images * pixels * s.outer + v)
        gu = shifted(pointer(block, a + 8), t * s.images * pixels * s.outer + v)
        d_weight = shifted(pointer(block, a + 9), t * weight_size + v)
        clear(totals, 2 * width)
        for n in range(s.images):
            small, big = n * h * w * s.outer, n * pixels * s.outer
            _window_sums(shifted(g, small), shifted(which, small), shifted(normed, big), s, some, totals)
        put(shifted(pointer(block, a + 11), t * s.outer), v, get(totals, 0, some), some)  # d_bias = sum g
        put(shifted(pointer(block, a + 10), t * s.outer), v, get(totals, width, some), some)  # d_scale = sum g y
        sum_g, sum_gy = multiply(scale, get(totals, 0, some)), multiply(scale, get(totals, width, some))
        if pulled:
            for m in range(s.images * pixels):
                p0 = get(pull, m * s.outer, some)
                sum_g, sum_gy = add(sum_g, p0), fma(p0, get(normed, m * s.outer, some), sum_gy)
        # gu = r (gy - w (S(gy) + y S(gy y))) - pull_r r^2 w y
        along = multiply(r, sum_gy)
        if pulled:
            pull_r = get(shifted(pointer(block, a + 7), t * s.outer), v, some)
            along = fma(multiply(pull_r, r), r, along)
        flat, gained = multiply(r, sum_g), multiply(r, scale)
        for n in range(s.images):
            small, big, share = n * h * w * s.outer, n * pixels * s.outer, everywhere(shares, n)
            b, c = subtract(zero, multiply(share, flat)), subtract(zero, multiply(share, along))
            for m in range(pixels):
                value = fma(c, get(normed, big + m * s.outer, some), b)
                if pulled:
                    value = fma(r, get(pull, big + m * s.outer, some), value)
                put(gu, big + m * s.outer, value, some)
            _add_at_maxima(shifted(g, small), shifted(which, small), gained, s, some, shifted(gu, big))
        _clear_columns(d_weight, s.kernel * s.kernel * s.channels, s.outer, some)
        for n in range(s.images):
            source = image_of(x, t, 0, n)
            _framed(source, x.row, source, x.row, s, framed)
            _convolve_weight(framed, s, shifted(gu, n * pixels * s.outer), some, d_weight)


def _input_gradient(block: Any) -> None:
    """d_x = B(gu, weight), where x > 0 if x was rectified; weight flipped, [k, k, O, C]."""
    s, x, out, a = _sizes(block), place(block, REST), place(block, REST + PLACE), REST + 2 * PLACE
    pad, pixels = s.kernel // 2, s.high * s.wide
    frame_size = (s.high + 2 * pad) * (s.wide + 2 * pad) * s.outer
    framed = shifted(pointer(block, a + 2), take_a_number(block, 2) * argument(block, a + 3))
    clear(framed, frame_size)
    back = Sizes(s.tasks, s.images, s.high, s.wide, s.outer, s.channels, s.kernel, s.rectify)
    while True:
        item = take_a_number(block, 0)
        if item >= s.tasks * s.images:
            break
        t, n = item // s.images, item % s.images
        gu = shifted(pointer(block, a), (t * s.images + n) * pixels * s.outer)
        weight = shifted(pointer(block, a + 1), t * s.kernel * s.kernel * s.channels * s.outer)
        frame(gu, s.outer, gu, s.outer, False, s.high, s.wide, s.outer, 1, pad, s.wide + 2 * pad, framed)
        to, source = image_of(out, t, 0, n), image_of(x, t, 0, n)
        _convolve(framed, back, weight, s.channels, to, False)
        if s.rectify:
            gated(to, out.row, source, x.row, pixels, s.channels, to, out.row)


def _second(block: Any) -> None:
    """The derivative of `_gradient` and `_input_gradient` for upstream vx, v_weight, v_scale, v_bias; README.md."""
    s, x, vx, a = _sizes(block), place(block, REST), place(block, REST + PLACE), REST + 2 * PLACE
    width = lanes(x.start)
    parts, pixels = (s.outer + width - 1) // width, s.high * s.wide
    pad, h, w = s.kernel // 2, s.high // 2, s.wide // 2
    frame_size = (s.high + 2 * pad) * (s.wide + 2 * pad) * s.channels
    totals = shifted(pointer(block, a + 16), take_a_number(block, 2) * argument(block, a + 17))
    framed = shifted(totals, 2 * width)
    clear(framed, frame_size)
    has_x, has_w = argument(block, REST + PLACE) != 0, argument(block, a + 8) != 0
    weight_size = s.kernel * s.kernel * s.channels * s.outer
    while True:
        item = take_a_number(block, 0)
        if item >= s.tasks * parts:
            break
        t, v = item // parts, item % parts * width
        some = min(width, s.outer - v)
        zero = constant(framed, 0.0)
        weight = shifted(pointer(block, a), t * weight_size + v)
        scale = get(shifted(pointer(block, a + 1), t * s.outer), v, some)
        shares = shifted(pointer(block, a + 2), t * s.images)
        normed = shifted(pointer(block, a + 3), t * s.images * pixels * s.outer + v)
        r = get(shifted(pointer(block, a + 4), t * s.outer), v, some)
        which = shifted(pointer(block, a + 5), t * s.images * h * w * s.outer + v)
        g = shifted(pointer(block, a + 6), t * s.images * h * w * s.outer + v)
        gu = shifted(pointer(block, a + 7), t * s.images * pixels * s.outer + v)
        v_weight = shifted(pointer(block, a + 8), t * weight_size + v)
        v_scale = get(shifted(pointer(block, a + 9), t * s.outer), v, some)
        v_bias = get(shifted(pointer(block, a + 10), t * s.outer), v, some)
        d_g = shifted(pointer(block, a + 11), t * s.images * h * w * s.outer + v)
        d_normed = shifted(pointer(block, a + 12), t * s.images * pixels * s.outer + v)
        d_weight = shifted(pointer(block, a + 14), t * weight_size + v)
        # q, what reaches the convolution's output from its own derivatives, is kept where d_normed will be.
        _clear_columns(d_weight, s.kernel * s.kernel * s.channels, s.outer, some)
        clear(totals, 2 * width)
        sum_q, sum_qy, sum_qg = zero, zero, zero
        for n in range(s.images):
            small, big = n * h * w * s.outer, n * pixels * s.outer
            q, gate = shifted(d_normed, big), image_of(x, t, 0, n)
            if has_x:
                source = image_of(vx, t, 0, n)
                _framed(source, vx.row, gate, x.row, s, framed)
                _convolve(framed, s, weight, some, q, False)
                _convolve_weight(framed, s, shifted(gu, big), some, d_weight)
            if has_w:
                _framed(gate, x.row, gate, x.row, s, framed)
                _convolve(framed, s, v_weight, some, q, has_x)
            if not (has_x or has_w):
                _clear_columns(q, pixels, s.outer, some)
            image = shifted(normed, big)
            own_q, own_qy = zero, zero
            for m in range(pixels):
                q0 = get(q, m * s.outer, some)
                own_q, own_qy = add(own_q, q0), fma(q0, get(image, m * s.outer, some), own_qy)
            share = everywhere(shares, n)
            sum_q, sum_qy = fma(share, own_q, sum_q), fma(share, own_qy, sum_qy)
            _window_sums(shifted(g, small), shifted(which, small), image, s, some, totals)
            for i in range(h):
                for j in range(w):
                    at = small + (i * w + j) * s.outer
                    sum_qg = fma(get(g, at, some), _chosen(q, s, i, j, get(which, at, some), some), sum_qg)
        sum_g, sum_gy = multiply(scale, get(totals, 0, some)), multiply(scale, get(totals, width, some))
        sum_qg = multiply(scale, sum_qg)
        d_r = subtract(subtract(sum_qg, multiply(sum_q, sum_g)), multiply(sum_qy, sum_gy))
        put(shifted(pointer(block, a + 13), t * s.outer), v, d_r, some)
        negative = subtract(zero, r)
        shift, slope = multiply(negative, sum_q), multiply(negative, sum_qy)
        d_scale = zero
        for n in range(s.images):
            small, big = n * h * w * s.outer, n * pixels * s.outer
            q, image = shifted(d_normed, big), shifted(normed, big)
            pull = multiply(multiply(everywhere(shares, n), negative), sum_gy)
            for i in range(h):  # before q makes way
                for j in range(w):
                    at = small + (i * w + j) * s.outer
                    g0, code = get(g, at, some), get(which, at, some)
                    y0 = _chosen(image, s, i, j, code, some)
                    # what reaches scale * g, the upstream gradient of the normalisation, at the maximum
                    reached = fma(slope, y0, fma(r, _chosen(q, s, i, j, code, some), shift))
                    d_scale = fma(g0, reached, d_scale)
                    put(d_g, at, fma(scale, reached, fma(v_scale, y0, v_bias)), some)
            for m in range(pixels):
                put(q, m * s.outer, multiply(pull, get(q, m * s.outer, some)), some)
            gain = fma(slope, scale, v_scale)
            _add_at_maxima(shifted(g, small), shifted(which, small), gain, s, some, q)
        put(shifted(pointer(block, a + 15), t * s.outer), v, d_scale, some)


_FORWARD, _GRADIENT = Kernel(_forward, "conv_block.forward"), Kernel(_gradient, "conv_block.gradient")
_INPUT, _SECOND = Kernel(_input_gradient, "conv_block.input_gradient"), Kernel(_second, "conv_block.second")


def forward(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, shares: Tensor, options: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(y, normed, r, which) as in `op._Block`."""
    s = _geometry(x, weight, options)
    x, x_place = placed(x.unsqueeze(1))
    y = x.new_empty(s.tasks, s.images, s.high // 2, s.wide // 2, s.outer)
    normed, r = x.new_empty(s.tasks, s.images, s.high, s.wide, s.outer), x.new_empty(s.tasks, s.outer)
    which, scratch = torch.empty_like(y), _scratch(x, s, s.channels)
    rest = [_packed(weight), scale.contiguous(), bias.contiguous(), shares, options.eps, y, normed, r, which]
    _FORWARD(x.dtype, _items(s, x), [*s, *x_place, *rest, scratch, scratch.shape[1]])
    return y, normed, r, which


def gradient(
    g: Tensor, x: Tensor, weight: Tensor, scale: Tensor, normed: Tensor, r: Tensor, which: Tensor, shares: Tensor,
    options: Any, wants_x: bool, pulls: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x (None unless wanted), weight, scale and bias, and gu for the second derivative.

    Args:
        pulls: upstream of normed and of r besides g's of y; only after a second derivative.
    """
    s = _geometry(x, weight, options)
    five, (g, scale) = x, (g.contiguous(), scale.contiguous())
    x, x_place = placed(x.unsqueeze(1))
    pull, pull_r = (None, None) if pulls is None else (p.contiguous() for p in pulls)
    gu, d_packed = torch.empty_like(normed), x.new_empty(s.tasks, s.kernel, s.kernel, s.channels, s.outer)
    d_scale, d_bias, scratch = torch.empty_like(scale), torch.empty_like(scale), _scratch(x, s, s.channels)
    rest = [scale, shares, normed, r, which, g, pull, pull_r, gu, d_packed, d_scale, d_bias]
    _GRADIENT(x.dtype, _items(s, x), [*s, *x_place, *rest, scratch, scratch.shape[1]])
    d_x = _input_gradient_of(gu, five, weight, s) if wants_x else None
    return d_x, _unpacked(d_packed), d_scale, d_bias, gu


def second(
    vx: Tensor | None, v_weight: Tensor | None, v_scale: Tensor | None, v_bias: Tensor | None, g: Tensor, x: Tensor,
    weight: Tensor, scale: Tensor, normed: Tensor, r: Tensor, which: Tensor, shares: Tensor, gu: Tensor, options: Any,
    wants_x: bool,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of g, x, weight, scale, normed and r for upstream v of what `gradient` returned."""
    s = _geometry(x, weight, options)
    five, (g, scale) = x, (g.contiguous(), scale.contiguous())
    x, x_place = placed(x.unsqueeze(1))
    vx, v_place = (None, [0] * PLACE) if vx is None else placed(vx.unsqueeze(1))
    packed_v = None if v_weight is None else _packed(v_weight)
    v_scale, v_bias = (torch.zeros_like(scale) if v is None else v.contiguous() for v in (v_scale, v_bias))
    d_g, d_normed, d_r = torch.empty_like(g), torch.empty_like(normed), torch.empty_like(r)
    d_packed, d_scale = x.new_empty(s.tasks, s.kernel, s.kernel, s.channels, s.outer), torch.empty_like(scale)
    scratch = _scratch(x, s, s.channels)
    kept = [_packed(weight), scale, shares, normed, r, which, g, gu]
    rest = [*kept, packed_v, v_scale, v_bias, d_g, d_normed, d_r, d_packed, d_scale, scratch, scratch.shape[1]]
    _SECOND(x.dtype, _items(s, x), [*s, *x_place, *v_place, *rest])
    d_x = _input_gradient_of(gu, five, v_weight, s) if wants_x and v_weight is not None else None
    return d_g, d_x, _unpacked(d_packed), d_scale, d_normed, d_r


def _input_gradient_of(gu: Tensor, x: Tensor, weight: Tensor, s: Sizes) -> Tensor:
    d_x, scratch = x.new_empty(x.shape), _scratch(x, s, s.outer)
    flipped = weight.flip(3, 4).permute(0, 3, 4, 1, 2).contiguous()
    (x, x_place), (_, d_place) = placed(x.unsqueeze(1)), placed(d_x.unsqueeze(1))
    _INPUT(x.dtype, s.tasks * s.images, [*s, *x_place, *d_place, gu, flipped, scratch, scratch.shape[1]])
    return d_x


def _geometry(x: Tensor, weight: Tensor, options: Any) -> Sizes:
    tasks, images, high, wide, channels = x.shape
    return Sizes(tasks, images, high, wide, channels, weight.shape[1], weight.shape[-1], int(options.rectify))


def _items(s: Sizes, like: Tensor) -> int:
    return int(s.tasks * -(-s.outer // (64 // like.element_size())))


def _packed(weight: Tensor) -> Tensor:
    """[T, O, C, k, k] -> [T, k, k, C, O]."""
    return weight.permute(0, 3, 4, 2, 1).contiguous()


def _unpacked(weight: Tensor) -> Tensor:
    return weight.permute(0, 4, 3, 1, 2)


def _scratch(x: Tensor, s: Sizes, channels: int) -> Tensor:
    """For each thread two registers' worth of sums and a framed image."""
    pad = s.kernel // 2
    size = (s.high + 2 * pad) * (s.wide + 2 * pad) * channels + 32
    return x.new_empty(torch.get_num_threads(), (size + 31) // 16 * 16)
