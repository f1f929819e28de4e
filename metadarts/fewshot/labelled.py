"""Labelled images as people have them on disk, and which of them are held out."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import DataError
from metadarts.core.rng import Key
from metadarts.core.text import visible
from metadarts.store.schema import require_printable
from metadarts.tasks import labelled as labelled_npz
from metadarts.tasks.images.folders import classes_in, split_names_in

FORMS = "a folder of class folders, a .csv file of lines path,label, or an .npz file of images and label"
HEADER = (
    ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "name"),
    ("label", "labels", "class", "class_name", "category", "target"),
)
"""What the columns may be called."""


@dataclass(frozen=True)
class Labelled:
    """Images and their classes.

    Args:
        images: what `to_pixels` takes, one entry each.
        names: what a person calls each image.
        classes: the names, sorted.
        labels: [n] int64 places in ``classes``.
    """

    images: Sequence[Any]
    names: Sequence[str]
    classes: tuple[str, ...]
    labels: NDArray[np.int64]

    @cached_property
    def contents(self) -> list[bytes]:
        """A digest of every image as it was given: equal for copies of a file, and for equal arrays."""
        return [_digest(image) for image in self.images]

    def take(self, rows: NDArray[np.int64]) -> Labelled:
        """The images ``rows``, the classes as they are."""
        images, names = ([part[row] for row in rows] for part in (self.images, self.names))
        return Labelled(images, names, self.classes, self.labels[rows])


def read_labelled(path: Path) -> Labelled:
    """Read ``path``: one of `FORMS`. Raises DataError."""
    try:
        if path.is_dir():
            return _from_folder(path)
        if path.is_file() and path.suffix.lower() == ".csv":
            return _from_csv(path)
        if path.is_file() and path.suffix.lower() == ".npz":
            return _from_npz(path)
        there = path.exists()
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error}); check its name and its rights") from error
    except ValueError as error:  # a name with a zero byte
        raise DataError(f"cannot read {str(path)!r} ({error})") from error
    raise DataError(f"{path}: {'not' if there else 'there is nothing; expected'} {FORMS}")


def _from_folder(path: Path) -> Labelled:
    if splits := split_names_in(path):
        raise DataError(
            f"{path}: its folders {', '.join(splits)} look like splits, not classes: give one of them, such as "
            f"{path / splits[0]}"
        )
    found = classes_in(path)
    if not found:
        raise DataError(f"{path}: expected one folder of images for each class, found no image in any folder of it")
    files = [(entry.name, file) for entry in found for file in entry.files]
    return _sorted([path / file for _, file in files], [file for _, file in files], [name for name, _ in files])


def _from_csv(path: Path) -> Labelled:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file, strict=True) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path} as a .csv file ({error}); expected lines path,label") from error
    if (
        rows
        and len(rows[0]) == len(HEADER)
        and all(cell.strip().lower() in known for cell, known in zip(rows[0], HEADER, strict=True))
    ):
        rows = rows[1:]
    for number, row in enumerate(rows, 1):
        if len(row) != len(HEADER) or not all(cell.strip() for cell in row):
            raise DataError(f"{path}: image {number} is the line {','.join(row)[:80]!r}; expected path,label")
    if not rows:
        raise DataError(f"{path} names no image; expected lines path,label")
    files = [row[0].strip() for row in rows]
    places = [os.path.normpath(path.parent / file) for file in files]
    if len(set(places)) < len(places):
        twice = next(file for file, place in zip(files, places, strict=True) if places.count(place) > 1)
        raise DataError(f"{path} names the image {twice} twice: name it once, or it is learnt from and measured on")
    return _sorted([path.parent / file for file in files], files, [row[1].strip() for row in rows])


def _from_npz(path: Path) -> Labelled:
    images, classes, number = labelled_npz(path)
    used = np.unique(number)
    names = [f"image {place}" for place in range(len(images))]
    return _sorted(list(images), names, [classes[label] for label in number]) if len(used) else _sorted([], [], [])


def _sorted(images: Sequence[Any], names: Sequence[str], of: Sequence[str]) -> Labelled:
    classes = tuple(sorted(set(of)))
    require_printable(classes)
    place = {name: label for label, name in enumerate(classes)}
    return Labelled(images, names, classes, np.array([place[name] for name in of], dtype=np.int64))


def hold_out(labelled: Labelled, share: float, shots: int | None, seed: int) -> tuple[Labelled, Labelled]:
    """The images to learn from, and those only to be looked at, drawn class by class. Copies of an image stay together.

    Args:
        labelled: all images.
        share: of each class to hold out, 0 to below 1, rounded, but at least one image; at least one is learnt from, so
            that a class of a single image is not measured.
        shots: learn from so many of each class, and hold out the rest; None for ``share``.
        seed: of the draw.

    Raises:
        DataError: when a class has fewer images than ``shots`` and one more, or no class has any to hold out.
    """
    if not 0 <= share < 1:
        raise DataError(f"expected a share from 0 to below 1 to hold out, got {share}")
    learnt, held = [], []
    for label, name in enumerate(labelled.classes):
        rows = np.flatnonzero(labelled.labels == label)
        rows = rows[Key.from_seed(seed).child("held out", name).permutation(len(rows))]
        if shots is not None:
            count = len(rows) - shots
        else:
            count = min(len(rows) - 1, max(1, len(rows) - round(len(rows) * (1 - share)))) if share else 0
        if shots is not None and count < 1:
            raise DataError(
                f"class {name!r} has {len(rows)} image(s): with {shots} to learn from none is left to measure on; "
                "add images, or lower --shots"
            )
        chosen = np.zeros(len(rows), dtype=np.bool_)
        if count:
            chosen = _without_split_copies(rows, labelled.contents, count, 1 if shots is None else shots)
        held.append(rows[chosen])
        learnt.append(rows[~chosen])
    if share and shots is None and not any(map(len, held)):
        raise DataError(
            "every class has one image, copies aside: none is left to measure on; add images, or give --held-out 0"
        )
    return tuple(labelled.take(np.sort(np.concatenate(part))) for part in (learnt, held))  # type: ignore[return-value]


def _without_split_copies(
    rows: NDArray[np.int64], content: Sequence[bytes], count: int, least: int
) -> NDArray[np.bool_]:
    """Which of ``rows`` to hold out: about the first ``count``, each with its copies, so that ``least`` rows are left.

    Groups of copies that are too large for what is to be held out are learnt from, unless there are no smaller ones.
    """
    chosen = np.zeros(len(rows), dtype=np.bool_)
    groups: dict[bytes, list[int]] = {}
    for place, row in enumerate(rows.tolist()):
        groups.setdefault(content[row], []).append(place)
    for own in groups.values():
        if chosen.sum() + len(own) <= min(count, len(rows) - least):
            chosen[own] = True
    if not chosen.any():
        smallest = min(groups.values(), key=len)
        chosen[smallest] = len(rows) - len(smallest) >= least
    return chosen


def _digest(image: Any) -> bytes:
    if isinstance(image, str | os.PathLike):
        try:
            content = Path(image).read_bytes() if Path(image).is_file() else os.fsencode(image)
            return hashlib.sha256(content).digest()
        except OSError:  # told where it is decoded
            return hashlib.sha256(os.fsencode(image)).digest()
    array = np.ascontiguousarray(image)
    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).digest()


def notes_on_copies(labelled: Labelled) -> list[str]:
    """A sentence on copies within classes, and one on an image that several classes have; none where there are none."""
    found: dict[bytes, list[int]] = {}
    for row, content in enumerate(labelled.contents):
        found.setdefault(content, []).append(row)
    groups = [rows for rows in found.values() if len(rows) > 1]
    across = [rows for rows in groups if len({int(labelled.labels[row]) for row in rows}) > 1]
    told = []
    if within := sum(len(rows) - len({int(labelled.labels[row]) for row in rows}) for rows in groups):
        told.append(
            f"{within} of {len(labelled.labels)} images are copies of another of their class: never on both sides"
        )
    if across:
        first = across[0]
        named = sorted({labelled.classes[labelled.labels[row]] for row in first})
        told.append(
            f"{len(across)} image(s) belong to several classes, the first is {visible(labelled.names[first[0]])} "
            f"(in {', '.join(named)}): no classifier can tell them apart"
        )
    return told
