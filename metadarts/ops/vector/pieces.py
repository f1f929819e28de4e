"""The loops that CPU kernels are put together from, for one task and edge: images of C channels, innermost in memory.

`m` counts pixels. A block of C channels is C / lanes registers, the last one partly filled (``some``). The inner loops
keep eight or five sums in registers, so that every number loaded is used more than once.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from .lanes import (
    add,
    constant,
    divide,
    everywhere,
    fma,
    lanes,
    load,
    load_some,
    multiply,
    number,
    put_number,
    root,
    store,
    store_some,
    subtract,
    where_positive,
)

Pointer = Any


@njit
def get(p: Pointer, i: int, some: int) -> Any:
    """The next ``some`` numbers; whole registers by the plain instruction."""
    if some == lanes(p):
        return load(p, i)
    return load_some(p, i, some)


@njit
def put(p: Pointer, i: int, value: Any, some: int) -> None:
    """Store the first ``some`` numbers; whole registers by the plain instruction."""
    if some == lanes(p):
        store(p, i, value)
    else:
        store_some(p, i, value, some)


@njit
def clear(p: Pointer, count: int) -> None:
    """p[:count] = 0."""
    zero = constant(p, 0.0)
    for i in range(0, count, lanes(p)):
        put(p, i, zero, min(lanes(p), count - i))


@njit
def added(source: Pointer, count: int, out: Pointer, more: bool) -> None:
    """out[:count] = source[:count], or added to what is there."""
    for i in range(0, count, lanes(out)):
        some = min(lanes(out), count - i)
        value = get(source, i, some)
        put(out, i, add(value, get(out, i, some)) if more else value, some)


@njit
def gated(
    value: Pointer, row: int, gate: Pointer, gate_row: int, pixels: int, channels: int, out: Pointer, out_row: int
) -> None:
    """out = value where gate > 0, else 0."""
    for v in range(0, channels, lanes(value)):
        some = min(lanes(value), channels - v)
        for m in range(pixels):
            kept = where_positive(get(gate, m * gate_row + v, some), get(value, m * row + v, some))
            put(out, m * out_row + v, kept, some)


@njit
def transpose(a: Pointer, rows: int, columns: int, out: Pointer) -> None:
    """out[j, i] = a[i, j]."""
    for i in range(rows):
        for j in range(columns):
            put_number(out, j * rows + i, number(a, i * columns + j))


@njit
def taps_of(weight: Pointer, channels: int, taps: int, flip: bool, out: Pointer) -> None:
    """[C, taps] -> [taps, C], the taps in reverse order for the transposed convolution."""
    for c in range(channels):
        for tap in range(taps):
            to = taps - 1 - tap if flip else tap
            put_number(out, to * channels + c, number(weight, c * taps + tap))


@njit
def frame(
    x: Pointer, row: int, gate: Pointer, gate_row: int, gated: bool, height: int, width: int, channels: int,
    spread: int, pad: int, wide: int, out: Pointer,
) -> None:  # fmt: skip
    """One image into a frame whose zeros are there already: out[pad + s i, pad + s j] = x[i, j].

    With ``gated``, x counts only where gate > 0: gate = x is the ReLU, another x its derivative's action.

    Args:
        row, gate_row: numbers from one pixel to the next in x and gate.
        spread: s.
        wide: pixels in a line of the frame.
    """
    for v in range(0, channels, lanes(x)):
        some = min(lanes(x), channels - v)
        for i in range(height):
            at = ((pad + spread * i) * wide + pad) * channels + v
            for j in range(width):
                value = get(x, (i * width + j) * row + v, some)
                if gated:
                    value = where_positive(get(gate, (i * width + j) * gate_row + v, some), value)
                put(out, at + j * spread * channels, value, some)


@njit
def depthwise(
    x: Pointer, wide: int, taps: Pointer, kernel: int, dilation: int, stride: int, height: int, width: int,
    channels: int, out: Pointer, accumulate: bool,
) -> None:  # fmt: skip
    """out[i, j] (+)= sum_ab x[s i + d a, s j + d b] taps[a, b], of one framed image."""
    for v in range(0, channels, lanes(x)):
        some = min(lanes(x), channels - v)
        step = stride * channels
        for i in range(height):
            j = 0
            while j + 8 <= width:
                at, to = (stride * i * wide + stride * j) * channels + v, (i * width + j) * channels + v
                a0 = constant(x, 0.0)
                a1 = a2 = a3 = a4 = a5 = a6 = a7 = a0
                if accumulate:
                    a0, a1 = get(out, to, some), get(out, to + channels, some)
                    a2, a3 = get(out, to + 2 * channels, some), get(out, to + 3 * channels, some)
                    a4, a5 = get(out, to + 4 * channels, some), get(out, to + 5 * channels, some)
                    a6, a7 = get(out, to + 6 * channels, some), get(out, to + 7 * channels, some)
                for a in range(kernel):
                    for b in range(kernel):
                        w = get(taps, (a * kernel + b) * channels + v, some)
                        p = at + dilation * (a * wide + b) * channels
                        a0 = fma(get(x, p, some), w, a0)
                        a1 = fma(get(x, p + step, some), w, a1)
                        a2 = fma(get(x, p + 2 * step, some), w, a2)
                        a3 = fma(get(x, p + 3 * step, some), w, a3)
                        a4 = fma(get(x, p + 4 * step, some), w, a4)
                        a5 = fma(get(x, p + 5 * step, some), w, a5)
                        a6 = fma(get(x, p + 6 * step, some), w, a6)
                        a7 = fma(get(x, p + 7 * step, some), w, a7)
                put(out, to, a0, some)
                put(out, to + channels, a1, some)
                put(out, to + 2 * channels, a2, some)
                put(out, to + 3 * channels, a3, some)
                put(out, to + 4 * channels, a4, some)
                put(out, to + 5 * channels, a5, some)
                put(out, to + 6 * channels, a6, some)
                put(out, to + 7 * channels, a7, some)
                j += 8
            while j < width:
                # What is left of a line: four pixels at a time, then one.
                four = j + 4 <= width
                at, to = (stride * i * wide + stride * j) * channels + v, (i * width + j) * channels + v
                a0 = constant(x, 0.0)
                a1 = a2 = a3 = a0
                if accumulate:
                    a0 = get(out, to, some)
                    if four:
                        a1, a2 = get(out, to + channels, some), get(out, to + 2 * channels, some)
                        a3 = get(out, to + 3 * channels, some)
                if four:
                    for a in range(kernel):
                        for b in range(kernel):
                            w = get(taps, (a * kernel + b) * channels + v, some)
                            p = at + dilation * (a * wide + b) * channels
                            a0 = fma(get(x, p, some), w, a0)
                            a1 = fma(get(x, p + step, some), w, a1)
                            a2 = fma(get(x, p + 2 * step, some), w, a2)
                            a3 = fma(get(x, p + 3 * step, some), w, a3)
                    put(out, to, a0, some)
                    put(out, to + channels, a1, some)
                    put(out, to + 2 * channels, a2, some)
                    put(out, to + 3 * channels, a3, some)
                    j += 4
                else:
                    for a in range(kernel):
                        for b in range(kernel):
                            w = get(taps, (a * kernel + b) * channels + v, some)
                            a0 = fma(get(x, at + dilation * (a * wide + b) * channels, some), w, a0)
                    put(out, to, a0, some)
                    j += 1


@njit
def depthwise_taps(
    x: Pointer, wide: int, g: Pointer, kernel: int, dilation: int, stride: int, height: int, width: int,
    channels: int, out: Pointer,
) -> None:  # fmt: skip
    """out[a, b] += sum_ij x[s i + d a, s j + d b] g[i, j]: the gradient of `depthwise` with respect to its taps."""
    count = kernel * kernel
    for v in range(0, channels, lanes(x)):
        some = min(lanes(x), channels - v)
        for first in range(0, count, 5):
            # Five taps at a time; where fewer are left, the last one is computed again and not stored.
            t1, t2 = min(first + 1, count - 1), min(first + 2, count - 1)
            t3, t4 = min(first + 3, count - 1), min(first + 4, count - 1)
            o0 = dilation * ((first // kernel) * wide + first % kernel) * channels + v
            o1 = dilation * ((t1 // kernel) * wide + t1 % kernel) * channels + v
            o2 = dilation * ((t2 // kernel) * wide + t2 % kernel) * channels + v
            o3 = dilation * ((t3 // kernel) * wide + t3 % kernel) * channels + v
            o4 = dilation * ((t4 // kernel) * wide + t4 % kernel) * channels + v
            a0 = constant(x, 0.0)
            a1 = a2 = a3 = a4 = a0
            for i in range(height):
                at, to = stride * i * wide * channels, i * width * channels + v
                for j in range(width):
                    p = at + j * stride * channels
                    upstream = get(g, to + j * channels, some)
                    a0 = fma(get(x, p + o0, some), upstream, a0)
                    a1 = fma(get(x, p + o1, some), upstream, a1)
                    a2 = fma(get(x, p + o2, some), upstream, a2)
                    a3 = fma(get(x, p + o3, some), upstream, a3)
                    a4 = fma(get(x, p + o4, some), upstream, a4)
            to = first * channels + v
            put(out, to, add(get(out, to, some), a0), some)
            if first + 1 < count:
                put(out, to + channels, add(get(out, to + channels, some), a1), some)
            if first + 2 < count:
                put(out, to + 2 * channels, add(get(out, to + 2 * channels, some), a2), some)
            if first + 3 < count:
                put(out, to + 3 * channels, add(get(out, to + 3 * channels, some), a3), some)
            if first + 4 < count:
                put(out, to + 4 * channels, add(get(out, to + 4 * channels, some), a4), some)


@njit
def product(
    x: Pointer, row: int, count: int, inner: int, weight: Pointer, weight_row: int, outer: int,
    out: Pointer, out_row: int, accumulate: bool,
) -> None:  # fmt: skip
    """out[m, o] (+)= sum_i x[m, i] weight[i, o], count rows."""
    for v in range(0, outer, lanes(x)):
        some = min(lanes(x), outer - v)
        m = 0
        while m + 8 <= count:
            at, to = m * row, m * out_row + v
            a0 = constant(x, 0.0)
            a1 = a2 = a3 = a4 = a5 = a6 = a7 = a0
            if accumulate:
                a0, a1 = get(out, to, some), get(out, to + out_row, some)
                a2, a3 = get(out, to + 2 * out_row, some), get(out, to + 3 * out_row, some)
                a4, a5 = get(out, to + 4 * out_row, some), get(out, to + 5 * out_row, some)
                a6, a7 = get(out, to + 6 * out_row, some), get(out, to + 7 * out_row, some)
            for i in range(inner):
                w = get(weight, i * weight_row + v, some)
                a0 = fma(everywhere(x, at + i), w, a0)
                a1 = fma(everywhere(x, at + row + i), w, a1)
                a2 = fma(everywhere(x, at + 2 * row + i), w, a2)
                a3 = fma(everywhere(x, at + 3 * row + i), w, a3)
                a4 = fma(everywhere(x, at + 4 * row + i), w, a4)
                a5 = fma(everywhere(x, at + 5 * row + i), w, a5)
                a6 = fma(everywhere(x, at + 6 * row + i), w, a6)
                a7 = fma(everywhere(x, at + 7 * row + i), w, a7)
            put(out, to, a0, some)
            put(out, to + out_row, a1, some)
            put(out, to + 2 * out_row, a2, some)
            put(out, to + 3 * out_row, a3, some)
            put(out, to + 4 * out_row, a4, some)
            put(out, to + 5 * out_row, a5, some)
            put(out, to + 6 * out_row, a6, some)
            put(out, to + 7 * out_row, a7, some)
            m += 8
        while m < count:
            a0 = get(out, m * out_row + v, some) if accumulate else constant(x, 0.0)
            for i in range(inner):
                a0 = fma(everywhere(x, m * row + i), get(weight, i * weight_row + v, some), a0)
            put(out, m * out_row + v, a0, some)
            m += 1


@njit
def outer_sum(
    x: Pointer, row: int, g: Pointer, g_row: int, count: int, inner: int, outer: int, out: Pointer, out_row: int
) -> None:
    """out[i, o] += sum_m x[m, i] g[m, o]: the gradient of `product` with respect to its weight."""
    for v in range(0, outer, lanes(x)):
        some = min(lanes(x), outer - v)
        i = 0
        while i + 8 <= inner:
            a0 = constant(x, 0.0)
            a1 = a2 = a3 = a4 = a5 = a6 = a7 = a0
            for m in range(count):
                upstream, at = get(g, m * g_row + v, some), m * row + i
                a0 = fma(everywhere(x, at), upstream, a0)
                a1 = fma(everywhere(x, at + 1), upstream, a1)
                a2 = fma(everywhere(x, at + 2), upstream, a2)
                a3 = fma(everywhere(x, at + 3), upstream, a3)
                a4 = fma(everywhere(x, at + 4), upstream, a4)
                a5 = fma(everywhere(x, at + 5), upstream, a5)
                a6 = fma(everywhere(x, at + 6), upstream, a6)
                a7 = fma(everywhere(x, at + 7), upstream, a7)
            to = i * out_row + v
            put(out, to, add(get(out, to, some), a0), some)
            put(out, to + out_row, add(get(out, to + out_row, some), a1), some)
            put(out, to + 2 * out_row, add(get(out, to + 2 * out_row, some), a2), some)
            put(out, to + 3 * out_row, add(get(out, to + 3 * out_row, some), a3), some)
            put(out, to + 4 * out_row, add(get(out, to + 4 * out_row, some), a4), some)
            put(out, to + 5 * out_row, add(get(out, to + 5 * out_row, some), a5), some)
            put(out, to + 6 * out_row, add(get(out, to + 6 * out_row, some), a6), some)
            put(out, to + 7 * out_row, add(get(out, to + 7 * out_row, some), a7), some)
            i += 8
        while i < inner:
            a0 = get(out, i * out_row + v, some)
            for m in range(count):
                a0 = fma(everywhere(x, m * row + i), get(g, m * g_row + v, some), a0)
            put(out, i * out_row + v, a0, some)
            i += 1


@njit
def normalise(
    u: Pointer,
    row: int,
    shares: Pointer,
    images: int,
    pixels: int,
    channels: int,
    eps: float,
    scale: Pointer,
) -> None:
    """u <- (u - mean) r in place and scale <- r, under the weight shares[n] of each of image n's pixels."""
    for v in range(0, channels, lanes(u)):
        some = min(lanes(u), channels - v)
        zero = constant(u, 0.0)
        mean = zero
        for n in range(images):
            a0 = a1 = a2 = a3 = zero
            at = n * pixels * row + v
            m = 0
            while m + 4 <= pixels:
                a0 = add(a0, get(u, at + m * row, some))
                a1 = add(a1, get(u, at + (m + 1) * row, some))
                a2 = add(a2, get(u, at + (m + 2) * row, some))
                a3 = add(a3, get(u, at + (m + 3) * row, some))
                m += 4
            while m < pixels:
                a0 = add(a0, get(u, at + m * row, some))
                m += 1
            mean = fma(add(add(a0, a1), add(a2, a3)), everywhere(shares, n), mean)
        variance = zero
        for n in range(images):
            a0 = a1 = a2 = a3 = zero
            at = n * pixels * row + v
            m = 0
            while m + 4 <= pixels:
                d0 = subtract(get(u, at + m * row, some), mean)
                d1 = subtract(get(u, at + (m + 1) * row, some), mean)
                d2 = subtract(get(u, at + (m + 2) * row, some), mean)
                d3 = subtract(get(u, at + (m + 3) * row, some), mean)
                a0, a1, a2, a3 = fma(d0, d0, a0), fma(d1, d1, a1), fma(d2, d2, a2), fma(d3, d3, a3)
                m += 4
            while m < pixels:
                d0 = subtract(get(u, at + m * row, some), mean)
                a0 = fma(d0, d0, a0)
                m += 1
            variance = fma(add(add(a0, a1), add(a2, a3)), everywhere(shares, n), variance)
        r = divide(constant(u, 1.0), root(add(variance, constant(u, eps))))
        put(scale, v, r, some)
        for m in range(images * pixels):
            at = m * row + v
            put(u, at, multiply(subtract(get(u, at, some), mean), r), some)


@njit
def normalise_pullback(
    g: Pointer, g_image: int, g_row: int, y: Pointer, row: int, scale: Pointer, pull: Pointer, pulled: bool,
    shares: Pointer, images: int, pixels: int, channels: int, out: Pointer,
) -> None:  # fmt: skip
    """out = r (g - w (S(g) + y S(g y))) - pull r^2 w y: what `normalise` hands back for g of y and ``pull`` of r."""
    for v in range(0, channels, lanes(y)):
        some = min(lanes(y), channels - v)
        zero = constant(y, 0.0)
        s0 = s1 = t0 = t1 = zero
        for n in range(images):
            at, to = n * g_image + v, n * pixels * row + v
            m = 0
            while m + 2 <= pixels:
                g0, g1 = get(g, at + m * g_row, some), get(g, at + (m + 1) * g_row, some)
                s0, s1 = add(s0, g0), add(s1, g1)
                t0 = fma(g0, get(y, to + m * row, some), t0)
                t1 = fma(g1, get(y, to + (m + 1) * row, some), t1)
                m += 2
            if m < pixels:
                g0 = get(g, at + m * g_row, some)
                s0, t0 = add(s0, g0), fma(g0, get(y, to + m * row, some), t0)
        r = get(scale, v, some)
        constant_part, along_y = multiply(r, add(s0, s1)), multiply(r, add(t0, t1))
        if pulled:
            along_y = fma(multiply(get(pull, v, some), r), r, along_y)
        for n in range(images):
            at, to, share = n * g_image + v, n * pixels * row + v, everywhere(shares, n)
            b, c = multiply(share, constant_part), multiply(share, along_y)
            for m in range(pixels):
                value = fma(r, get(g, at + m * g_row, some), subtract(zero, b))
                value = subtract(value, multiply(c, get(y, to + m * row, some)))
                put(out, to + m * row, value, some)


@njit
def normalise_second(
    q: Pointer, g: Pointer, g_image: int, g_row: int, y: Pointer, row: int, scale: Pointer, shares: Pointer,
    images: int, pixels: int, channels: int, d_g: Pointer, d_y: Pointer, d_scale: Pointer,
) -> None:  # fmt: skip
    """The derivative of `normalise_pullback` (without ``pull``) for upstream q: with S(f) = sum f, A(f) = sum w f

    d_g = r (q - A(q) - A(q y) y),   d_y = -r (w q S(g y) + A(q y) g),   d_r = S(q g) - A(q) S(g) - A(q y) S(g y).

    All but g are laid out as y is, ``row`` numbers from pixel to pixel; q may be the memory of d_g.
    """
    for v in range(0, channels, lanes(y)):
        some = min(lanes(y), channels - v)
        zero = constant(y, 0.0)
        sum_g = sum_gy = sum_qg = mean_q = mean_qy = zero
        for n in range(images):
            at, to = n * g_image + v, n * pixels * row + v
            s_q = s_qy = zero
            for m in range(pixels):
                g0, y0 = get(g, at + m * g_row, some), get(y, to + m * row, some)
                q0 = get(q, to + m * row, some)
                sum_g, sum_gy, sum_qg = add(sum_g, g0), fma(g0, y0, sum_gy), fma(q0, g0, sum_qg)
                s_q, s_qy = add(s_q, q0), fma(q0, y0, s_qy)
            share = everywhere(shares, n)
            mean_q, mean_qy = fma(s_q, share, mean_q), fma(s_qy, share, mean_qy)
        r = get(scale, v, some)
        d_r = subtract(subtract(sum_qg, multiply(mean_q, sum_g)), multiply(mean_qy, sum_gy))
        put(d_scale, v, d_r, some)
        negative = subtract(zero, r)
        shift, slope = multiply(negative, mean_q), multiply(negative, mean_qy)
        for n in range(images):
            at, to = n * g_image + v, n * pixels * row + v
            pull = multiply(multiply(everywhere(shares, n), negative), sum_gy)
            for m in range(pixels):
                q0, y0 = get(q, to + m * row, some), get(y, to + m * row, some)
                g0 = get(g, at + m * g_row, some)
                put(d_g, to + m * row, fma(slope, y0, fma(r, q0, shift)), some)
                put(d_y, to + m * row, fma(slope, g0, multiply(pull, q0)), some)
