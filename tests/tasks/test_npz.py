"""Labelled images from an .npz file of the documented form; everything else is refused in one line, unopened."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from metadarts.core.errors import ConfigError, DataError
from metadarts.core.rng import Key
from metadarts.tasks import EpisodeSampler, npz_headers, open_source
from metadarts.tasks.images.split import split_classes

COUNT, CLASSES = 30, 6


def arrays(channels=3):
    shape = (COUNT, 8, 10, channels) if channels else (COUNT, 8, 10)
    images = np.random.Generator(np.random.Philox(2)).integers(0, 256, shape, dtype=np.uint8)
    return {"images": images, "label": np.arange(COUNT) % CLASSES}


def write(folder, base=None, **changes):
    path = folder / "mine.npz"
    merged = {**(base or arrays()), **changes}
    np.savez(path, **{name: array for name, array in merged.items() if array is not None})
    return path


@pytest.mark.parametrize(("channels", "found"), [(3, 3), (1, 1), (0, 1)])
def test_layouts(tmp_path, channels, found):
    content = arrays(channels)
    source = open_source("npz", write(tmp_path, content))
    assert source.images.shape == (COUNT, found, 8, 10)
    flat = content["images"].reshape(COUNT, 8, 10, found)
    np.testing.assert_array_equal(source.images, flat.transpose(0, 3, 1, 2))
    assert source.name == "mine"


def test_labels_without_names_are_the_classes(tmp_path):
    labels = np.array([5, 70, -2], np.int16)[np.arange(COUNT) % 3]
    source = open_source("npz", write(tmp_path, label=labels))
    assert [entry.name for entry in source.classes] == ["class -2", "class 5", "class 70"]
    assert source.classes[1].rows.tolist() == np.flatnonzero(labels == 5).tolist()


def test_names_and_split(tmp_path):
    names = np.array(list("fedcba"))
    source = open_source("npz", write(tmp_path, class_names=names, split=np.array([2, 0, 0, 1, 0, 2])))
    assert [entry.name for entry in source.classes] == list("fedcba")
    assert source.split == {"train": (1, 2, 4), "val": (3,), "test": (0, 5)}


def test_without_split_the_stated_rule(tmp_path):
    names = list("fedcba")
    source = open_source("npz", write(tmp_path, class_names=np.array(names)))
    assert source.split == split_classes(names, "")


def test_scale_is_of_the_training_images(tmp_path):
    source = open_source("npz", write(tmp_path, split=np.array([0, 0, 1, 1, 2, 2])))
    rows = np.concatenate([source.classes[number].rows for number in (0, 1)])
    np.testing.assert_allclose(source.mean, (source.images[rows] / 255).mean((0, 2, 3)), rtol=1e-12)


def test_size_and_channels(tmp_path):
    assert open_source("npz", write(tmp_path), size=4, channels=1).images.shape == (COUNT, 1, 4, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": None}, "lacks the arrays label; expected images uint8"),
        ({"images": np.zeros((COUNT, 8, 8))}, r"images are float64 \[30, 8, 8\]; expected images uint8"),
        ({"images": np.zeros((COUNT, 8, 8), np.int16)}, "images are int16"),
        ({"images": np.zeros((COUNT, 3, 8, 8), np.uint8)}, r"expected images uint8 .*; transpose channels to the end"),
        ({"images": np.zeros((COUNT, 8, 8, 4), np.uint8)}, r"images are uint8 \[30, 8, 8, 4\]"),
        ({"images": np.zeros((COUNT, 64), np.uint8)}, r"images are uint8 \[30, 64\]"),
        ({"images": np.zeros((0, 8, 8), np.uint8), "label": np.zeros(0, int)}, r"images are uint8 \[0, 8, 8\]"),
        ({"label": np.zeros(4, np.int64)}, "30 images but 4 labels"),
        ({"label": np.zeros(COUNT)}, r"label is float64 \[30\]"),
        ({"label": np.zeros((COUNT, 1), np.int64)}, r"label is int64 \[30, 1\]"),
        (
            {"class_names": np.array(["a", "b"])},
            r"labels must lie in 0\.\.1, one for each of class_names, given 0\.\.5",
        ),
        ({"class_names": np.array(list("abcdea"))}, "class_names holds 'a' twice"),
        (
            {"class_names": np.array([b"caf\xe9", *b"abcde"], "S4")},
            "class_names holds bytes that are not ASCII; save it",
        ),
        ({"split": np.array([0, 1])}, r"split must be \[6\]"),
        ({"split": np.array([0, 1, 2, 0, 1, 3])}, "0 train, 1 val or 2 test"),
        ({"split": np.array([1, 1, 2, 2, 1, 2])}, "the training classes have no images"),
        ({"label": np.zeros(COUNT, np.int64)}, "expected at least 3 classes"),
    ],
)
def test_refuses_other_forms(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        open_source("npz", write(tmp_path, **changes))


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("name", ["images", "label", "class_names", "split", "extra"])
def test_objects_are_refused_and_nothing_runs(tmp_path, name):
    marker = tmp_path / "marker"
    hostile = np.empty(COUNT, dtype=object)
    hostile[:] = [Payload(marker)] * COUNT
    path = write(tmp_path, **{name: hostile})
    assert b"touch" in zipfile.ZipFile(path).read(f"{name}.npy")  # the payload is there
    with pytest.raises(DataError, match=f"array '{name}' holds Python objects, that is pickles, which could run code"):
        open_source("npz", path)
    assert not marker.exists()


def test_damaged_files(tmp_path):
    path = write(tmp_path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"images.npy") + 400] ^= 1
    for content in (b"", b"text", whole[:-200], whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"cannot read .*mine\.npz as an \.npz file"):
            open_source("npz", path)


def test_array_that_claims_more_than_it_has(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (10**15, 8, 8)})
    with zipfile.ZipFile(tmp_path / "mine.npz", "w") as archive:
        archive.writestr("images.npy", stream.getvalue())
    with pytest.raises(DataError, match=r"images\.npy is cut short"):
        open_source("npz", tmp_path / "mine.npz")


@pytest.mark.parametrize("name", ["images", "label", "readme.txt", "folder/"])
def test_members_that_are_no_arrays(tmp_path, name):
    path = write(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"raw bytes")
    with pytest.raises(DataError, match=f"cannot read .*its member '{name}' is no .npy file"):
        open_source("npz", path)


@pytest.mark.parametrize("header", ["(" * 5000, "{'descr': '|u1', 'fortran_order': False, 'shape': (9"])
def test_headers_that_do_not_parse(tmp_path, header):
    path = write(tmp_path, label=None)
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("label.npy", data)
    with pytest.raises(DataError, match="cannot read"):
        open_source("npz", path)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_damage_in_every_kind_of_compression(tmp_path, method):
    with zipfile.ZipFile(write(tmp_path)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    whole = path.read_bytes()
    assert len(open_source("npz", path).images) == COUNT
    for place in range(45, 2000, 130):
        damaged = bytearray(whole)
        damaged[place : place + 8] = b"\xff" * 8
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot read"):
            open_source("npz", path)


def test_file_that_blows_up(tmp_path, monkeypatch):
    monkeypatch.setattr(npz_headers, "BLOWN_UP", 10**6)
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, images=np.zeros((4000, 32, 32), np.uint8), label=np.arange(4000) % 5)
    with pytest.raises(DataError, match=r"would unpack to .* over 100 times its size"):
        open_source("npz", path)


def test_missing_file_and_no_place(tmp_path):
    with pytest.raises(DataError, match=r"expected the file .*none\.npz, there is none"):
        open_source("npz", tmp_path / "none.npz")
    with pytest.raises(ConfigError, match="'npz' needs a place"):
        open_source("npz")


def test_cifar10_sample(data_dir):
    path = data_dir / "cifar10_200perclass_32.npz"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {data_dir}")
    source = open_source("npz", path)
    assert source.images.shape == (2000, 3, 32, 32)
    assert {split: len(numbers) for split, numbers in source.split.items()} == {"train": 6, "val": 2, "test": 2}
    assert {len(entry.rows) for entry in source.classes} == {200}
    assert "airplane" in {entry.name for entry in source.classes}
    EpisodeSampler(source, "test", 2, 5, 15).sample(Key.from_seed(0), 2)
    with pytest.raises(DataError, match="split 'test': 5-way tasks need as many classes, it has 2; lower ways"):
        EpisodeSampler(source, "test", 5, 1, 15)
