"""miniImageNet (Ravi and Larochelle 2017) and tieredImageNet (Ren et al. 2018) from folders of their images.

The class lists are the published ones. Nothing is downloaded: the published links are dead. The readers were tested on
synthetic images in these layouts, never on the real ones.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from metadarts.core.errors import DataError
from metadarts.core.progress import Watch
from metadarts.store.files import default_cache
from metadarts.tasks.images.folders import FolderClass, split_classes_in
from metadarts.tasks.images.sources import source_of_files
from metadarts.tasks.images.split import published_split
from metadarts.tasks.source import SPLITS, Source

SIZE = 84
MINI_IMAGES = 600
"""Images of each class of miniImageNet."""

PICKLES = frozenset({".pkl", ".pickle", ".pt", ".pth"})
_SPLIT_FOLDERS = "train, val and test with a folder of images for each class (n01532829, ...)"
_CSV_FOLDER = "images with train.csv, val.csv and test.csv beside it (columns filename,label)"


def mini_imagenet(root: Path | None = None, size: int = 0, channels: int = 0, progress: Watch | None = None) -> Source:
    """miniImageNet: 64 / 16 / 20 classes of 600 images.

    Args:
        root: a folder with train.csv, val.csv, test.csv and ``images``, or with ``train|val|test/<class>/<image>``.
            Default: ``mini-imagenet`` in the cache folder.
        size: side in pixels; 0 is 84.
        channels: 0 and 3 are colour, 1 is grey.
        progress: reports the files read if they are not in the cache yet.

    Raises DataError when files are missing, or the classes are not the published ones.
    """
    name = "mini-imagenet"
    root = root if root is not None else default_cache() / name
    if (root / "train.csv").is_file():
        classes = [entry for split in SPLITS for entry in _listed(root, split)]
        _check_listed_once(root, classes)
    else:
        classes = _in_split_folders(name, root, f"{_CSV_FOLDER}, or {_SPLIT_FOLDERS}")
    _check_classes(name, root, classes)
    for entry in classes:
        if len(entry.files) != MINI_IMAGES:
            raise DataError(
                f"{root}: class {entry.name} has {len(entry.files)} images, expected {MINI_IMAGES}; fetch them again"
            )
    return source_of_files(name, root, classes, size or SIZE, channels or 3, copies=True, progress=progress)


def tiered_imagenet(
    root: Path | None = None, size: int = 0, channels: int = 0, progress: Watch | None = None
) -> Source:
    """tieredImageNet: 351 / 97 / 160 classes in ``root/train|val|test/<class>/<image>``; else as `mini_imagenet`."""
    name = "tiered-imagenet"
    root = root if root is not None else default_cache() / name
    classes = _in_split_folders(name, root, _SPLIT_FOLDERS)
    _check_classes(name, root, classes)
    return source_of_files(name, root, classes, size or SIZE, channels or 3, copies=True, progress=progress)


def _in_split_folders(name: str, root: Path, layout: str) -> list[FolderClass]:
    if all((root / split).is_dir() for split in SPLITS):
        return split_classes_in(root)
    pickles = sorted(path.name for path in root.glob("*") if path.suffix in PICKLES)
    if pickles:
        raise DataError(
            f"{root / pickles[0]} is a pickle, and unpickling a downloaded file could run code; "
            f"{name} is read from a folder that holds {layout}"
        )
    raise DataError(
        f"expected {name} in {root}, did not find it; put into that folder: {layout}; nothing is downloaded"
    )


def _listed(root: Path, split: str) -> list[FolderClass]:
    """The classes that ``<split>.csv`` lists."""
    path = root / f"{split}.csv"
    files: dict[str, list[str]] = {}
    for filename, label in _rows(path):
        if Path(filename).name != filename:
            raise DataError(f"{path}: expected the name of a file in images, found {filename!r}; fetch the list again")
        files.setdefault(label, []).append(f"images/{filename}")
    for file in (file for listed in files.values() for file in listed):
        if not (root / file).is_file():
            raise DataError(f"{path} lists {file}, which is not in {root}; put the images there")
    return [FolderClass(split, label, tuple(sorted(set(listed)))) for label, listed in files.items()]


def _check_listed_once(root: Path, classes: Sequence[FolderClass]) -> None:
    """Require one label for every file. Twins under two names are ImageNet's own, one name twice is a damaged list."""
    place: dict[str, FolderClass] = {}
    for entry in classes:
        for file in entry.files:
            other = place.setdefault(file, entry)
            if other is not entry:
                raise DataError(
                    f"{root}: {other.split}.csv lists {file} as {other.name} and {entry.split}.csv as {entry.name}; "
                    "an image may have one label and be in one split only: fetch the lists again"
                )


def _rows(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if not {"filename", "label"} <= set(reader.fieldnames or ()):
                raise DataError(
                    f"{path}: expected the columns filename,label, found {reader.fieldnames}; fetch it again"
                )
            rows = [(row["filename"], row["label"]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path} ({error}); put the published list there") from error
    short = next((row for row in rows if not all(row)), None)
    if short is not None:
        raise DataError(f"{path}: expected a filename and a label in every row, found {short}; fetch it again")
    return rows


def _check_classes(name: str, root: Path, classes: Sequence[FolderClass]) -> None:
    """Require the published classes in every split. Raises DataError naming the first difference."""
    published = published_split("imagenet_splits.json", name)
    split_of = {label: split for split, labels in published.items() for label in labels}
    for entry in classes:
        right = split_of.get(entry.name)
        if right is None:
            raise DataError(f"{root}: {entry.split} holds {entry.name!r}, which is no class of {name}; remove it")
        if right != entry.split:
            raise DataError(
                f"{root}: {entry.split} holds {entry.name}, a class of {name}'s {right} split; move it there"
            )
    for split, labels in published.items():
        missing = sorted(set(labels) - {entry.name for entry in classes if entry.split == split})
        if missing:
            raise DataError(
                f"{root}: {split} holds images of {len(labels) - len(missing)} of its {len(labels)} classes, "
                f"none of {missing[0]}; put them there"
            )


SOURCE = {"mini-imagenet": mini_imagenet, "tiered-imagenet": tiered_imagenet}
