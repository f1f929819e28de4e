"""A source whose images are brought to another size or number of channels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import DataError
from metadarts.core.progress import Watch
from metadarts.tasks.images.pixels import fit_all
from metadarts.tasks.images.store import stored_images
from metadarts.tasks.source import Source

_VERSION = 1
_ROWS_AT_ONCE = 1024


def reformed(source: Source, size: int = 0, channels: int = 0, progress: Watch | None = None) -> Source:
    """``source`` with images of ``size`` x ``size`` pixels and ``channels`` channels, see `pixels.fit`; kept in the
    cache.

    Args:
        size: side in pixels; 0 as found.
        channels: 1 grey, 3 colour; 0 as found.
        progress: reports the images converted if they are not in the cache yet.

    Raises DataError for a source that is normalised, whose mean would be that of other images.
    """
    height, width = source.size
    if size in (0, height) and size in (0, width) and channels in (0, source.channels):
        return source
    if source.mean is not None:
        raise DataError(f"{source.name}: its images are normalised; open it with this size and these channels")
    digest = hashlib.sha256(repr((_VERSION, source.content_sha256, size, channels)).encode()).hexdigest()

    def blocks() -> Iterator[NDArray[np.uint8]]:
        for start in range(0, len(source.images), _ROWS_AT_ONCE):
            yield fit_all(source.images[start : start + _ROWS_AT_ONCE], size, channels)

    stored = stored_images(f"{source.name}-{size or height}", digest, len(source.images), blocks, progress)
    return replace(source, images=stored.images)
