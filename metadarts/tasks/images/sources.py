"""From classes of image files to a source: every file decoded once, then kept in the cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import DataError
from metadarts.core.progress import Watch
from metadarts.tasks.images.folders import FolderClass
from metadarts.tasks.images.pixels import BadImage, decode, fit, strict_pillow
from metadarts.tasks.images.store import StoredImages, mean_and_std, stored_images
from metadarts.tasks.source import SPLITS, ClassEntry, Source

IMAGES_VERSION = 2
"""Goes up whenever files would be decoded to other pixels; it is part of the cache's key."""

_FILES_AT_ONCE = 256


def source_of_files(
    name: str,
    root: Path,
    classes: Sequence[FolderClass],
    size: int,
    channels: int,
    copies: bool = False,
    progress: Watch | None = None,
) -> Source:
    """Decode the files of ``classes`` (their splits decided), normalised by the training classes' mean and std.

    Args:
        name: the source's name.
        root: the folder that the files' paths begin at.
        classes: in any order; the source's classes are sorted by split and name.
        size: side in pixels, see `pixels.fit`.
        channels: 1, 3, or 0 for as found.
        copies: whether a file may be in two splits.
        progress: reports the files read.

    Raises DataError naming the file that cannot be decoded, or that is a copy of one of another split.
    """
    ordered = sorted(classes, key=lambda entry: (SPLITS.index(entry.split), entry.name))
    files = [file for entry in ordered for file in entry.files]
    reader = _Reader(root, size, channels)
    split_of_file = [entry.split for entry in ordered for _ in entry.files]
    stored = stored_images(
        f"{name}-{size}",
        _key(root, files, split_of_file, (size, channels, copies)),
        len(files),
        lambda: reader.blocks(files, None if copies else split_of_file),
        progress,
    )
    return source_of_rows(name, stored, [(entry.split, entry.name, len(entry.files)) for entry in ordered])


def source_of_rows(name: str, stored: StoredImages, classes: Sequence[tuple[str, str, int]]) -> Source:
    """A source whose rows lie class after class.

    Args:
        name: the source's name.
        stored: the images.
        classes: (split, name, number of images) of each.

    Raises DataError when no image is for training.
    """
    ends = np.cumsum([count for _, _, count in classes])
    rows = np.split(np.arange(ends[-1], dtype=np.int64), ends[:-1])
    entries = tuple(ClassEntry(label, row) for (_, label, _), row in zip(classes, rows, strict=True))
    split = {of: tuple(number for number, (place, _, _) in enumerate(classes) if place == of) for of in SPLITS}
    mean, std = training_scale(name, stored, [rows[number] for number in split["train"]])
    return Source(name, stored.images, entries, split, mean=mean, std=std)


def training_scale(
    name: str, stored: StoredImages, training_rows: Sequence[NDArray[np.int64]]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the training images, see `mean_and_std`. Raises DataError when there are none."""
    rows = np.concatenate([np.zeros(0, dtype=np.int64), *training_rows])
    if not len(rows):
        raise DataError(f"{name}: the training classes have no images; put at least one class with images into train")
    return mean_and_std(stored.moments, rows, stored.images.shape[2] * stored.images.shape[3])


def _key(root: Path, files: Sequence[str], splits: Sequence[str], form: tuple[object, ...]) -> str:
    """All that decides the pixels, short of reading them: the files' places, sizes and times of change."""
    digest = hashlib.sha256(repr((IMAGES_VERSION, os.path.realpath(root), form)).encode())
    for file, split in zip(files, splits, strict=True):
        try:
            status = os.stat(root / file)
        except OSError as error:
            raise _unreadable(root / file, error) from error
        digest.update(repr((file, split, status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot read {path} ({error.strerror}); check its rights and those of its folder")


class _Reader:
    """Decodes files, and sees to it that all are grey or all colour and that no file is in two splits."""

    def __init__(self, root: Path, size: int, channels: int) -> None:
        self.root, self.size, self.channels = root, size, channels

    def blocks(self, files: Sequence[str], splits: Sequence[str] | None) -> Iterator[NDArray[np.uint8]]:
        """[m, C, H, W] for a few hundred files at a time; ``splits`` None: copies are not looked for."""
        first_channels = 0
        seen: dict[bytes, int] = {}
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(files), _FILES_AT_ONCE):
                with strict_pillow():
                    read = list(pool.map(self._read, files[start : start + _FILES_AT_ONCE]))
                first_channels = first_channels or read[0][0].shape[0]
                for number, (pixels, digest) in enumerate(read, start):
                    if pixels.shape[0] != first_channels:
                        raise self._mixed(files[0], files[number], first_channels)
                    if splits is not None:
                        other = seen.setdefault(digest, number)
                        self._check_copy(files[other], files[number], splits[other], splits[number])
                yield np.stack([pixels for pixels, _ in read])

    def _read(self, file: str) -> tuple[NDArray[np.uint8], bytes]:
        path = self.root / file
        try:
            content = path.read_bytes()
            return fit(decode(content), self.size, self.channels), hashlib.sha256(content).digest()[:16]
        except OSError as error:
            raise _unreadable(path, error) from error
        except BadImage as error:
            raise DataError(f"cannot decode the image {path}: {error}; fetch it again or remove it") from error

    def _mixed(self, first: str, other: str, channels: int) -> DataError:
        grey, colour = (first, other) if channels == 1 else (other, first)
        return DataError(
            f"{self.root}: {grey} is grey and {colour} is in colour; "
            "--set tasks.channels=1 or --set tasks.channels=3 converts all to one kind"
        )

    def _check_copy(self, first: str, other: str, first_split: str, other_split: str) -> None:
        if first_split != other_split:
            raise DataError(
                f"{self.root}: {first} ({first_split}) and {other} ({other_split}) are the same file, byte by byte; "
                "an image may be in one split only: remove one of the two"
            )
