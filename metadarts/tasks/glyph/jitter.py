"""Distorted copies of an outline: stroke width, a smooth elastic bend, and an affine map, in that order.

Uniform numbers come from the raw bits of a `Key`, and all arithmetic is elementwise with square roots only, so a copy
is the same to the last bit on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metadarts.core.rng import Key
from metadarts.tasks.glyph.outlines import Floats, Ints, Outline
from metadarts.tasks.glyph.raster import rasterise

SIZE = 28
"""Height and width of a glyph image in pixels."""
BOX = 20.0
"""Pixels that the larger side of an undistorted character takes."""


@dataclass(frozen=True)
class Jitter:
    """How far copies stray. Each amount is the greatest; draws are uniform up to it.

    Args:
        turn: tangent of the rotation angle, either way.
        shear: sideways shift per height, either way.
        shrink: part of the size lost, along each axis on its own.
        shift: pixels moved, along each axis, either way.
        bend: elastic displacement of the 4 x 4 control grid, part of the character's larger side, either way.
        thin, thick: change of stroke half-width, part of the character's larger side.
    """

    turn: float = 0.30
    shear: float = 0.25
    shrink: float = 0.30
    shift: float = 2.0
    bend: float = 0.18
    thin: float = 0.006
    thick: float = 0.03


NUMBERS_PER_COPY = 1 + 2 * 16 + 6


def uniforms(key: Key, count: int) -> Floats:
    """``count`` numbers in [0, 1) from the key's raw bits."""
    return (key.bits().random_raw(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def distort(outline: Outline, draws: Floats, jitter: Jitter) -> Floats:
    """Corner positions in pixels, [P, V, 2], of P copies.

    Args:
        outline: V corners.
        draws: [P, NUMBERS_PER_COPY] uniform in [0, 1).
    """
    both = 2 * draws - 1
    grow = -jitter.thin + (jitter.thin + jitter.thick) * draws[:, :1, None]
    points = outline.points + grow * outline.outward
    points = points + jitter.bend * _bend(points, both[:, 1:33].reshape(-1, 2, 4, 4))
    turn, shear = jitter.turn * both[:, 33, None], jitter.shear * both[:, 34, None]
    wide, high = 1 - jitter.shrink * draws[:, 35, None], 1 - jitter.shrink * draws[:, 36, None]
    x, y = points[..., 0] * wide, points[..., 1] * high
    x = x + shear * y
    norm = np.sqrt(1 + turn * turn)
    turned = np.stack([(x - turn * y) / norm, (turn * x + y) / norm], -1)
    return turned * BOX + SIZE / 2 + jitter.shift * both[:, None, 37:39]


def _bend(points: Floats, control: Floats) -> Floats:
    """A smooth displacement field: bicubic Bernstein weights of ``control`` [P, 2, 4, 4] at ``points`` [P, V, 2]."""
    across, down = _bernstein(points[..., 0] + 0.5), _bernstein(points[..., 1] + 0.5)
    moved = np.zeros_like(points)
    for i in range(4):
        for j in range(4):
            weight = across[i] * down[j]
            for axis in range(2):
                moved[..., axis] += weight * control[:, axis, i, j, None]
    return moved


def _bernstein(t: Floats) -> list[Floats]:
    t = np.clip(t, 0, 1)
    s = 1 - t
    return [s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t]


def draw_copies(outlines: list[Outline], key: Key, copies: int, jitter: Jitter) -> tuple[NDArray[np.uint8], Ints]:
    """``copies`` distorted images of each outline: [len(outlines) * copies, SIZE, SIZE] uint8, and whose each is."""
    count = len(outlines) * copies
    starts, ends, image = [], [], []
    for number, outline in enumerate(outlines):
        draws = uniforms(key.child(number), copies * NUMBERS_PER_COPY).reshape(copies, -1)
        corners = distort(outline, draws, jitter)
        starts.append(corners.reshape(-1, 2))
        ends.append(corners[:, outline.after].reshape(-1, 2))
        image.append(np.repeat(np.arange(number * copies, (number + 1) * copies), corners.shape[1]))
    pixels = rasterise(np.concatenate(starts), np.concatenate(ends), np.concatenate(image), count, SIZE)
    return pixels, np.repeat(np.arange(len(outlines)), copies)


def draw_plain(outlines: list[Outline], size: int, box: float) -> NDArray[np.uint8]:
    """Undistorted images [len(outlines), size, size] uint8, the larger side of each character ``box`` pixels."""
    image = np.repeat(np.arange(len(outlines)), [len(outline.points) for outline in outlines])
    corners = [outline.points * box + size / 2 for outline in outlines]
    after = [corner[outline.after] for corner, outline in zip(corners, outlines, strict=True)]
    return rasterise(np.concatenate(corners), np.concatenate(after), image, len(outlines), size)
