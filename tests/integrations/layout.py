"""Lays CIFAR-FS out as learn2learn looks for it. By hand, from the folder of CIFAR-100 mosaics:

    python tests/integrations/layout.py MOSAICS ROOT

MOSAICS holds classes.json and one NN_class.webp of 24 x 25 tiles for each class; 60 000 images take a minute.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

SPLITS = ("train", "val", "test")


def write_cifarfs(root: Path, classes: Iterable[tuple[str, np.ndarray]], split: Mapping[str, str]) -> None:
    """Write ROOT/cifarfs/cifar100: the images of every class as .png files and the three lists of classes.

    Args:
        root: the folder to name to learn2learn.
        classes: (name, images uint8 [N, 32, 32, 3]) of every class.
        split: name of a class -> 'train', 'val' or 'test'.
    """
    from PIL import Image

    base = root / "cifarfs" / "cifar100"
    for name, images in classes:
        folder = base / "data" / name
        folder.mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{number:03d}.png", compress_level=1)
    lists = base / "splits" / "bertinetto"
    lists.mkdir(parents=True)
    for part in SPLITS:
        lines = [f"{name}\n" for name in split if split[name] == part]
        (lists / f"{part}.txt").write_text("".join(lines), encoding="utf-8")


def read_mosaic(file: Path) -> np.ndarray:
    """One class's images, uint8 [600, 32, 32, 3]."""
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")).reshape(24, 32, 25, 32, 3).swapaxes(1, 2).reshape(600, 32, 32, 3)


def lay_out_cifarfs(mosaics: Path, root: Path, per_class: int = 600, per_split: int = 100) -> dict[str, np.ndarray]:
    """CIFAR-FS under ``root`` from the mosaics; returns the images of every class written.

    Args:
        per_class: how many images of a class to write.
        per_split: how many classes of a split to write; CIFAR-FS has 64, 16 and 20.
    """
    table = json.loads((mosaics / "classes.json").read_text(encoding="utf-8"))
    split_of = [SPLITS[code] for code in table["cifarfs_split_of_class"]]
    numbers = [n for part in SPLITS for n in [n for n, own in enumerate(split_of) if own == part][:per_split]]
    names = {number: table["class_names"][number] for number in numbers}
    classes = {name: read_mosaic(mosaics / f"{number:02d}_{name}.webp")[:per_class] for number, name in names.items()}
    write_cifarfs(root, classes.items(), {name: split_of[number] for number, name in names.items()})
    return classes


if __name__ == "__main__":
    lay_out_cifarfs(Path(sys.argv[1]), Path(sys.argv[2]))
