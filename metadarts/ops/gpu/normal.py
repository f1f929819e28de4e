"""What the pullback of a normalisation, gu = r (g - w (S(g) + y S(g y))), needs of all pixels of a group."""

from __future__ import annotations

import triton
import triton.language as tl

from .pixels import read
from .sums import store_row


@triton.jit
def pullback_sums(g, y, needed, parts, pixels, channels, programs, P: tl.constexpr, C: tl.constexpr, ACC: tl.constexpr):
    """A program's part of S(g) and S(g y): two rows of ``parts``; nothing where a group is not ``needed``."""
    group, program = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = tl.program_id(2) * C + tl.arange(0, C)
    in_c = c < channels
    if needed is not None:
        if tl.load(needed + group) == 0:
            return
    g += group * (pixels * channels)
    y += group * (pixels * channels)
    total = tl.zeros([P, C], ACC)
    total_y = tl.zeros([P, C], ACC)
    for start in range(program * P, pixels, programs * P):
        p = start + tl.arange(0, P)
        upstream = read(g, p, p < pixels, channels, c, in_c, ACC)
        total += upstream
        total_y += upstream * read(y, p, p < pixels, channels, c, in_c, ACC)
    parts += (group * programs + program) * (2 * channels)
    store_row(parts, 0, channels, c, in_c, tl.sum(total, 0))
    store_row(parts, 1, channels, c, in_c, tl.sum(total_y, 0))
