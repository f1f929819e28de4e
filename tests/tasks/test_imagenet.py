"""miniImageNet and tieredImageNet on made-up images in the published layouts; the real ones were never read."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from metadarts.core.errors import DataError
from metadarts.core.rng import Key
from metadarts.tasks import EpisodeSampler, open_source
from metadarts.tasks.images.split import published_split
from metadarts.tasks.sources import imagenet

MINI = published_split("imagenet_splits.json", "mini-imagenet")


@pytest.fixture(autouse=True)
def two_images_per_class(cache_folder, monkeypatch):
    monkeypatch.setattr(imagenet, "MINI_IMAGES", 2)


def save(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 7), (number % 256, number // 256, 50)).save(path)


@pytest.fixture
def listed(tmp_path):
    """images/ and train.csv, val.csv, test.csv."""
    number = 0
    for split, labels in MINI.items():
        rows = ["filename,label"]
        for label in labels:
            for copy in range(2):
                name = f"{label}{copy:08d}.png"
                save(tmp_path / "mini" / "images" / name, number)
                rows.append(f"{name},{label}")
                number += 1
        (tmp_path / "mini" / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "mini"


def in_split_folders(root, split_of, images):
    number = 0
    for split, labels in split_of.items():
        for label in labels:
            for copy in range(images):
                save(root / split / label / f"{label}_{copy}.png", number)
                number += 1
    return root


@pytest.fixture
def divided(tmp_path):
    return in_split_folders(tmp_path / "mini", MINI, 2)


def check_mini(source):
    assert {split: len(numbers) for split, numbers in source.split.items()} == {"train": 64, "val": 16, "test": 20}
    for split, labels in MINI.items():
        assert [source.classes[number].name for number in source.split[split]] == sorted(labels)
    assert source.images.shape == (200, 3, 84, 84)
    for entry in (source.classes[0], source.classes[99]):
        split = next(split for split, labels in MINI.items() if entry.name in labels)
        first = sum(len(MINI[before]) for before in ("train", "val", "test")[: ("train", "val", "test").index(split)])
        number = 2 * (first + MINI[split].index(entry.name))
        assert source.images[entry.rows, :, 40, 40].tolist() == [[n % 256, n // 256, 50] for n in (number, number + 1)]


def test_lists_of_ravi_and_larochelle(listed):
    check_mini(open_source("mini-imagenet", listed))


def test_split_folders(divided):
    check_mini(open_source("mini-imagenet", divided))


def test_both_layouts_hold_the_same(listed, tmp_path):
    folders = in_split_folders(tmp_path / "other", MINI, 2)
    sources = [open_source("mini-imagenet", root) for root in (listed, folders)]
    assert sources[0].content_sha256 == sources[1].content_sha256


def test_tiered(tmp_path):
    split_of = published_split("imagenet_splits.json", "tiered-imagenet")
    source = open_source("tiered-imagenet", in_split_folders(tmp_path / "tiered", split_of, 1), size=8)
    assert {split: len(numbers) for split, numbers in source.split.items()} == {"train": 351, "val": 97, "test": 160}
    assert source.images.shape == (608, 3, 8, 8)


def test_default_place_size_and_channels(divided, cache_folder):
    shutil.move(divided, cache_folder / "mini-imagenet")
    source = open_source("mini-imagenet", size=32, channels=1)
    assert source.images.shape == (200, 1, 32, 32)
    EpisodeSampler(source, "test", 5, 1, 1).sample(Key.from_seed(0), 2)


def test_files_that_no_list_names_are_left_alone(listed):
    (listed / "images" / "extra.png").write_bytes(b"not an image")
    check_mini(open_source("mini-imagenet", listed))


@pytest.mark.parametrize(
    ("name", "layout"),
    [("mini-imagenet", "images with train.csv, val.csv and test.csv"), ("tiered-imagenet", "train, val")],
)
def test_missing_data_say_where_to_put_what(name, layout, cache_folder):
    with pytest.raises(
        DataError, match=f"expected {name} in {cache_folder / name}, .*: {layout}.*; nothing is downloaded"
    ):
        open_source(name)


@pytest.mark.parametrize("file", ["mini-imagenet-cache-train.pkl", "train_images_png.pkl", "miniImageNet_train.pt"])
@pytest.mark.parametrize("name", ["mini-imagenet", "tiered-imagenet"])
def test_pickles_are_refused(name, file, tmp_path):
    (tmp_path / file).write_bytes(b"\x80\x04N.")
    with pytest.raises(DataError, match=rf"{file} is a pickle, .* could run code; {name} is read from a folder that"):
        open_source(name, tmp_path)


def move_class(root):
    shutil.move(root / "train" / MINI["train"][0], root / "test" / MINI["train"][0])


def add_unknown(root):
    save(root / "val" / "n00000000" / "0.png", 1)


def drop_class(root):
    shutil.rmtree(root / "test" / MINI["test"][3])


def drop_image(root):
    next((root / "val" / MINI["val"][0]).iterdir()).unlink()


def both_splits(root):
    shutil.copytree(root / "train" / MINI["train"][0], root / "test" / MINI["train"][0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (move_class, f"test holds {MINI['train'][0]}, a class of mini-imagenet's train split; move it there"),
        (add_unknown, "val holds 'n00000000', which is no class of mini-imagenet; remove it"),
        (drop_class, f"test holds images of 19 of its 20 classes, none of {MINI['test'][3]}"),
        (drop_image, f"class {MINI['val'][0]} has 1 images, expected 2; fetch them again"),
        (both_splits, f"class '{MINI['train'][0]}' is in both train and test"),
    ],
)
def test_other_classes_than_the_published(divided, change, message):
    change(divided)
    with pytest.raises(DataError, match=message):
        open_source("mini-imagenet", divided)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,n1\n", r"expected the columns filename,label, found \['file', 'label'\]"),
        ("", "expected the columns filename,label, found None"),
        (
            "filename,label\n../../secret.png,n1\n",
            r"expected the name of a file in images, found '\.\./\.\./secret\.png'",
        ),
        ("filename,label\nnone.png,n1\n", r"val\.csv lists images/none\.png, which is not in"),
        ("filename,label\na.png\n", r"expected a filename and a label in every row, found \('a\.png', None\)"),
    ],
)
def test_damaged_lists(listed, text, message):
    (listed / "val.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_source("mini-imagenet", listed)


@pytest.mark.parametrize("split", ["train", "test"])
def test_file_under_two_labels(listed, split):
    first, second = MINI["train"][0], MINI[split][1]
    path = listed / f"{split}.csv"
    path.write_text(path.read_text().replace(f"{second}00000000.png,{second}", f"{first}00000000.png,{second}"))
    with pytest.raises(
        DataError,
        match=rf"train\.csv lists images/{first}00000000\.png as {first} and {split}\.csv as {second}; an image may",
    ):
        open_source("mini-imagenet", listed)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_list_that_cannot_be_read(listed, content):
    (listed / "test.csv").unlink()
    if content is not None:
        (listed / "test.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read .*test\.csv .*; put the published list there"):
        open_source("mini-imagenet", listed)


def test_damaged_image_is_named(divided):
    path = divided / "val" / MINI["val"][2] / f"{MINI['val'][2]}_1.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=rf"cannot decode the image .*{path.name}"):
        open_source("mini-imagenet", divided)


def test_twins_across_splits_are_not_refused_in_published_data(divided):
    """ImageNet itself holds a few twins; the published split is what results are compared on."""
    train, test = (divided / split / MINI[split][0] for split in ("train", "test"))
    shutil.copy(train / f"{train.name}_0.png", test / f"{test.name}_0.png")
    source = open_source("mini-imagenet", divided)
    rows = [next(entry.rows[0] for entry in source.classes if entry.name == folder.name) for folder in (train, test)]
    np.testing.assert_array_equal(source.images[rows[0]], source.images[rows[1]])
