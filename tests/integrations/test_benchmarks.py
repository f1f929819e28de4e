"""learn2learn's benchmarks by name: its layouts on disk, its splits, its scales, and what it says without data."""

from __future__ import annotations

import json
import sys
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from metadarts.core.errors import ConfigError, DataError
from metadarts.core.rng import Key
from metadarts.integrations import TASKSETS, open_tasksets

KEY = Key.from_seed(7)


def test_names_are_learn2learns(l2l):
    assert set(TASKSETS) == set(l2l.vision.benchmarks.list_tasksets())


def test_real_cifarfs_has_bertinettos_classes(l2l, layout, data_dir, tmp_path):
    """The layout follows one list of the classes of each split, the expectation another."""
    mosaics, lists = data_dir / "cifar100", data_dir / "cifar100_fewshot_splits.json"
    if not mosaics.is_dir() or not lists.is_file():
        pytest.skip(f"no CIFAR-100 in {data_dir}")
    expected = json.loads(lists.read_text(encoding="utf-8"))["cifar_fs"]
    written = layout.lay_out_cifarfs(mosaics, tmp_path, per_class=6, per_split=5)
    names = {image.tobytes(): name for name, images in written.items() for image in images}
    tasksets = open_tasksets("cifarfs", tmp_path)
    for split in ("train", "val", "test"):
        batch = tasksets.episodes(split, ways=5, shots=1, queries=5).sample(KEY, tasks=1)
        pixels = (batch.query_images[0] * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        found = [names[image.tobytes()] for image in pixels]
        assert found == [name for name in found[::5] for _ in range(5)]
        assert len(set(found)) == 5
        assert set(found) <= set(expected[split])


@pytest.fixture
def omniglot_root(l2l, monkeypatch, tmp_path):
    """Thirty characters in Omniglot's folders, 3 drawings each: a line whose length tells the character.

    torchvision asks for the original archives by their checksums; that question is answered with yes.
    """
    from torchvision.datasets import Omniglot

    monkeypatch.setattr(Omniglot, "_check_integrity", lambda self: True)
    for part, (alphabet, character), drawing in product((0, 1), product(range(3), range(5)), range(3)):
        number = 15 * part + 5 * alphabet + character
        pixels = np.full((28, 28), 255, dtype=np.uint8)
        pixels.flat[: 1 + number] = 20 * drawing
        folder = tmp_path / "omniglot-py" / ("images_background", "images_evaluation")[part]
        folder = folder / f"alphabet{alphabet}" / f"character{character:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number:04d}_{drawing:02d}.png")
    return tmp_path


def characters(tasksets, split) -> set[int]:
    """The characters of many tasks, by the number of their inked pixels."""
    batch = tasksets.episodes(split, ways=1, shots=1, queries=1).sample(KEY, tasks=150)
    inked = (batch.support_images > 0).sum((2, 3, 4))
    return set((inked - 1).flatten().tolist())


def test_omniglots_splits_share_no_class_and_stay(l2l, omniglot_root):
    """learn2learn 0.2.0 shuffles the classes by the global generator and draws every split's tasks from all of them."""
    first, second = (open_tasksets("omniglot", omniglot_root) for _ in range(2))
    seen = {split: characters(first, split) for split in ("train", "val", "test")}
    assert seen == {split: characters(second, split) for split in seen}
    assert sum(len(own) for own in seen.values()) == len(set.union(*seen.values())) == 30
    assert first.channels == 1


class RawImages(torch.utils.data.Dataset):
    """Stands in for mini-ImageNet's pickled file: ten classes, brightness 0 to 255."""

    def __init__(self, root, mode, download) -> None:
        self.transform = None

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index):
        image = torch.full((3, 8, 8), 255.0 * index / 39)
        return (image if self.transform is None else self.transform(image)), index % 10


def test_mini_imagenets_images_are_brought_to_the_unit_interval(l2l, monkeypatch, tmp_path):
    monkeypatch.setattr(l2l.vision.datasets, "MiniImagenet", RawImages)
    batch = open_tasksets("mini-imagenet", tmp_path).episodes("train", 10, 1, 3).sample(KEY, 1)
    values = torch.cat([batch.support_images, batch.query_images], 1)
    assert (float(values.min()), float(values.max())) == (0.0, 1.0)


@pytest.fixture
def no_network(l2l, monkeypatch):
    """Downloads fail at once, as they do where a link is dead."""

    def fail(*arguments, **settings):
        raise ConnectionError("no route\nto host")

    for name in ("cifarfs", "fc100", "mini_imagenet", "tiered_imagenet"):
        module = sys.modules[f"learn2learn.vision.datasets.{name}"]
        for function in ("download_file", "download_file_from_google_drive", "download_pkl"):
            monkeypatch.setattr(module, function, fail, raising=False)
    monkeypatch.setattr("torchvision.datasets.omniglot.download_and_extract_archive", fail)


@pytest.mark.parametrize("name", sorted(TASKSETS))
def test_missing_data_says_where_to_put_what(no_network, name, tmp_path, capsys):
    with pytest.raises(DataError) as caught:
        open_tasksets(name, tmp_path / "deep" / "root")
    message = str(caught.value)
    assert TASKSETS[name] in message
    assert str(tmp_path / "deep" / "root") in message
    assert "\n" not in message
    assert capsys.readouterr().out == ""


def test_half_a_layout_is_a_data_error(no_network, noise_root):
    (noise_root / "cifarfs" / "cifar100" / "splits" / "bertinetto" / "val.txt").unlink()
    with pytest.raises(DataError, match=r"FileNotFoundError.*no folder cifarfs/processed"):
        open_tasksets("cifarfs", noise_root)


def test_default_root_is_in_the_cache_folder(no_network, monkeypatch, tmp_path):
    monkeypatch.setenv("METADARTS_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=str(tmp_path / "learn2learn")):
        open_tasksets("fc100")


def test_unknown_name_lists_the_valid_ones():
    with pytest.raises(
        ConfigError, match=r"unknown learn2learn taskset 'cifar'; did you mean 'cifarfs'\?.*tiered-imagenet"
    ):
        open_tasksets("cifar")
