"""Folders of class folders: which image files they hold, without opening any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from metadarts.core.errors import DataError
from metadarts.tasks.images.pixels import image_suffixes
from metadarts.tasks.source import SPLITS

UNREAD = frozenset(
    (".heic", ".heif", ".jxl", ".svg", ".psd", ".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2")
)
"""Endings of images which are not read, or not by every Pillow: to pass over one would lose it without a word."""


SPLIT_NAMES = frozenset((*SPLITS, "valid", "validation", "training", "testing"))


@dataclass(frozen=True)
class FolderClass:
    """A class and its image files.

    Args:
        split: 'train', 'val' or 'test'; empty while it is not decided.
        name: the name of its folder.
        files: paths from the root, with ``/``, sorted.
    """

    split: str
    name: str
    files: tuple[str, ...]


def folders_in(folder: Path) -> list[str]:
    """Names of the visible folders, sorted. Raises DataError when ``folder`` cannot be listed."""
    return sorted(entry.name for entry in _entries(folder) if _is_folder(entry))


def classes_in(root: Path, below: str = "", split: str = "") -> list[FolderClass]:
    """One class for every folder of ``root/below`` that holds images, itself or in folders inside it.

    Files and folders whose names begin with a dot, and files without an image's ending, do not count.

    Raises DataError for a folder that cannot be read, a link that leads nowhere or in a circle, or an image of a format
    that is not read here (`UNREAD`).
    """
    suffixes = image_suffixes()
    classes = []
    for name in folders_in(root / below):
        place = f"{below}/{name}" if below else name
        files = tuple(sorted(_image_files(root / place, place, suffixes, ())))
        if files:
            classes.append(FolderClass(split, name, files))
    return classes


def images_in(folder: Path) -> list[Path]:
    """The images of ``folder`` and of the folders inside it, sorted; what counts is as in `classes_in`.

    Raises DataError as `classes_in`.
    """
    found = _image_files(folder, "", image_suffixes(), ())
    return sorted(folder / file.removeprefix("/") for file in found)


def split_names_in(root: Path) -> list[str]:
    """Folders of ``root`` that are called as splits are and hold class folders, but no image themselves."""
    named = [name for name in folders_in(root) if name.lower() in SPLIT_NAMES]
    return [name for name in named if folders_in(root / name) and not _holds_images(root / name)]


def has_split_folders(root: Path) -> bool:
    """Whether ``root`` is divided into train, val and test; such a folder with images of its own is a class.

    Raises DataError when only some of the three are there.
    """
    found = [split for split in SPLITS if (root / split).is_dir() and not _holds_images(root / split)]
    if found and len(found) < len(SPLITS):
        missing = ", ".join(split for split in SPLITS if split not in found)
        raise DataError(
            f"{root}: found {' and '.join(found)} without {missing}; expected train, val and test, each with folders "
            "of its own classes, or class folders only, which are then split"
        )
    return bool(found)


def split_classes_in(root: Path) -> list[FolderClass]:
    """The classes of ``root/train``, ``root/val`` and ``root/test``. Raises DataError when a class is in two splits."""
    classes = [entry for split in SPLITS for entry in classes_in(root, split, split)]
    place: dict[str, str] = {}
    for entry in classes:
        if entry.name in place:
            raise DataError(
                f"{root}: class {entry.name!r} is in both {place[entry.name]} and {entry.split}; few-shot splits have "
                "different classes: give each class one folder, or put the class folders right below the root"
            )
        place[entry.name] = entry.split
    return classes


def _holds_images(folder: Path) -> bool:
    suffixes = image_suffixes()
    return any(_is_image(entry, suffixes) and not _is_folder(entry) for entry in _entries(folder))


def _image_files(
    folder: Path, place: str, suffixes: frozenset[str], above: tuple[tuple[int, int], ...]
) -> Iterator[str]:
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise DataError(f"{folder} is a link to a folder that it lies in; remove it")
    for entry in _entries(folder):
        if _is_folder(entry):
            yield from _image_files(folder / entry.name, f"{place}/{entry.name}", suffixes, (*above, here))
        elif _is_image(entry, suffixes):
            if not os.path.isfile(entry):
                raise DataError(f"{folder / entry.name} is no file that can be read; a link to nowhere? remove it")
            yield f"{place}/{entry.name}"
        else:
            refuse_unread(folder / entry.name)


def refuse_unread(file: Path) -> None:
    """Raise DataError for an image of a format that is not read here."""
    if file.suffix.lower() in UNREAD:
        raise DataError(
            f"{file}: images of this format are not read here; convert it to JPEG or PNG, or take it out of the folder"
        )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"cannot list the folder {folder} ({error.strerror}); check that it exists and its rights"
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry)  # the entry's own method raises for a link that leads to itself


def _is_image(entry: os.DirEntry[str], suffixes: frozenset[str]) -> bool:
    return os.path.splitext(entry.name)[1].lower() in suffixes
