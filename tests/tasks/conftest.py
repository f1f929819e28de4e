"""A small made-up source, and the built-in one (drawn once per machine, then cached)."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from metadarts.tasks import ClassEntry, Source, glyphs

CLASSES, ROWS, SIZE = 12, 24, 6


@pytest.fixture(scope="session")
def toy() -> Source:
    """12 classes of 24 images in 4 varieties of 6; image m is filled with noise fixed by m; class 11 shares rows."""
    count = (CLASSES - 1) * ROWS
    images = np.random.Generator(np.random.Philox(5)).integers(0, 256, (count, 2, SIZE, SIZE), dtype=np.uint8)
    rows = [np.arange(number * ROWS, (number + 1) * ROWS) for number in range(CLASSES - 1)]
    classes = [ClassEntry(f"class {number}", row) for number, row in enumerate(rows)]
    classes.append(ClassEntry("class 0 turned", rows[0], quarter_turns=1))
    split = {"train": (0, 1, 2, 3, 4, 11), "val": (5, 6), "test": (7, 8, 9, 10)}
    return Source("toy", images, tuple(classes), split, variety=np.arange(count) % 4)


@pytest.fixture(scope="session")
def built_in() -> Source:
    return glyphs()


@pytest.fixture
def cache_folder(tmp_path_factory, monkeypatch):
    """An empty cache folder of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("METADARTS_CACHE", str(folder))
    return folder


@pytest.fixture
def save_image():
    """Write a small image of noise fixed by its number: save_image(path, number, mode="RGB", size=(8, 8))."""

    def save(path, number, mode="RGB", size=(8, 8)):
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        noise = np.random.Generator(np.random.Philox(number)).integers(0, 256, shape, dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(path)
        return noise

    return save


@pytest.fixture
def claims_a_terabyte():
    """Put an array of a few bytes into an .npz file, with a header that says 100 TB: claims_a_terabyte(path, name)."""

    def add(path, name):
        stream = io.BytesIO()
        shape = (10**14 // 784, 28, 28)
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"{name}.npy", stream.getvalue())

    return add
