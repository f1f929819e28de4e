"""Whether images have a dark or a light background."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DARK, LIGHT = 64, 191
"""Brightness up to which a background counts as dark, and from which as light."""


def background(pixels: NDArray[np.uint8]) -> str:
    """ "dark" or "light" where the borders of most images are, else ""; for uint8 [n, C, H, W]."""
    border = np.concatenate(
        [pixels[:, :, edge].reshape(len(pixels), -1) for edge in (0, -1)]
        + [pixels[:, :, :, edge].reshape(len(pixels), -1) for edge in (0, -1)],
        axis=1,
    )
    low, high = np.percentile(np.median(border, axis=1), [10, 90])
    return "dark" if high <= DARK else "light" if low >= LIGHT else ""
