"""A source: labelled images and the classes of each split. Samplers draw episodes from it."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import DataError, nearest

Rows = NDArray[np.int64]
SPLITS = ("train", "val", "test")
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class ClassEntry:
    """One class of a source.

    Args:
        name: readable name, e.g. ``"GEORGIAN LETTER AN"`` or ``"Grantha/character01 rot090"``.
        rows: [R] int64, the image rows of the class.
        quarter_turns: counter-clockwise rotations by 90 degrees applied when an image is loaded, 0 to 3.
        domain: the classes of a task all come from one domain; empty in a source of one kind of images.
    """

    name: str
    rows: Rows
    quarter_turns: int = 0
    domain: str = ""


@dataclass(frozen=True, eq=False)
class Source:
    """Images, classes and splits. Two classes may share rows (the rotations of one character do).

    Args:
        name: short name of the data set.
        images: [M, C, H, W] uint8, may be a memory-mapped file; in line drawings ink is 255.
        classes: the classes of all splits.
        split: 'train', 'val', 'test' -> class numbers (positions in ``classes``); no class is in two splits.
        variety: [M] int, a further attribute of an image (its font, its drawer); the support and the query images of a
            class come from different varieties if the class has enough of them. None: no varieties.
        mean, std: per channel, in units of [0, 1] brightness; loaded images become ``(x - mean) / std``. None: they
            stay in [0, 1].

    Raises DataError when a field contradicts another.
    """

    name: str
    images: NDArray[np.uint8]
    classes: tuple[ClassEntry, ...]
    split: dict[str, tuple[int, ...]]
    variety: NDArray[np.int64] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        self._check_images()
        self._check_classes()
        self._check_split()

    @property
    def channels(self) -> int:
        return int(self.images.shape[1])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.images.shape[2]), int(self.images.shape[3])

    def class_numbers(self, split: str) -> tuple[int, ...]:
        """The class numbers of ``split``. Raises DataError when the source has no such split."""
        if split not in self.split:
            raise DataError(f"{self.name}: unknown split {split!r}; {nearest(split, self.split)}")
        return self.split[split]

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """The domains of the classes, in order of first appearance; those of every split."""
        return tuple(dict.fromkeys(entry.domain for entry in self.classes))

    def domain_classes(self, split: str) -> dict[str, tuple[int, ...]]:
        """domain -> its class numbers in ``split``; domains without classes there are left out. Raises DataError when
        the source has no such split."""
        found: dict[str, list[int]] = {domain: [] for domain in self.domains}
        for number in self.class_numbers(split):
            found[self.classes[number].domain].append(number)
        return {domain: tuple(numbers) for domain, numbers in found.items() if numbers}

    @cached_property
    def content_sha256(self) -> str:
        """Hex digest of everything that determines an episode's values: images, rows, rotations, domains, splits,
        varieties, mean and std."""
        digest = hashlib.sha256(repr(("metadarts source", self.images.shape, self.mean, self.std)).encode())
        for start in range(0, len(self.images), _ROWS_AT_ONCE):  # images may be a file larger than the memory
            digest.update(np.ascontiguousarray(self.images[start : start + _ROWS_AT_ONCE]).data)
        for entry in self.classes:
            digest.update(f"class {entry.quarter_turns} {len(entry.rows)} ".encode())
            digest.update(entry.rows.astype("<i8").tobytes())
        if len(self.domains) > 1:
            digest.update(f"domains {[entry.domain for entry in self.classes]}".encode())
        for split in sorted(self.split):
            digest.update(f"split {split} {self.split[split]}".encode())
        if self.variety is not None:
            digest.update(b"variety" + self.variety.astype("<i8").tobytes())
        return digest.hexdigest()

    def _check_images(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(
                f"{self.name}: images must be uint8 [M, C, H, W], given {self.images.dtype} {list(self.images.shape)}; "
                "convert them with numpy before building the source"
            )
        count = len(self.images)
        if self.variety is not None and self.variety.shape != (count,):
            raise DataError(f"{self.name}: variety must be [{count}], one per image, given {list(self.variety.shape)}")
        for field, value in (("mean", self.mean), ("std", self.std)):
            if value is not None and len(value) != self.channels:
                raise DataError(f"{self.name}: {field} needs {self.channels} numbers, one per channel, given {value}")
        if (self.mean is None) != (self.std is None) or (self.std is not None and min(self.std) <= 0):
            raise DataError(f"{self.name}: give mean and std together, std above 0; given {self.mean} and {self.std}")

    def _check_classes(self) -> None:
        height, width = self.size
        for entry in self.classes:
            rows = entry.rows
            if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer) or len(np.unique(rows)) != len(rows):
                raise DataError(f"{self.name}: rows of class {entry.name!r} must be a list of distinct row numbers")
            if len(rows) and not (0 <= rows.min() and rows.max() < len(self.images)):
                raise DataError(
                    f"{self.name}: rows of class {entry.name!r} must lie in 0..{len(self.images) - 1}, "
                    f"given {rows.min()}..{rows.max()}"
                )
            if entry.quarter_turns not in range(4) or (entry.quarter_turns % 2 and height != width):
                raise DataError(
                    f"{self.name}: class {entry.name!r} asks for {entry.quarter_turns} quarter turns; expected 0 to 3, "
                    f"and square images for odd ones (they are {height}x{width})"
                )

    def _check_split(self) -> None:
        unknown = set(self.split) - set(SPLITS)
        if unknown:
            raise DataError(f"{self.name}: unknown split {min(unknown)!r}; {nearest(min(unknown), SPLITS)}")
        uses = Counter(number for numbers in self.split.values() for number in numbers)
        for number, count in uses.items():
            if not 0 <= number < len(self.classes):
                raise DataError(f"{self.name}: splits name class {number}; there are {len(self.classes)} classes")
            if count > 1:
                raise DataError(
                    f"{self.name}: class {self.classes[number].name!r} is in {count} places of the splits; "
                    "splits must be disjoint, so that test classes are never trained on"
                )
