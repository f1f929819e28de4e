"""Decoded images kept in the cache folder, read from there as a memory-mapped file that need not fit in memory."""

from __future__ import annotations

import logging
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from metadarts.core.progress import Watch, tell_images
from metadarts.store.files import default_cache
from metadarts.tasks import cache

Blocks = Callable[[], Iterator[NDArray[np.uint8]]]

CHECKED_BYTES = 4 * 2**30
"""Files up to this size are read and checked whole when they are opened (4 GB/s); larger ones by their length only,
which is enough against a power cut, since `cache.whole_file` has content on the disk before it has a name."""

_ROWS_AT_ONCE = 1024
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images and what a mean and a standard deviation are computed from.

    Args:
        images: [M, C, H, W] uint8.
        moments: [M, C, 2] int64, for each image and channel the sum of its pixels and the sum of their squares.
    """

    images: NDArray[np.uint8]
    moments: NDArray[np.int64]


def moments(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """[M, C, H, W] -> [M, C, 2], see `StoredImages`."""
    parts = [images[start : start + _ROWS_AT_ONCE] for start in range(0, len(images), _ROWS_AT_ONCE)]
    sums = [
        np.stack(
            [part.sum((2, 3), dtype=np.int64), np.square(part, dtype=np.uint16).sum((2, 3), dtype=np.int64)], axis=-1
        )
        for part in parts
    ]
    return np.concatenate(sums)


def mean_and_std(
    moments: NDArray[np.int64], rows: NDArray[np.int64], pixels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel, in units of [0, 1] brightness, over the images ``rows`` of ``pixels`` pixels each.

    Computed from whole numbers, so it is the same on every machine. A channel of one value has the std 1.
    """
    count = len(rows) * pixels
    totals = [(int(total), int(squares)) for total, squares in moments[rows].sum(0)]
    mean = tuple(total / (255 * count) for total, _ in totals)
    std = tuple((math.sqrt(count * squares - total * total) / (255 * count)) or 1.0 for total, squares in totals)
    return mean, std


def stored_images(name: str, key: str, count: int, blocks: Blocks, progress: Watch | None = None) -> StoredImages:
    """The images that ``blocks`` makes, from the cache where they are there and whole, else made and put there.

    A cache that cannot be written to costs memory and making them again.

    Args:
        name: start of the file's name, for people.
        key: hex digest of all that decides the pixels.
        count: M.
        blocks: makes the images, a few at a time: [m, C, H, W] uint8.
        progress: reports the images made, of M.
    """
    label = re.sub(r"[^\w.-]", "_", name)[:40]  # a data folder's name may be longer than a file's may
    path = default_cache() / "images" / f"{label}-{key[:32]}.npy"
    stored = _load(path, count)
    if stored is not None:
        return stored
    told = _telling(blocks, count, progress)
    try:
        _write(path, count, told())
    except OSError as error:
        _log.info("%s: not cached at %s: %s", name, path, error)
    else:
        stored = _load(path, count)
    if stored is None:
        images = np.concatenate(list(told()))
        stored = StoredImages(images, moments(images))
    return stored


def _telling(blocks: Blocks, count: int, progress: Watch | None) -> Blocks:
    def told() -> Iterator[NDArray[np.uint8]]:
        done = 0
        for block in blocks():
            yield block
            done += len(block)
            tell_images(progress, done, count)

    return told


def _write(path: Path, count: int, blocks: Iterable[NDArray[np.uint8]]) -> None:
    """The .npy file first, then its .npz file, without which it does not count. Raises OSError."""
    path.with_suffix(".npz").unlink(missing_ok=True)
    crc = 0
    sums: list[NDArray[np.int64]] = []
    with cache.whole_file(path) as stream:
        for block in blocks:
            if not sums:
                _write_header(stream, (count, *block.shape[1:]))
            data = np.ascontiguousarray(block).data
            stream.write(data)
            crc = zlib.crc32(data, crc)
            sums.append(moments(block))
    cache.write_npz(path.with_suffix(".npz"), {"moments": np.concatenate(sums), "crc32": np.array(crc)})


def _write_header(stream: IO[bytes], shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _load(path: Path, count: int) -> StoredImages | None:
    """What is in the cache, or None when there is none or it is damaged."""
    if not path.is_file():
        return None
    try:
        facts = cache.read_npz(path.with_suffix(".npz"))
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != count:
            raise ValueError(f"it holds {images.dtype} {list(images.shape)}")
        if facts["moments"].shape != (count, images.shape[1], 2):
            raise ValueError("its .npz file is of other images")
        if images.nbytes <= CHECKED_BYTES and _crc32(images) != facts["crc32"]:
            raise ValueError("its check sum does not match its content")
    except (cache.UnreadableFile, OSError, ValueError, KeyError, EOFError) as error:
        _log.info("%s is damaged (%s); making it anew", path, error)
        return None
    return StoredImages(images, facts["moments"])


def _crc32(images: NDArray[np.uint8]) -> int:
    crc = 0
    for start in range(0, len(images), _ROWS_AT_ONCE):
        crc = zlib.crc32(np.ascontiguousarray(images[start : start + _ROWS_AT_ONCE]).data, crc)
    return crc
