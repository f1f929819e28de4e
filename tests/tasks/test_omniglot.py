"""Omniglot: the standard few-shot split with its rotations, from the .npz file or from the folders of images."""

from __future__ import annotations

import re

import numpy as np
import pytest

from metadarts.core.errors import DataError
from metadarts.core.rng import Key
from metadarts.tasks import EpisodeSampler, nearest_class_mean, omniglot, open_source
from metadarts.tasks.sources.omniglot import FILE, read_folder, vinyals_split


@pytest.fixture(scope="module")
def file(data_dir):
    path = data_dir / FILE
    if not path.is_file():
        pytest.skip(f"no {FILE} in {data_dir}")
    return path


@pytest.fixture(scope="module")
def source(file):
    return omniglot(file)


def small_arrays():
    """Three characters, one a split, of four drawings each."""
    images = np.random.Generator(np.random.Philox(1)).integers(0, 256, (12, 28, 28), dtype=np.uint8)
    return {
        "images": images,
        "character": np.repeat([2, 0, 1], 4),
        "drawer": np.tile(np.arange(4), 3),
        "character_vinyals": np.array([0, 1, 2]),
    }


def write(folder, **changes):
    arrays = {**small_arrays(), **changes}
    path = folder / FILE
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_standard_split_counts():
    codes = list(vinyals_split().values())
    assert [codes.count(split) for split in (0, 1, 2)] == [1028, 172, 423]


def test_counts_with_rotations(source):
    assert {split: len(numbers) for split, numbers in source.split.items()} == {"train": 4112, "val": 688, "test": 1692}
    assert source.images.shape == (32460, 1, 28, 28)
    assert {len(entry.rows) for entry in source.classes} == {20}


def test_split_file_agrees_with_the_data(source):
    codes = vinyals_split()
    for code, split in enumerate(("train", "val", "test")):
        names = {source.classes[number].name.partition(" ")[0] for number in source.split[split]}
        assert names == {name for name, of in codes.items() if of == code}


def test_rotations_of_a_character_stay_in_its_split(source):
    for numbers in source.split.values():
        rows = {source.classes[number].rows[0] for number in numbers}
        assert len(rows) * 4 == len(numbers)


def test_rotation_turns_the_image(source):
    sampler = EpisodeSampler(source, "test", 20, 1, 5)
    plan = sampler.plan(Key.from_seed(0), 3)
    batch = sampler.load(plan)
    for task, way in np.ndindex(plan.classes.shape):
        entry = source.classes[plan.classes[task, way]]
        assert entry.name.endswith(f"rot{90 * entry.quarter_turns:03d}")
        turned = np.rot90(source.images[plan.support_rows[task, way, 0], 0], entry.quarter_turns)
        np.testing.assert_array_equal(batch.support_images[task, way, 0].numpy() * 255, turned)


def test_ink_is_bright(source):
    assert 10 < source.images.mean() < 64


def test_one_task_may_hold_two_rotations_of_a_character(tmp_path):
    source = omniglot(write(tmp_path))
    plan = EpisodeSampler(source, "train", 4, 1, 3).plan(Key.from_seed(0), 2)
    assert all(sorted(classes) == [0, 1, 2, 3] for classes in plan.classes.tolist())
    assert {entry.quarter_turns for entry in source.classes[:4]} == {0, 1, 2, 3}


def test_rows_follow_the_character_numbers(tmp_path):
    source = omniglot(write(tmp_path))
    assert [source.classes[4 * number].rows.tolist() for number in range(3)] == [
        [4, 5, 6, 7],
        [8, 9, 10, 11],
        [0, 1, 2, 3],
    ]
    assert source.split == {"train": (0, 1, 2, 3), "val": (4, 5, 6, 7), "test": (8, 9, 10, 11)}


def test_opens_by_name_from_a_file_or_its_folder(tmp_path):
    path = write(tmp_path)
    assert open_source("omniglot", path).content_sha256 == open_source("omniglot", tmp_path).content_sha256


def test_default_place_is_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METADARTS_CACHE", str(tmp_path))
    with pytest.raises(
        DataError, match=re.escape(f"expected Omniglot in {tmp_path / 'omniglot'}, found nothing there")
    ):
        omniglot()
    (tmp_path / "omniglot").mkdir()
    write(tmp_path / "omniglot")
    assert len(omniglot().classes) == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drawer": None, "images": None}, "lacks the arrays drawer, images"),
        ({"images": np.zeros((12, 28, 28))}, "images must be uint8"),
        ({"images": np.zeros((12, 20, 20), np.uint8)}, "images must be uint8"),
        ({"drawer": np.zeros(3, np.int64)}, r"drawer must be \[12\]"),
        ({"character": np.full(12, 3)}, r"character must lie in 0\.\.2"),
        ({"character_vinyals": np.array([0, 1, 3])}, "character_vinyals must hold 0, 1 or 2"),
        ({"character_names": np.array(["one"])}, "character_names one name for each"),
        ({"images": np.array([object()] * 12)}, "holds Python objects"),
        ({"images": np.zeros((0, 28, 28), np.uint8)}, r"images must be uint8 .*, given uint8 \[0, 28, 28\]"),
        ({"character_vinyals": np.array(0)}, r"character_vinyals must be a list of whole numbers, given int64 \[\]"),
        ({"character_vinyals": np.zeros((3, 1), int)}, "character_vinyals must be a list of whole numbers"),
        ({"character_vinyals": np.zeros(0, int)}, "character must lie in"),
        ({"character": np.array(["a"] * 12)}, r"character must be a list of whole numbers, given <U1 \[12\]"),
        ({"drawer": np.array([b"a"] * 12)}, "drawer must be a list of whole numbers"),
        ({"character_names": np.array("one")}, "character_names must be a list of text"),
        ({"character_names": np.array([b"caf\xe9"] * 3)}, "character_names must be a list of text"),
    ],
)
def test_refuses_malformed_files(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        omniglot(write(tmp_path, **changes))


def test_header_that_claims_a_terabyte(tmp_path, claims_a_terabyte):
    path = write(tmp_path, images=None)
    claims_a_terabyte(path, "images")
    with pytest.raises(DataError, match=r"cannot read .*images\.npy is cut short"):
        omniglot(path)


def test_missing_file_says_where_to_put_it(tmp_path):
    path = tmp_path / "mine.npz"
    with pytest.raises(
        DataError, match=re.escape(f"expected the Omniglot file {path}, there is none; put {FILE} there")
    ):
        omniglot(path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut"])
def test_file_that_is_no_npz(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(DataError, match="cannot read"):
        omniglot(tmp_path)


@pytest.fixture(scope="module")
def image_folder(data_dir, tmp_path_factory):
    """Two characters as Omniglot's archives hold them: 105x105 PNG files, one bit a pixel, ink black."""
    from PIL import Image

    packed = data_dir / "omniglot_105_bits.npz"
    if not packed.is_file():
        pytest.skip(f"no {packed.name} in {data_dir}")
    folder = tmp_path_factory.mktemp("omniglot")
    with np.load(packed, allow_pickle=False) as arrays:
        images, names, split = arrays["images"], arrays["character_names"], arrays["character_split"]
    for character in (0, len(names) - 1):
        place = folder / ("images_background", "images_evaluation")[int(split[character])] / names[character]
        place.mkdir(parents=True)
        for drawer in range(20):
            bits = np.unpackbits(images[character * 20 + drawer].ravel())[: 105 * 105].reshape(105, 105)
            Image.fromarray((255 * (1 - bits)).astype(np.uint8)).convert("1").save(place / f"0001_{drawer + 1:02d}.png")
    return folder


def test_folder_reads_like_the_file(image_folder, file, source):
    drawings = read_folder(image_folder)
    names = [entry.name.partition(" ")[0] for entry in source.classes[::4]]
    for number, name in enumerate(drawings.character_names.tolist()):
        rows = source.classes[4 * names.index(name)].rows
        expected = source.images[rows, 0]
        np.testing.assert_array_equal(drawings.images[drawings.character == number], expected)
        np.testing.assert_array_equal(drawings.drawer[drawings.character == number], source.variety[rows])
        assert drawings.character_vinyals[number] == vinyals_split()[name]


def test_incomplete_folder_is_refused(image_folder):
    with pytest.raises(DataError, match=r"expected 32460 images in .*, found 40; unpack both archives again"):
        omniglot(image_folder)


def test_folder_of_something_else_is_refused(tmp_path):
    for part in ("images_background", "images_evaluation"):
        (tmp_path / "omniglot-py" / part / "Klingon" / "character01").mkdir(parents=True)
    with pytest.raises(DataError, match=r"expected Omniglot's .* folders, found \['Klingon/character01'"):
        omniglot(tmp_path)


def test_nearest_class_mean(source, record_property):
    batch = EpisodeSampler(source, "test", 5, 1, 15).sample(Key.from_seed(1), 150)
    accuracy = nearest_class_mean(batch).mean().item()
    record_property("nearest class mean, Omniglot test, 150 episodes of 5-way 1-shot", round(accuracy, 3))
    assert 0.39 < accuracy < 0.50
