"""Folders of class folders: layouts, what counts as an image, splits, copies, and the cache of decoded images."""

from __future__ import annotations

import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from metadarts.core.errors import ConfigError, DataError
from metadarts.core.rng import Key
from metadarts.tasks import EpisodeSampler, open_source
from metadarts.tasks.images import folders, sources
from metadarts.tasks.images.folders import images_in
from metadarts.tasks.images.split import split_classes

pytestmark = pytest.mark.usefixtures("cache_folder")

FIVE = ("ant", "bee", "cat", "dog", "emu")


@pytest.fixture
def root(tmp_path, save_image):
    """Five classes of four images."""
    for number, name in enumerate(FIVE):
        for image in range(4):
            save_image(tmp_path / "zoo" / name / f"{image}.png", 10 * number + image)
    return tmp_path / "zoo"


@pytest.fixture
def divided(tmp_path, save_image):
    """train: ant, bee; val: cat; test: dog; three images each."""
    for number, place in enumerate(("train/ant", "train/bee", "val/cat", "test/dog")):
        for image in range(3):
            save_image(tmp_path / "zoo" / place / f"{image}.png", 10 * number + image)
    return tmp_path / "zoo"


def names(source, split):
    return [source.classes[number].name for number in source.split[split]]


def counts(source):
    return {entry.name: len(entry.rows) for entry in source.classes}


def test_class_folders_are_split_by_the_stated_rule(root):
    source = open_source("folder", root)
    expected = split_classes(FIVE, "")
    assert {split: names(source, split) for split in source.split} == {
        split: [FIVE[number] for number in numbers] for split, numbers in expected.items()
    }
    assert counts(source) == dict.fromkeys(FIVE, 4)
    assert source.name == "zoo"
    assert source.images.shape == (20, 3, 32, 32)


def test_split_folders_decide(divided):
    source = open_source("folder", divided)
    assert {split: names(source, split) for split in source.split} == {
        "train": ["ant", "bee"],
        "val": ["cat"],
        "test": ["dog"],
    }


def test_rows_show_the_files_of_their_class(root):
    source = open_source("folder", root, size=8)
    for entry in source.classes:
        for image, row in enumerate(entry.rows):
            file = np.asarray(Image.open(root / entry.name / f"{image}.png"))
            np.testing.assert_array_equal(source.images[row], file.transpose(2, 0, 1))


def test_scale_is_of_the_training_images_only(divided):
    source = open_source("folder", divided, size=8)
    rows = np.concatenate([source.classes[number].rows for number in source.split["train"]])
    pixels = source.images[rows] / 255.0
    np.testing.assert_allclose(source.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(source.std, pixels.std((0, 2, 3)), rtol=1e-12)


def test_images_of_one_colour_do_not_divide_by_zero(tmp_path):
    for place in ("train/ant", "val/bee", "test/cat"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("L", (4, 4), 100 + len(place)).save(tmp_path / place / "0.png")
    source = open_source("folder", tmp_path)
    assert source.std == (1.0,)


def test_other_files_do_not_count(root):
    (root / "notes.txt").write_text("about")
    (root / "ant" / "labels.csv").write_text("a,b")
    (root / "ant" / "._0.png").write_bytes(b"resource fork")
    (root / ".git").mkdir()
    (root / "papers").mkdir()
    (root / "papers" / "zoo.pdf").write_bytes(b"%PDF")
    shutil.copy(root / "ant" / "0.png", root / "preview.png")
    assert counts(open_source("folder", root)) == dict.fromkeys(FIVE, 4)


@pytest.mark.parametrize("name", ["one.heic", "ONE.HEIC", "one.svg", "inner/one.nef"])
def test_images_that_cannot_be_read_are_refused_rather_than_passed_over(root, name):
    file = root / "ant" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"")
    with pytest.raises(DataError, match=f"{file.name}: images of this format are not read here; convert it"):
        open_source("folder", root)


def test_folders_inside_a_class_folder_and_capital_suffixes_count(root, save_image):
    save_image(root / "ant" / "images" / "more" / "x.png", 99)
    (root / "ant" / "images" / "more" / "x.png").rename(root / "ant" / "images" / "more" / "X.PNG")
    assert counts(open_source("folder", root))["ant"] == 5


def test_grey_stays_grey_and_converts(tmp_path, save_image):
    for number, name in enumerate(FIVE):
        save_image(tmp_path / name / "0.png", number, mode="L")
    assert open_source("folder", tmp_path).channels == 1
    assert open_source("folder", tmp_path, channels=3).channels == 3


def test_mixed_grey_and_colour_names_one_of_each(root, save_image):
    save_image(root / "bee" / "grey.png", 99, mode="L")
    with pytest.raises(
        DataError, match=r"bee/grey\.png is grey and \w+/0\.png is in colour; --set tasks\.channels=1 or --set tasks"
    ):
        open_source("folder", root)
    assert [open_source("folder", root, channels=channels).channels for channels in (1, 3)] == [1, 3]


def test_damaged_and_truncated_images_are_named(root):
    whole = (root / "cat" / "2.png").read_bytes()
    for content, reason in ((b"not an image", "none of the formats"), (whole[:100], ""), (b"", "it is empty")):
        (root / "cat" / "2.png").write_bytes(content)
        with pytest.raises(DataError, match=rf"cannot decode the image .*cat/2\.png: .*{reason}.*; fetch it again"):
            open_source("folder", root)


def test_class_in_two_splits_is_refused(divided, save_image):
    save_image(divided / "test" / "ant" / "0.png", 99)
    with pytest.raises(
        DataError, match="class 'ant' is in both train and test; few-shot splits have different classes"
    ):
        open_source("folder", divided)


def test_some_split_folders_without_the_others(divided):
    shutil.rmtree(divided / "val")
    with pytest.raises(DataError, match="found train and test without val"):
        open_source("folder", divided)


def test_empty_split_folder(divided):
    shutil.rmtree(divided / "val" / "cat")
    with pytest.raises(DataError, match="expected class folders with images in val, found none"):
        open_source("folder", divided)


def test_same_file_in_two_splits_is_refused_naming_both(divided):
    shutil.copy(divided / "train" / "bee" / "1.png", divided / "test" / "dog" / "other.png")
    with pytest.raises(
        DataError, match=r"train/bee/1\.png \(train\) and test/dog/other\.png \(test\) are the same file"
    ):
        open_source("folder", divided)


def test_same_file_twice_in_one_split_is_not_a_leak(divided):
    shutil.copy(divided / "train" / "bee" / "1.png", divided / "train" / "ant" / "other.png")
    assert counts(open_source("folder", divided))["ant"] == 4


def test_too_few_classes_and_none(tmp_path, save_image):
    save_image(tmp_path / "one" / "0.png", 0)
    with pytest.raises(DataError, match=r"expected at least 3 classes, .* found 'one'; give a folder with one folder"):
        open_source("folder", tmp_path)
    with pytest.raises(DataError, match="cannot list the folder"):
        open_source("folder", tmp_path / "missing")
    with pytest.raises(ConfigError, match="'folder' needs a place"):
        open_source("folder")


def test_few_classes_make_a_sensible_message(root):
    with pytest.raises(DataError, match="zoo, split 'val': 5-way tasks need as many classes, it has 1; lower ways"):
        EpisodeSampler(open_source("folder", root), "val", 5, 1, 1)


def test_links_are_followed_and_circles_refused(root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    shutil.move(root / "ant" / "3.png", tmp_path / "elsewhere" / "3.png")
    (root / "ant" / "more").symlink_to(tmp_path / "elsewhere")
    assert counts(open_source("folder", root))["ant"] == 4
    (root / "ant" / "loop").symlink_to(root / "ant")
    with pytest.raises(DataError, match=r"ant/loop is a link to a folder that it lies in"):
        open_source("folder", root)


def test_classes_may_be_called_train_or_test(root, save_image):
    save_image(root / "train" / "steam.png", 98)
    save_image(root / "test" / "paper.png", 99)
    assert counts(open_source("folder", root)) == {**dict.fromkeys(FIVE, 4), "test": 1, "train": 1}


@pytest.mark.parametrize("target", ["nothing.png", "bee/gone.png"])
def test_link_to_nowhere(root, target):
    (root / "bee" / "gone.png").symlink_to(root / target)
    with pytest.raises(DataError, match=r"bee/gone\.png is no file that can be read"):
        open_source("folder", root)


def test_folder_without_rights(root, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(folders.os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cannot list the folder .*zoo \(Permission denied\)"):
        open_source("folder", root)


def test_file_without_rights(root, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(sources.Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"cannot read .*zoo/\w+/0\.png \(Permission denied\)"):
        open_source("folder", root)


def test_second_opening_decodes_nothing_and_changes_are_seen(root, save_image):
    calls = []
    first = open_source("folder", root, progress=lambda now: calls.append((now.done, now.total)))
    assert calls[-1] == (20, 20)
    calls.clear()
    again = open_source("folder", root, progress=lambda now: calls.append((now.done, now.total)))
    assert not calls
    assert isinstance(again.images, np.memmap)
    assert again.content_sha256 == first.content_sha256
    save_image(root / "ant" / "0.png", 77)
    os.utime(root / "ant" / "0.png", ns=(1, 1))
    assert open_source("folder", root).content_sha256 != first.content_sha256


@pytest.mark.parametrize("change", [{"size": 16}, {"channels": 1}])
def test_cache_tells_sizes_and_channels_apart(root, change):
    open_source("folder", root)
    assert open_source("folder", root, **change).images.shape[1:] == (
        change.get("channels", 3),
        change.get("size", 32),
        change.get("size", 32),
    )


def test_episodes_from_the_mapped_file(root):
    source = open_source("folder", root, size=8)
    batch = EpisodeSampler(source, "train", 3, (1, 2), 2).sample(Key.from_seed(0), 4)
    assert batch.query_images.shape == (4, 6, 3, 8, 8)
    assert re.fullmatch("[0-9a-f]{64}", EpisodeSampler(source, "train", 3, 1, 2).sha256(Key.from_seed(0), 4))


def test_pixels_of_a_small_folder_are_these(tmp_path):
    """Pins the reading order, the crop and the normalisation: a change needs a new IMAGES_VERSION."""
    for number, name in enumerate(FIVE):
        (tmp_path / name).mkdir()
        ramp = (np.indices((12, 20)).sum(0) * (number + 1) % 256).astype(np.uint8)
        Image.fromarray(ramp).save(tmp_path / name / "ramp.png")
    source = open_source("folder", tmp_path, size=12)
    assert source.content_sha256 == "833a2d33867cdfb565bcb5e3f2bd5b8d32504224a49e33a2e4f4ff5039a17adb"


def test_images_of_a_folder_are_found_as_classes_are(tmp_path):
    for name in (
        "b.png",
        "a/c.JPG",
        "a/d/e.webp",
        "notes.txt",
        "._b.png",
        ".hidden/f.png",
        "a/.ipynb_checkpoints/g.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [path.relative_to(tmp_path).as_posix() for path in images_in(tmp_path)] == ["a/c.JPG", "a/d/e.webp", "b.png"]
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    with pytest.raises(DataError, match="is a link to a folder that it lies in"):
        images_in(tmp_path)
    (tmp_path / "a" / "up").unlink()
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="is no file that can be read"):
        images_in(tmp_path)
