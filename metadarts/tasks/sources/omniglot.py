"""Omniglot (Lake et al. 2015), 28x28 unless another size is asked for; rotations are classes. Two few-shot splits: that
of Vinyals et al. (2016), and the one that MAML and T-NAS describe, 1,200 random characters against the rest."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import DataError
from metadarts.core.progress import Watch
from metadarts.core.rng import Key
from metadarts.store.files import default_cache
from metadarts.tasks import cache
from metadarts.tasks.images.reform import reformed
from metadarts.tasks.npz_headers import Header, npz_headers
from metadarts.tasks.source import SPLITS, ClassEntry, Source

FILE = "omniglot_28_u8.npz"
SIZE = 28
IMAGES = 1623 * 20
ARRAYS = frozenset({"images", "character", "drawer", "character_vinyals"})
_PARTS = ("images_background", "images_evaluation")
RANDOM_TRAINING, RANDOM_VALIDATION = 1200, 100
"""Characters that T-NAS trains on, and how many of them are kept to choose a checkpoint by."""


@dataclass(frozen=True, eq=False)
class Drawings:
    """Omniglot as arrays; the documented form of the .npz file.

    Args:
        images: [n, 28, 28] uint8, ink = 255.
        character: [n] number of the character drawn, 0 to K - 1.
        drawer: [n] who drew it.
        character_vinyals: [K] 0 train, 1 val, 2 test.
        character_names: [K] ``alphabet/characterNN``; optional in the file.
    """

    images: NDArray[np.uint8]
    character: NDArray[np.int64]
    drawer: NDArray[np.int64]
    character_vinyals: NDArray[np.int64]
    character_names: NDArray[np.str_]


def omniglot(data: Path | None = None, download: bool = False) -> Source:
    """Omniglot: 1028 / 172 / 423 characters, times four rotations 4112 / 688 / 1692 classes of 20 images.

    Args:
        data: an .npz file of the form of `Drawings`; or a folder with ``omniglot_28_u8.npz``, or with the folders
            ``images_background`` and ``images_evaluation`` (also inside ``omniglot-py``, where torchvision puts them).
            Such a folder is read once and ``omniglot_28_u8.npz`` written into it. Default: ``omniglot`` in the cache
            folder (see `glyphs`).
        download: fetch what is missing with torchvision, into ``data``.

    Raises DataError when there is nothing to read, or the data are malformed.
    """
    place = data if data is not None else default_cache() / "omniglot"
    if place.suffix == ".npz" or (place / FILE).is_file():
        return build_source(read_npz(place if place.suffix == ".npz" else place / FILE))
    folder = _image_folder(place)
    if folder is None and download:
        _download(place)
        folder = _image_folder(place)
    if folder is None:
        raise DataError(
            f"expected Omniglot in {place}, found nothing there; put {FILE} or torchvision's folder omniglot-py into "
            "it, name another place, or ask for download=True"
        )
    drawings = read_folder(folder)
    found = len(drawings.images)
    if found != IMAGES:
        raise DataError(f"expected {IMAGES} images in {folder}, found {found}; unpack both archives again")
    with suppress(OSError):  # a folder that cannot be written to costs only reading it again
        cache.write_npz(place / FILE, vars(drawings))
    return build_source(drawings)


def omniglot_random(data: Path | None = None, download: bool = False) -> Source:
    """Omniglot as T-NAS describes it (Lian et al., 2020, section 4.1, after MAML): 1,200 random training characters,
    tests on the other 423, times four rotations.

    No paper says which characters: here they are drawn once, from a fixed seed. 100 of the 1,200 are the validation
    split, because T-NAS names none and a checkpoint must not be selected on test classes. Arguments and errors as in
    `omniglot`.
    """
    source = omniglot(data, download)
    characters = len(source.classes) // 4
    order = Key.from_seed(0).child("omniglot", "1200 random characters").permutation(characters)
    cut = (RANDOM_TRAINING - RANDOM_VALIDATION, RANDOM_TRAINING)
    if characters <= RANDOM_TRAINING:
        raise DataError(f"expected more than {RANDOM_TRAINING} characters to split, found {characters}")
    parts = {"train": order[: cut[0]], "val": order[cut[0] : cut[1]], "test": order[cut[1] :]}
    split = {
        name: tuple(4 * int(character) + turns for character in np.sort(part) for turns in range(4))
        for name, part in parts.items()
    }
    return replace(source, name="omniglot-1200", split=split)


def is_place(folder: Path) -> bool:
    """Whether `omniglot` reads this folder without downloading."""
    return (folder / FILE).is_file() or _image_folder(folder) is not None


def read_npz(path: Path) -> Drawings:
    """Read the documented .npz form. Raises DataError when the file or an array is missing or malformed."""
    if not path.is_file():
        raise DataError(f"expected the Omniglot file {path}, there is none; put {FILE} there or name another place")
    _check_headers(npz_headers(path), path)
    try:
        arrays = cache.read_npz(path)
    except cache.UnreadableFile as error:
        raise DataError(f"cannot read {path} as an .npz file ({error}); fetch it again") from error
    count = len(arrays["character_vinyals"])
    names = arrays.get("character_names", np.array([f"character {number}" for number in range(count)]))
    numbers = {name: arrays[name].astype(np.int64) for name in ("character", "drawer", "character_vinyals")}
    drawings = Drawings(images=arrays["images"], character_names=names, **numbers)
    _check(drawings, path)
    return drawings


def _check_headers(headers: dict[str, Header], path: Path) -> None:
    """Require the arrays of `Drawings`, before one of them takes memory."""
    missing = ARRAYS - set(headers)
    if missing:
        lacks = ", ".join(sorted(missing))
        raise DataError(f"{path} lacks the arrays {lacks}; see metadarts.tasks.sources.omniglot.Drawings")
    images = headers["images"]
    if images.dtype != np.uint8 or len(images.shape) != 3 or images.shape[1:] != (SIZE, SIZE) or not images.shape[0]:
        raise DataError(f"{path}: images must be uint8 [n, 28, 28], given {images.dtype} {list(images.shape)}")
    for name in ("character", "drawer"):
        if headers[name].shape != images.shape[:1]:
            raise DataError(
                f"{path}: {name} must be [{images.shape[0]}], one per image, given {list(headers[name].shape)}"
            )
    numbers = dict.fromkeys(("character", "drawer", "character_vinyals"), "iu")
    for name, kinds in (numbers | {"character_names": "U"}).items():
        header = headers.get(name)
        if header is not None and (header.dtype.kind not in kinds or len(header.shape) != 1):
            kind = "text" if kinds == "U" else "whole numbers"
            raise DataError(
                f"{path}: {name} must be a list of {kind}, given {header.dtype} {list(header.shape)}; "
                "see metadarts.tasks.sources.omniglot.Drawings"
            )


def _check(drawings: Drawings, path: Path) -> None:
    characters = len(drawings.character_vinyals)
    if not set(drawings.character.tolist()) <= set(range(characters)):
        raise DataError(f"{path}: character must lie in 0..{characters - 1}, the length of character_vinyals")
    if not set(drawings.character_vinyals.tolist()) <= {0, 1, 2} or len(drawings.character_names) != characters:
        raise DataError(f"{path}: character_vinyals must hold 0, 1 or 2, and character_names one name for each entry")


def build_source(drawings: Drawings) -> Source:
    """The few-shot source: class 4 * k + q is character k after q quarter turns."""
    order = np.argsort(drawings.character, kind="stable")
    counts = np.bincount(drawings.character, minlength=len(drawings.character_vinyals))
    rows = np.split(order, np.cumsum(counts)[:-1])
    classes = tuple(
        ClassEntry(f"{name} rot{90 * turns:03d}", row, turns)
        for name, row in zip(drawings.character_names.tolist(), rows, strict=True)
        for turns in range(4)
    )
    split_of_class = np.repeat(drawings.character_vinyals, 4)
    split = {name: tuple(np.flatnonzero(split_of_class == code).tolist()) for code, name in enumerate(SPLITS)}
    return Source("omniglot", drawings.images[:, None], classes, split, variety=drawings.drawer)


def vinyals_split() -> dict[str, int]:
    """``alphabet/characterNN`` -> 0 train, 1 val, 2 test, for all 1623 characters."""
    text = files("metadarts.tasks").joinpath("omniglot_vinyals.json").read_text(encoding="utf-8")
    return {
        f"{alphabet}/character{number:02d}": int(digit)
        for alphabet, digits in json.loads(text)["alphabets"].items()
        for number, digit in enumerate(digits, start=1)
    }


def read_folder(folder: Path) -> Drawings:
    """Read ``images_*/alphabet/characterNN/*_MM.png`` (105x105, ink black), shrunk to 28x28 with Lanczos's filter.

    Raises DataError when a folder is not one of Omniglot's characters.
    """
    codes = vinyals_split()
    found = sorted(path for part in _PARTS for path in (folder / part).glob("*/character*") if path.is_dir())
    names = [f"{path.parent.name}/{path.name}" for path in found]
    unknown = [name for name in names if name not in codes]
    if unknown or not names:
        raise DataError(f"{folder}: expected Omniglot's alphabet/characterNN folders, found {unknown[:3] or 'none'}")
    images, character, drawer = [], [], []
    for number, path in enumerate(found):
        for file in sorted(path.glob("*.png")):
            images.append(_shrunk(file))
            character.append(number)
            drawer.append(int(file.stem.split("_")[1]) - 1)
    which, who, code = (np.array(values) for values in (character, drawer, [codes[name] for name in names]))
    return Drawings(np.stack(images), which, who, code, np.array(names))


def _shrunk(file: Path) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(file) as image:
        return 255 - np.asarray(image.convert("L").resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def _image_folder(place: Path) -> Path | None:
    """The folder that holds both image folders: ``place`` or torchvision's folder inside it."""
    choices = (place, place / "omniglot-py")
    return next((folder for folder in choices if all((folder / part).is_dir() for part in _PARTS)), None)


def _download(place: Path) -> None:
    from torchvision.datasets import Omniglot

    try:
        for background in (True, False):
            Omniglot(str(place), background=background, download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"could not download Omniglot into {place} ({error}); try again, or put {FILE} there by hand"
        ) from error


def _opened(place: Path | None, size: int = 0, channels: int = 0, progress: Watch | None = None) -> Source:
    return reformed(omniglot(place, download=place is None), size, channels, progress)  # into the cache by default


def _opened_random(place: Path | None, size: int = 0, channels: int = 0, progress: Watch | None = None) -> Source:
    return reformed(omniglot_random(place, download=place is None), size, channels, progress)


SOURCE = {"omniglot": _opened, "omniglot-1200": _opened_random}
