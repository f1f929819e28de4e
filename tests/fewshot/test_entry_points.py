"""Equal pictures are equal pixels and equal answers, whatever they are learnt from and asked as."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from metadarts.core.errors import DataError
from metadarts.core.rng import Key
from metadarts.fewshot import FewShotClassifier
from metadarts.fewshot.input_spec import scale_of, to_pixels
from metadarts.fewshot.labelled import read_labelled

SIDE = 8
SEEDS = 40
KINDS = {
    "uint8": lambda x: x,
    "int64": lambda x: x.astype(np.int64),
    "uint16": lambda x: x.astype(np.uint16),
    "floats 0..255": lambda x: x.astype(np.float64),
    "floats 0..1": lambda x: (x / 255.0).astype(np.float32),
    "half floats 0..255": lambda x: x.astype(np.float16),
    "tensor": torch.from_numpy,
    "tensor of floats 0..1": lambda x: torch.from_numpy(x / 255.0),
    "list": list,
    "pictures": lambda x: [Image.fromarray(image) for image in x],
    "channels first": lambda x: x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2),
    "one by one": lambda x: [image[..., None] if image.ndim == 2 else image for image in x],
}


def family(kind):
    """Which scale of floats a kind has."""
    return "unit" if "0..1" in kind else "wide" if "floats" in kind else ""


def drawn(seed, channels):
    """Six pictures: noise, flat ones, and ones with few shades; none is nearly black."""
    draw = Key(("tests", "entry points", str(seed), str(channels))).numpy()
    shape = (6, SIDE, SIDE) if channels == 1 else (6, SIDE, SIDE, 3)
    pixels = draw.integers(0, 256, shape)
    pixels[1] = draw.integers(2, 256)
    pixels[2] = (pixels[2] > 127) * 255
    pixels[3] //= 64
    pixels[3, 0, 0] = 200
    return pixels.astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_equal_pictures_are_equal_pixels(channels):
    compared = refused = 0
    for seed in range(SEEDS):
        pictures = drawn(seed, channels)
        expected = pictures[:, None] if channels == 1 else pictures.transpose(0, 3, 1, 2)
        for learnt, as_learnt in KINDS.items():
            scale = scale_of(as_learnt(pictures))
            for asked, as_asked in KINDS.items():
                own, theirs = family(asked), family(learnt)
                if own and theirs and own != theirs:
                    with pytest.raises(DataError, match="scale them alike"):
                        to_pixels(as_asked(pictures), channels, SIDE, scale)
                    refused += 1
                    continue
                found, _ = to_pixels(as_asked(pictures), channels, SIDE, scale)
                np.testing.assert_array_equal(found, expected, f"{seed}: learnt from {learnt}, asked as {asked}")
                compared += 1
    assert (compared, refused) == (SEEDS * (144 - 8), SEEDS * 8)


@pytest.mark.parametrize("channels", [1, 3])
def test_files_tables_and_folders_hold_the_same_pictures(tmp_path, channels):
    for seed in range(3):
        pictures = drawn(seed, channels)
        expected = pictures[:, None] if channels == 1 else pictures.transpose(0, 3, 1, 2)
        place = tmp_path / f"{seed}"
        names = ("ant", "bee")
        for number, image in enumerate(pictures):
            folder = place / "folder" / names[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number}.png")
        with (place / "table.csv").open("w", newline="") as file:
            rows = [(f"folder/{names[number % 2]}/{number}.png", names[number % 2]) for number in range(len(pictures))]
            csv.writer(file).writerows([("filename", "label"), *rows])
        np.savez(place / "all.npz", images=pictures, label=np.arange(6) % 2, class_names=np.array(names))
        for name in ("folder", "table.csv", "all.npz"):
            given = read_labelled(place / name)
            assert given.classes == names
            found, _ = to_pixels(given.images, channels, SIDE)
            order = [*range(0, 6, 2), *range(1, 6, 2)] if name == "folder" else range(6)
            np.testing.assert_array_equal(found, expected[list(order)], name)
            assert given.labels.tolist() == [number % 2 for number in order]


@pytest.mark.parametrize("learnt", ["uint8", "floats 0..1", "tensor", "pictures"])
def test_equal_pictures_get_equal_answers(grey, cases, learnt):
    pixels, labels = cases.images((4, 4))
    fitted = FewShotClassifier(grey, steps=1).fit(KINDS[learnt](pixels), labels)
    expected = fitted.logits(KINDS[learnt](pixels))
    for asked, as_asked in KINDS.items():
        if not (family(learnt) and family(asked) and family(learnt) != family(asked)):
            np.testing.assert_array_equal(fitted.logits(as_asked(pixels)), expected, asked)
