"""CIFAR-FS (Bertinetto et al. 2019) and FC100 (Oreshkin et al. 2018): two splits of the classes of CIFAR-100."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import DataError
from metadarts.core.progress import Watch
from metadarts.store.files import default_cache
from metadarts.tasks.images.pixels import BadImage, decode, fit, fit_all, strict_pillow
from metadarts.tasks.images.sources import source_of_rows
from metadarts.tasks.images.split import published_split
from metadarts.tasks.images.store import StoredImages, stored_images
from metadarts.tasks.source import Source

SIZE = 32
IMAGES = 600
"""Images of each class: 500 of CIFAR-100's training set, then 100 of its test set."""

SPLITS_FILE = "cifar100_splits.json"
_DOWN, _ACROSS = 24, 25
_VERSION = 1
_FOLDER, _ARCHIVE = "cifar-100-python", "cifar-100-python.tar.gz"


def cifar_fs(place: Path | None = None, size: int = 0, channels: int = 0, progress: Watch | None = None) -> Source:
    """CIFAR-FS: 64 / 16 / 20 classes of 600 images, 32x32 in colour.

    Args:
        place: a folder with one mosaic for each class (``NN_name.webp``, see `read_mosaic`), or with torchvision's
            ``cifar-100-python`` or its archive. Default: ``cifar100`` in the cache folder, where torchvision downloads
            what is missing.
        size: side in pixels; 0 is 32.
        channels: 0 and 3 are colour, 1 is grey.
        progress: reports the images read if they are not in the cache yet.

    Raises DataError when there is nothing to read, or the data are not CIFAR-100.
    """
    return _source("cifar-fs", place, size or SIZE, channels or 3, progress)


def fc100(place: Path | None = None, size: int = 0, channels: int = 0, progress: Watch | None = None) -> Source:
    """FC100: 60 / 20 / 20 classes, no two splits with classes of one superclass; the rest as `cifar_fs`."""
    return _source("fc100", place, size or SIZE, channels or 3, progress)


def class_names() -> tuple[str, ...]:
    """The 100 classes in CIFAR-100's order, which is the alphabet's."""
    return tuple(sorted(name for names in published_split(SPLITS_FILE, "cifar-fs").values() for name in names))


def read_mosaic(file: Path) -> NDArray[np.uint8]:
    """One class: 24 rows of 25 images of 32x32 pixels in one lossless picture -> [600, 3, 32, 32].

    Raises DataError.
    """
    try:
        with strict_pillow():
            pixels = fit(decode(file.read_bytes()), 0, 3)
    except (OSError, BadImage) as error:
        raise DataError(f"cannot read the mosaic {file} ({error}); fetch it again") from error
    if pixels.shape != (3, _DOWN * SIZE, _ACROSS * SIZE):
        raise DataError(
            f"{file}: expected {_DOWN} rows of {_ACROSS} images of {SIZE}x{SIZE}, that is {_ACROSS * SIZE}x"
            f"{_DOWN * SIZE} pixels, given {pixels.shape[2]}x{pixels.shape[1]}; fetch it again"
        )
    tiles = pixels.reshape(3, _DOWN, SIZE, _ACROSS, SIZE).transpose(1, 3, 0, 2, 4)
    return np.ascontiguousarray(tiles).reshape(IMAGES, 3, SIZE, SIZE)


def is_cifar(folder: Path) -> bool:
    """Whether `cifar_fs` and `fc100` read this folder without downloading."""
    inner = folder if folder.name == _FOLDER else folder / _FOLDER
    return (folder / "00_apple.webp").is_file() or inner.is_dir() or (folder / _ARCHIVE).is_file()


def _mosaic_files(place: Path) -> list[Path]:
    return sorted(place.glob("[0-9][0-9]_*.webp"))


def _source(name: str, place: Path | None, size: int, channels: int, progress: Watch | None) -> Source:
    files, read = _locate(place if place is not None else default_cache() / "cifar100", download=place is None)
    stored = _images(files, read, size, channels, progress)
    split_of = {label: split for split, labels in published_split(SPLITS_FILE, name).items() for label in labels}
    return source_of_rows(name, stored, [(split_of[label], label, IMAGES) for label in class_names()])


Reader = Callable[[], Iterator[NDArray[np.uint8]]]


def _images(files: list[Path], read: Reader, size: int, channels: int, progress: Watch | None) -> StoredImages:
    """All 60000 images, class by class. Both splits share them in the cache."""
    digest = hashlib.sha256(repr((_VERSION, size, channels)).encode())
    for file in files:
        status = file.stat()
        digest.update(repr((os.path.realpath(file), status.st_size, status.st_mtime_ns)).encode())

    def blocks() -> Iterator[NDArray[np.uint8]]:
        return (fit_all(block, size, channels) for block in read())

    return stored_images(f"cifar100-{size}", digest.hexdigest(), IMAGES * len(class_names()), blocks, progress)


def _locate(place: Path, download: bool) -> tuple[list[Path], Reader]:
    """The files to read, and how to read them: a block for each class in `class_names`'s order."""
    mosaics = _mosaic_files(place)
    if mosaics:
        _check_mosaics(place, mosaics)
        return mosaics, lambda: map(read_mosaic, mosaics)
    root = place.parent if place.name == _FOLDER else place
    if not (root / _FOLDER).is_dir():
        _unpack(root, download)
    parts = [root / _FOLDER / part for part in ("train", "test")]
    if not all(part.is_file() for part in parts):
        raise _not_published(root)
    return parts, partial(_read_torchvision, root)


def _check_mosaics(place: Path, mosaics: list[Path]) -> None:
    expected = [f"{number:02d}_{name}.webp" for number, name in enumerate(class_names())]
    odd = sorted({file.name for file in mosaics} ^ set(expected))
    if odd:
        state = "lacks" if odd[0] in expected else "holds"
        raise DataError(f"{place} {state} {odd[0]}; expected {expected[0]} to {expected[-1]}, one for each class")


def _unpack(root: Path, download: bool) -> None:
    """Make ``root/cifar-100-python`` from the archive beside it, fetching that when asked to."""
    from torchvision.datasets import CIFAR100
    from torchvision.datasets.utils import check_integrity, extract_archive

    archive, by_hand = root / _ARCHIVE, f"put the published {_ARCHIVE} into {root} by hand"
    try:
        if archive.is_file() and check_integrity(str(archive), CIFAR100.tgz_md5):
            extract_archive(str(archive), str(root))
            return
        if download:
            CIFAR100(str(root), download=True)
            return
    except (OSError, RuntimeError, HTTPException) as error:
        raise DataError(f"could not fetch CIFAR-100 into {root} ({error}); try again, or {by_hand}") from error
    if archive.is_file():
        raise DataError(f"{archive} is not the published archive: its MD5 is not {CIFAR100.tgz_md5}; {by_hand}")
    raise DataError(
        f"expected CIFAR-100 in {root}, found neither mosaics (00_apple.webp, ...) nor {_FOLDER}; {by_hand}, "
        "or name no place to download it"
    )


def _read_torchvision(root: Path) -> Iterator[NDArray[np.uint8]]:
    """Class by class. torchvision unpickles, so it is let near the files only when their check sums are the published
    ones."""
    parts = [_torchvision_part(root, train) for train in (True, False)]
    for number, name in enumerate(class_names()):
        images = np.concatenate([part.data[np.array(part.targets) == number] for part in parts])
        if len(images) != IMAGES or parts[0].classes[number] != name:
            raise DataError(f"{root / _FOLDER}: expected {IMAGES} images of {name} as class {number}; fetch it again")
        yield np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _torchvision_part(root: Path, train: bool) -> Any:
    from torchvision.datasets import CIFAR100

    try:
        return CIFAR100(str(root), train=train)  # checks the MD5 of its three files before it opens them
    except RuntimeError as error:
        raise _not_published(root) from error


def _not_published(root: Path) -> DataError:
    return DataError(
        f"the files in {root / _FOLDER} are not the published ones (missing, or of another MD5); "
        f"remove that folder and put the published {_ARCHIVE} into {root}"
    )


SOURCE = {"cifar-fs": cifar_fs, "fc100": fc100}
