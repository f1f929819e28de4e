"""Any folder of class folders: ROOT/<class>/<image>, or ROOT/train|val|test/<class>/<image>."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from metadarts.core.errors import ConfigError, DataError
from metadarts.core.progress import Watch
from metadarts.tasks.images.folders import FolderClass, classes_in, has_split_folders, split_classes_in
from metadarts.tasks.images.sources import source_of_files
from metadarts.tasks.images.split import split_classes
from metadarts.tasks.source import SPLITS, Source

SIZE = 32


def folder(root: Path | None, size: int = 0, channels: int = 0, progress: Watch | None = None) -> Source:
    """Images in class folders. Without the folders train, val and test, `split_classes` splits the classes.

    Args:
        root: the folder.
        size: side in pixels; 0 is 32. The short side is resized to it and the long side cropped.
        channels: 1 grey, 3 colour; 0 as found; then all images must be grey or all must be colour.
        progress: reports the files read if they are not in the cache yet.

    Raises DataError when a class or a file is in two splits, or a file with an image suffix is not an image.
    """
    if root is None:
        raise ConfigError("source 'folder' needs a place: name the folder that holds the class folders")
    classes = split_classes_in(root) if has_split_folders(root) else _split(root, classes_in(root))
    for split in SPLITS:
        if not any(entry.split == split for entry in classes):
            raise DataError(f"{root}: expected class folders with images in {split}, found none; put some there")
    return source_of_files(root.resolve().name or "folder", root, classes, size or SIZE, channels, progress=progress)


def _split(root: Path, classes: list[FolderClass]) -> list[FolderClass]:
    numbers = split_classes([entry.name for entry in classes], f"{root}, class folders with images")
    return [replace(classes[number], split=split) for split in SPLITS for number in numbers[split]]


SOURCE = folder
