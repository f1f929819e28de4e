"""Pixels of a group of images, [N, H, W, C] in packed memory, read and written by tiles [P, C]."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def place_of(p, high, wide):
    """Image, row and column [P] of pixels p [P]."""
    n = p // (high * wide)
    rest = p - n * (high * wide)
    row = rest // wide
    return n, row, rest - row * wide


@triton.jit
def read(group, at, inside, channels, c, in_c, ACC: tl.constexpr):
    """Pixels ``at`` [P] of ``group``, channels c: [P, C], zero where not inside."""
    mask = inside[:, None] & in_c[None, :]
    return tl.load(group + at[:, None] * channels + c[None, :], mask=mask, other=0.0).to(ACC)


@triton.jit
def write(group, at, inside, channels, c, in_c, values):
    """Pixels ``at`` [P] of ``group``, channels c, set to values [P, C]."""
    tl.store(group + at[:, None] * channels + c[None, :], values, mask=inside[:, None] & in_c[None, :])
