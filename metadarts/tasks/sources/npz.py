"""Labelled images in an .npz file of the documented form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import ConfigError, DataError
from metadarts.core.progress import Watch, tell_images
from metadarts.tasks import cache
from metadarts.tasks.images.pixels import fit_all
from metadarts.tasks.images.sources import training_scale
from metadarts.tasks.images.split import split_classes
from metadarts.tasks.images.store import StoredImages, moments
from metadarts.tasks.npz_headers import Header, npz_headers
from metadarts.tasks.source import SPLITS, ClassEntry, Source

FORM = "images uint8 [n, H, W] or [n, H, W, 3], label [n]; optional class_names [K], split [K] (0 train, 1 val, 2 test)"
NAMES = frozenset({"images", "label"})


def npz(path: Path | None, size: int = 0, channels: int = 0, progress: Watch | None = None) -> Source:
    """Labelled images from one file, held in memory and normalised by the training classes' mean and std.

    Args:
        path: the .npz file, with the arrays

            - images: uint8 [n, H, W] or [n, H, W, 3] (a last axis of length 1 is grey, too).
            - label: [n] integers; with ``class_names`` they are in 0..K-1, without it the K occurring numbers are the
              classes, in ascending order.
            - class_names: [K] text, distinct; optional.
            - split: [K], 0 train, 1 val, 2 test for each class; optional, without it `split_classes` decides.

        size: side in pixels, see `pixels.fit`; 0 as found.
        channels: 1 grey, 3 colour, 0 as found.
        progress: called once, when the images are read.

    Raises DataError when the file is damaged or of another form. Nothing in it is ever unpickled.
    """
    if path is None:
        raise ConfigError(f"source 'npz' needs a place: name an .npz file with the arrays {FORM}")
    arrays = _read(path)
    images = fit_all(_channels_first(arrays["images"]), size, channels)
    names, number = _classes(path, arrays)
    split = _split(path, arrays, names)
    rows = [np.flatnonzero(number == place) for place in range(len(names))]
    tell_images(progress, len(images), len(images))
    mean, std = training_scale(
        str(path), StoredImages(images, moments(images)), [rows[place] for place in split["train"]]
    )
    classes = tuple(ClassEntry(name, row) for name, row in zip(names, rows, strict=True))
    return Source(path.stem, images, classes, split, mean=mean, std=std)


def labelled(path: Path) -> tuple[NDArray[np.uint8], list[str], NDArray[np.int64]]:
    """The images [n, H, W] or [n, H, W, channels] of such a file, the K names of its classes, and [n] each one's class.

    Raises DataError as `npz` does; the array split is not looked at.
    """
    arrays = _read(path)
    names, number = _classes(path, arrays)
    return arrays["images"], names, number


def _read(path: Path) -> dict[str, NDArray[Any]]:
    headers = npz_headers(path)
    missing = NAMES - set(headers)
    if missing:
        raise DataError(f"{path} lacks the arrays {', '.join(sorted(missing))}; expected {FORM}")
    _check_images(path, headers["images"])
    for name, kinds in (("label", "iu"), ("class_names", "US"), ("split", "iu")):
        header = headers.get(name)
        if header is not None and (header.dtype.kind not in kinds or len(header.shape) != 1):
            raise DataError(f"{path}: {name} is {header.dtype} {list(header.shape)}; expected {FORM}")
    count = headers["images"].shape[0]
    if headers["label"].shape != (count,):
        raise DataError(f"{path}: {count} images but {headers['label'].shape[0]} labels; give each image one")
    try:
        return {name: array for name, array in cache.read_npz(path).items() if name in (*NAMES, "class_names", "split")}
    except cache.UnreadableFile as error:
        raise DataError(f"cannot read {path} as an .npz file ({error}); fetch it again") from error


def _check_images(path: Path, header: Header) -> None:
    shape = header.shape
    known = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    if header.dtype != np.uint8 or not known or 0 in shape:
        hint = "; transpose channels to the end" if len(shape) == 4 and shape[1] in (1, 3) and not known else ""
        raise DataError(f"{path}: images are {header.dtype} {list(shape)}; expected {FORM}{hint}")


def _channels_first(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _classes(path: Path, arrays: dict[str, NDArray[Any]]) -> tuple[list[str], NDArray[np.int64]]:
    """The K names, and [n] the place of each image's class among them."""
    label = arrays["label"]
    if "class_names" not in arrays:
        values, number = np.unique(label, return_inverse=True)
        return [f"class {value}" for value in values.tolist()], number.astype(np.int64)
    try:
        names = arrays["class_names"].astype(np.str_).tolist()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: class_names holds bytes that are not ASCII; save it as text (dtype str)") from error
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: class_names holds {twice!r} twice; give every class a name of its own")
    if not (0 <= label.min() and label.max() < len(names)):
        raise DataError(
            f"{path}: labels must lie in 0..{len(names) - 1}, one for each of class_names, "
            f"given {label.min()}..{label.max()}"
        )
    return names, label.astype(np.int64)


def _split(path: Path, arrays: dict[str, NDArray[Any]], names: list[str]) -> dict[str, tuple[int, ...]]:
    if "split" not in arrays:
        return split_classes(names, str(path))
    codes = arrays["split"]
    if codes.shape != (len(names),) or not set(codes.tolist()) <= {0, 1, 2}:
        raise DataError(f"{path}: split must be [{len(names)}], 0 train, 1 val or 2 test for each class")
    return {name: tuple(np.flatnonzero(codes == code).tolist()) for code, name in enumerate(SPLITS)}


SOURCE = npz
