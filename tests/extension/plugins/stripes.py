"""A source of one's own: grey images of stripes; a class is an angle and a spacing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from metadarts.core.progress import Watch
from metadarts.core.rng import Key
from metadarts.tasks import ClassEntry, Source

CLASSES, IMAGES, SIDE = 30, 12, 16


def _image(number: int, image: int) -> np.ndarray:
    """[1, SIDE, SIDE] uint8."""
    draw = Key(("stripes", str(number), str(image))).numpy()
    angle, spacing = np.pi * (number % 10) / 10, 3 + number // 10
    y, x = np.mgrid[:SIDE, :SIDE]
    waves = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / spacing + draw.uniform(0, 6))
    return np.clip(127 + 90 * waves + draw.normal(0, 20, waves.shape), 0, 255).astype(np.uint8)[None]


def stripes(place: Path | None, size: int = 0, channels: int = 0, progress: Watch | None = None) -> Source:
    """The source; nothing is read from ``place``, and the size is its own."""
    images = np.stack([_image(number, image) for number in range(CLASSES) for image in range(IMAGES)])
    classes = tuple(
        ClassEntry(f"stripes {number}", np.arange(number * IMAGES, (number + 1) * IMAGES)) for number in range(CLASSES)
    )
    split = {name: tuple(range(first, CLASSES, 3)) for first, name in enumerate(("train", "val", "test"))}
    return Source("stripes", images, classes, split)


SOURCE = stripes
