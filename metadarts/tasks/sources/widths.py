"""The built-in sources `widths` and `widths-strips`: generated images in which the right kernel is known.

A class is a pattern of 3x3 signs (strips: 7 in a row); all classes have equally many of each sign. In the domain
"width w" its taps lie w cells apart, so that an operation must span 2 w + 1 cells (strips: 6 w + 1) to see it whole;
copies of it lie anywhere among patterns of random signs whose taps are nearer to each other (those of width 1: single
taps) and under noise. The number of taps, their strength and their noise are the same in all domains. Training and
validation classes have the widths 1, 2 and 4; test classes, of other patterns, also 3 and 5: between and beyond. The
wider a pattern, the fewer places it may have: nearest class mean on pixels has 22, 27, 34, 44 and 69 % of 5 classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import DataError
from metadarts.core.progress import Watch, tell_images
from metadarts.core.rng import Key
from metadarts.tasks.images.reform import reformed
from metadarts.tasks.source import SPLITS, ClassEntry, Source

WIDTHS = (1, 2, 3, 4, 5)
SEEN = (1, 2, 4)
"""Widths of training and validation classes."""
MEAN, STD = 0.5, 0.25
"""About what images have, in all domains."""
STRIP = 8
"""Height of a strip in pixels."""
IMAGES = 24
"""Of each class."""


@dataclass(frozen=True)
class Drawing:
    """How an image is drawn.

    Args:
        flat: whether a pattern is a row, and every row of the image the same signal.
        cells: side of the image in cells, of a strip its length.
        pixels: side of a cell in pixels.
        copies: of the class's pattern.
        others: patterns of the same signs in random places.
        strength: of a tap, in units of the brightness range.
        noise: standard deviation of a pixel, in the same units.
        patterns: number of training, validation and test patterns; no two are equal.
    """

    flat: bool = False
    cells: int = 16
    pixels: int = 2
    copies: int = 5
    others: int = 3
    strength: float = 0.35
    noise: float = 0.1
    patterns: tuple[int, int, int] = (64, 20, 32)

    @property
    def taps(self) -> tuple[int, int]:
        """Rows and columns of a pattern."""
        return (1, 7) if self.flat else (3, 3)


def widths(drawing: Drawing, name: str = "widths", progress: Watch | None = None) -> Source:
    """The source, drawn from a fixed seed.

    Args:
        progress: reports the images drawn.
    """
    key = Key.from_seed(0).child(name)
    signs = _signs(key.child("patterns").numpy(), sum(drawing.patterns), drawing)
    patterns = dict(zip(SPLITS, np.split(signs, np.cumsum(drawing.patterns)[:-1]), strict=True))
    images: list[NDArray[np.uint8]] = []
    classes: list[ClassEntry] = []
    numbers: dict[str, list[int]] = {of: [] for of in SPLITS}
    total = IMAGES * sum(len(bank) * len(_widths_of(of)) for of, bank in patterns.items())
    for of, bank in patterns.items():
        for width in _widths_of(of):
            for number, pattern in enumerate(bank):
                bits = key.child(of, width, number).numpy()
                first = IMAGES * len(images)
                images.append(_images(bits, pattern, width, drawing))
                numbers[of].append(len(classes))
                rows = np.arange(first, first + IMAGES, dtype=np.int64)
                classes.append(ClassEntry(f"{of} pattern {number} width {width}", rows, domain=f"width {width}"))
            tell_images(progress, IMAGES * len(images), total)
    split = {of: tuple(found) for of, found in numbers.items()}
    return Source(name, np.concatenate(images), tuple(classes), split)


def _widths_of(split: str) -> tuple[int, ...]:
    return WIDTHS if split == "test" else SEEN


def _signs(bits: np.random.Generator, count: int, drawing: Drawing) -> NDArray[np.int64]:
    """[count, rows, columns] of -1 and 1, none twice, all with equally many of each: brightness tells nothing."""
    size = drawing.taps[0] * drawing.taps[1]
    every = 2 * ((np.arange(2**size)[:, None] >> np.arange(size)) & 1) - 1
    every = every[every.sum(1) == -1]
    return np.asarray(every[bits.permutation(len(every))[:count]]).reshape(count, *drawing.taps)


def _images(bits: np.random.Generator, pattern: NDArray[np.int64], width: int, drawing: Drawing) -> NDArray[np.uint8]:
    """[IMAGES, 1, H, W] of one class."""
    side = 1 if drawing.flat else drawing.cells
    cells = np.zeros((IMAGES, side, drawing.cells))
    for image in cells:
        for _ in range(drawing.copies):
            _paste(bits, image, pattern, width)
        for _ in range(drawing.others):
            random = bits.permutation(pattern.ravel()).reshape(pattern.shape)
            _paste(bits, image, random, int(bits.integers(1, width)) if width > 1 else 0)
    cells = 0.5 + drawing.strength * np.clip(cells, -1, 1)
    pixels = cells.repeat(drawing.pixels, 2).repeat(STRIP if drawing.flat else drawing.pixels, 1)
    pixels = pixels + drawing.noise * bits.standard_normal(pixels.shape)
    return np.asarray(np.round(255 * np.clip(pixels, 0, 1)), dtype=np.uint8)[:, None]


def _paste(bits: np.random.Generator, image: NDArray[np.float64], signs: NDArray[np.int64], apart: int) -> None:
    """Add taps that lie ``apart`` cells from each other, somewhere; 0: each anywhere."""
    rows, columns = signs.shape
    height, width = image.shape
    if not apart:
        places = (bits.integers(0, height, signs.shape), bits.integers(0, width, signs.shape))
    else:
        top, left = (int(bits.integers(0, n - (k - 1) * apart)) for n, k in ((height, rows), (width, columns)))
        grid = np.meshgrid(top + apart * np.arange(rows), left + apart * np.arange(columns), indexing="ij")
        places = (grid[0], grid[1])
    np.add.at(image, places, signs)


def _opened(
    name: str, drawing: Drawing, place: Path | None, size: int = 0, channels: int = 0, progress: Watch | None = None
) -> Source:
    if place is not None:
        raise DataError(f"{name} is built in, expected no place, got {place}: leave --data-root out")
    source = reformed(widths(drawing, name, progress), size, channels, progress)
    return replace(source, mean=(MEAN,) * source.channels, std=(STD,) * source.channels)


SOURCE = {
    "widths": partial(_opened, "widths", Drawing()),
    "widths-strips": partial(
        _opened, "widths-strips", Drawing(flat=True, cells=32, copies=2, others=3, patterns=(16, 6, 10))
    ),
}
