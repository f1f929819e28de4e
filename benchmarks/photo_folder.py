"""Class folders as people have them, from CIFAR-100: JPEG and PNG, many sizes, some turned by their EXIF tag.

    python -m benchmarks.photo_folder CIFAR100_PLACE OUT --classes 40 --images 60

For trying `metadarts search --data OUT`. Pixels are real, sizes are not: each image is enlarged by a random factor in
either direction (1 to 2.5), every third is stored as PNG, and some JPEGs lie on their side and say so in their EXIF.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from numpy.random import Generator
from PIL import Image

from metadarts.core.rng import Key
from metadarts.tasks import Source, open_source

ORIENTATION, TURNED = 0x0112, 6  # EXIF 6: show it a quarter turn clockwise


def write(source: Source, out: Path, classes: int, images: int) -> int:
    """Write the first ``images`` images of each of the first ``classes`` classes; how many files."""
    draw, count = Key.from_seed(0).child("photo folder").numpy(), 0
    for entry in source.classes[:classes]:
        folder = out / entry.name
        folder.mkdir(parents=True)
        for number, row in enumerate(entry.rows[:images]):
            _save(Image.fromarray(source.images[row].transpose(1, 2, 0)), folder, number, draw)
            count += 1
    return count


def _save(picture: Image.Image, folder: Path, number: int, draw: Generator) -> None:
    size = [round(side * draw.uniform(1.0, 2.5)) for side in picture.size]
    picture = picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    if number % 3 == 0:
        picture.save(folder / f"{number:04d}.png")
        return
    exif = Image.Exif()
    if number % 5 == 0:
        picture, exif[ORIENTATION] = picture.transpose(Image.Transpose.ROTATE_90), TURNED
    picture.save(folder / f"{number:04d}.jpg", quality=90, exif=exif)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photo_folder", description=__doc__.splitlines()[0])
    parser.add_argument("cifar100", type=Path, help="where CIFAR-100 lies, see metadarts/tasks/README.md")
    parser.add_argument("out", type=Path, help="folder to create")
    parser.add_argument("--classes", type=int, default=40)
    parser.add_argument("--images", type=int, default=60, help="per class")
    options = parser.parse_args(arguments)
    count = write(open_source("cifar-fs", options.cifar100), options.out, options.classes, options.images)
    print(f"{count} images written to {options.out}")


if __name__ == "__main__":
    main()
