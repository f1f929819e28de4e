"""From polygons to pixels: non-zero winding, sampled on a fine grid and averaged. Exact: the same on every machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metadarts.tasks.glyph.outlines import Floats, Ints

FINE = 4
"""Samples per pixel along each axis; a pixel is one of FINE * FINE + 1 shades."""


def rasterise(starts: Floats, ends: Floats, image: Ints, count: int, size: int) -> NDArray[np.uint8]:
    """Fill polygons by the non-zero winding rule; a pixel's value is 255 times the part of it that is ink.

    Args:
        starts, ends: [E, 2] the sides of all polygons in pixels, x to the right and y down from the upper left corner.
        image: [E] which image each side belongs to, in ``range(count)``.
        count: images to draw.
        size: their height and width in pixels.

    Returns [count, size, size] uint8.
    """
    grid = size * FINE
    row, column, sign, owner = _crossings(starts * FINE, ends * FINE, image, grid)
    # One extra column takes the crossings to the right of the picture, which change nothing inside it.
    flat = (owner * grid + row) * (grid + 1) + column
    change = np.bincount(flat, weights=sign, minlength=count * grid * (grid + 1))
    winding = np.cumsum(change.astype(np.int16).reshape(count, grid, grid + 1), axis=2, dtype=np.int16)
    ink = (winding[:, :, :grid] != 0).view(np.uint8)
    across = sum(ink[:, :, i::FINE] for i in range(1, FINE)) + ink[:, :, ::FINE]  # far faster than .sum over short axes
    covered = (sum(across[:, i::FINE] for i in range(1, FINE)) + across[:, ::FINE]).astype(np.int32)
    shade: NDArray[np.int32] = (covered * 255 + FINE * FINE // 2) // (FINE * FINE)
    return shade.astype(np.uint8)


def _crossings(starts: Floats, ends: Floats, image: Ints, grid: int) -> tuple[Ints, Ints, Floats, Ints]:
    """Where the sides cross the middle lines of the fine rows: row, first column to the right, +1 or -1, image."""
    down = ends[:, 1] > starts[:, 1]
    upper, lower = np.where(down[:, None], starts, ends), np.where(down[:, None], ends, starts)
    first = np.clip(np.ceil(upper[:, 1] - 0.5), 0, grid).astype(np.int64)
    beyond = np.clip(np.ceil(lower[:, 1] - 0.5), 0, grid).astype(np.int64)
    rows = np.maximum(beyond - first, 0)
    side = np.repeat(np.arange(len(rows)), rows)
    row = np.arange(len(side)) - np.repeat(np.cumsum(rows) - rows, rows) + first[side]
    slope = (lower[:, 0] - upper[:, 0]) / np.maximum(lower[:, 1] - upper[:, 1], 1e-12)
    x = upper[side, 0] + (row + 0.5 - upper[side, 1]) * slope[side]
    column = np.clip(np.ceil(x - 0.5), 0, grid).astype(np.int64)
    return row, column, np.where(down, 1.0, -1.0)[side], image[side]
