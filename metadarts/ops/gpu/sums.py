"""Sums over the pixels of a group, of which each program holds a part: batch statistics and the like.

A program writes its part to a buffer [groups, programs, rows, channels]; the next kernel reads all parts and joins
them in a fixed order, so that the same numbers give the same bits. Moments are three rows: weight, mean, and the
weighted sum of squares about that mean, which join without the cancellation of a difference of squares (Chan, Golub
and LeVeque, 1983).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def merge_moments(weight, mean, spread, values, share):
    """Moments [C], [C], [C] joined with those of a tile: values [P, C], share [P], zero where there is no pixel."""
    more = tl.sum(share, 0)
    centre = tl.sum(values * share[:, None], 0) / tl.maximum(more, 1e-30)
    off = values - centre[None, :]
    own = tl.sum(off * off * share[:, None], 0)
    total = weight + more
    part = more / tl.maximum(total, 1e-30)
    step = centre - mean
    return total, mean + step * part, spread + own + step * step * weight * part


@triton.jit
def store_row(base, row: tl.constexpr, channels, c, inside, values):
    """Write row ``row`` [C] of one program's part, whose first element is at ``base``."""
    tl.store(base + row * channels + c, values, mask=inside)


@triton.jit
def store_moments(base, channels, c, inside, weight, mean, spread):
    """Write one program's moments, as `moments_of_parts` reads them."""
    store_row(base, 0, channels, c, inside, weight)
    store_row(base, 1, channels, c, inside, mean)
    store_row(base, 2, channels, c, inside, spread)


@triton.jit
def sum_of_parts(base, row: tl.constexpr, rows: tl.constexpr, programs, PROGRAMS: tl.constexpr, channels, c, inside):
    """Row ``row`` summed over a group's programs, [C]; ``base`` is the group's first element."""
    p = tl.arange(0, PROGRAMS)
    at = (p[:, None] * rows + row) * channels + c[None, :]
    return tl.sum(tl.load(base + at, mask=(p[:, None] < programs) & inside[None, :], other=0.0), 0)


@triton.jit
def moments_of_parts(base, programs, PROGRAMS: tl.constexpr, channels, c, inside):
    """(mean [C], variance [C]) of a group from its programs' moments (rows weight, mean, spread)."""
    p = tl.arange(0, PROGRAMS)
    mask = (p[:, None] < programs) & inside[None, :]
    at = p[:, None] * 3 * channels + c[None, :]
    weight = tl.load(base + at, mask=mask, other=0.0)
    mean = tl.load(base + at + channels, mask=mask, other=0.0)
    spread = tl.load(base + at + 2 * channels, mask=mask, other=0.0)
    total = tl.maximum(tl.sum(weight, 0), 1e-30)
    centre = tl.sum(weight * mean, 0) / total
    off = mean - centre[None, :]
    return centre, (tl.sum(spread, 0) + tl.sum(weight * off * off, 0)) / total
