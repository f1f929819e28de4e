"""The look-alike rule: which candidate characters become classes, so that no two classes can be mistaken by pixels.

Two characters are close when either of these holds for ANY drawing of the one and ANY drawing of the other, over all
the fonts that have them, undistorted and centred:

- as printed: both scaled to one size, their correlation is at least `AS_PRINTED` (Latin A, Greek Alpha, Cyrillic A);
- stretched: both stretched to a square, the one not of the training split leaning by -LEAN, 0 or LEAN as well, their
  correlation is at least `STRETCHED` (Tifinagh yadd and the slanted, narrower number sign). Asked only of pairs that
  are not both training characters.

From the candidates in order, three steps choose the classes:

1. train: a character that is close to a class already kept is dropped;
2. test: dropped when close to any training candidate (even a dropped one) or to a test class already kept;
3. val: likewise, against training candidates, test classes and validation classes.

All sums are of small whole numbers, which float32 holds exactly, so the choice is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from metadarts.tasks.glyph.jitter import draw_plain
from metadarts.tasks.glyph.outlines import Ints, Outline

Float32s = NDArray[np.float32]
Bools = NDArray[np.bool_]

AS_PRINTED = 0.90
"""By eye, pairs above 0.91 are the same character in two fonts, pairs from 0.90 to 0.91 can be confused, and nearly all
pairs below 0.88 are plainly different."""
STRETCHED = 0.91
LEAN = 0.2
"""Sideways shift per height of a leaning drawing."""

_PLAIN, _PLAIN_BOX = 24, 20.0  # pixels of the drawings compared, and of the character inside
_COARSE = 12  # drawings are averaged to this size, so that a pixel's shift of an edge does not matter
_SHADES = 15
_CELLS = _COARSE * _COARSE
_LEAST_SIDE = 0.35  # strokes thinner than this part of their length are not stretched to a full square
_BLOCK = 16  # characters compared at once: keeps the product within the processor's caches

FontOutlines = Sequence[Sequence[Outline]]
"""Character by character, its outline in each font."""


@dataclass(frozen=True, eq=False)
class Drawings:
    """Coarse drawings of K characters, character by character.

    Args:
        shades: [D, 144] float32 whole numbers 0..15.
        starts: [K] the first drawing of each character.
    """

    shades: Float32s
    starts: Ints

    @property
    def ends(self) -> Ints:
        return np.append(self.starts[1:], len(self.shades))


def plain_drawings(characters: FontOutlines) -> Drawings:
    """Undistorted drawings of all fonts."""
    flat = list(chain.from_iterable(characters))
    drawn = np.concatenate([draw_plain(flat[i : i + 64], _PLAIN, _PLAIN_BOX) for i in range(0, len(flat), 64)])
    fine = _PLAIN // _COARSE
    sums = drawn.reshape(-1, _COARSE, fine, _COARSE, fine).astype(np.int32).sum((2, 4))
    full = 255 * fine * fine
    shades = ((sums * _SHADES + full // 2) // full).reshape(-1, _CELLS).astype(np.float32)
    counts = np.array([len(outlines) for outlines in characters], dtype=np.int64)
    return Drawings(shades, np.cumsum(counts) - counts)


def stretched_drawings(characters: FontOutlines, lean: float = 0.0) -> Drawings:
    """Drawings of all fonts, leaning by ``lean`` and then stretched to a square."""
    return plain_drawings([[_stretch(outline, lean) for outline in outlines] for outlines in characters])


def _stretch(outline: Outline, lean: float) -> Outline:
    points = outline.points.copy()
    points[:, 0] += lean * points[:, 1]
    low, high = points.min(0), points.max(0)
    sides = high - low
    return replace(outline, points=(points - (low + high) / 2) / np.maximum(sides, _LEAST_SIDE * sides.max()))


def likeness(left: Drawings, right: Drawings) -> Float32s:
    """[K, L] the greatest correlation between a drawing of a character on the left and one on the right."""
    count, ends = len(left.starts), left.ends
    (sums, inverse), (others, other_inverse) = _moments(left.shades), _moments(right.shades)
    alike = np.empty((count, len(right.starts)), dtype=np.float32)
    for first in range(0, count, _BLOCK):
        begin, end = left.starts[first], ends[min(first + _BLOCK, count) - 1]
        product = left.shades[begin:end] @ right.shades.T
        product *= _CELLS
        product -= sums[begin:end, None] * others
        product *= inverse[begin:end, None]
        product *= other_inverse
        columns = np.maximum.reduceat(product, right.starts, axis=1)
        rows = left.starts[first : first + _BLOCK] - begin
        alike[first : first + _BLOCK] = np.maximum.reduceat(columns, rows, axis=0)
    return alike


def _moments(shades: Float32s) -> tuple[Float32s, Float32s]:
    """[D] sums and [D] inverse standard deviations (both times constants that cancel in `likeness`)."""
    sums = shades.sum(1)
    spread = _CELLS * (shades * shades).sum(1) - sums * sums
    return sums, 1 / np.sqrt(np.maximum(spread, 1))  # a drawing without any contrast correlates with nothing


def close_pairs(characters: FontOutlines, split: NDArray[np.str_]) -> Bools:
    """[K, K] which characters are close, by the two tests above; ``split`` [K] is 'train', 'val' or 'test'."""
    plain = plain_drawings(characters)
    close = likeness(plain, plain) >= AS_PRINTED
    trained = split == "train"
    open_to = np.flatnonzero(~trained & ~close[:, trained].any(1))  # the others are out already
    if len(open_to):
        square = stretched_drawings(characters)
        for lean in (-LEAN, 0.0, LEAN):
            leaning = stretched_drawings([characters[number] for number in open_to.tolist()], lean)
            close[open_to] |= likeness(leaning, square) >= STRETCHED
    return close | close.T


def select(close: Bools, split: NDArray[np.str_]) -> Bools:
    """[K] which characters become classes, by the three steps above; ``close`` [K, K] is symmetric."""
    kept = np.zeros(len(split), dtype=np.bool_)
    trained = split == "train"
    for name in ("train", "test", "val"):
        for number in np.flatnonzero(split == name):
            rivals = kept if name == "train" else kept | trained
            kept[number] = not (close[number] & rivals).any()
    return kept
