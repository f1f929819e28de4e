"""Our sources in learn2learn's TaskDataset: the same pixels as our sampler's, and tasks of the right classes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from metadarts.core.errors import DataError
from metadarts.core.rng import Key
from metadarts.integrations import SourceDataset, Tasksets, as_dataset
from metadarts.integrations.randomness import seeded_globals
from metadarts.tasks import EpisodeSampler, Source
from metadarts.tasks.source import ClassEntry

KEY = Key.from_seed(5)
PER_CLASS = 5


@pytest.fixture
def source() -> Source:
    """Four characters of five images of noise each, two of them also turned: six classes."""
    images = KEY.child("images").numpy().integers(0, 256, (4 * PER_CLASS, 3, 6, 6), dtype=np.uint8)
    rows = np.arange(4 * PER_CLASS).reshape(4, PER_CLASS)
    plan = ((0, 0), (0, 1), (1, 0), (1, 2), (2, 3), (3, 0))
    classes = tuple(ClassEntry(f"{part} turned {turns}", rows[part], turns) for part, turns in plan)
    split = {"train": (0, 1, 3, 4), "test": (5, 2)}
    return Source("noise", images, classes, split, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def bits(image: torch.Tensor) -> bytes:
    return image.contiguous().numpy().tobytes()


def by_pixels(dataset: SourceDataset) -> dict[bytes, int]:
    """Image -> its class number, which is unique because the images are noise."""
    table = {bits(image): number for image, number in (dataset[index] for index in range(len(dataset)))}
    assert len(table) == len(dataset)
    return table


@pytest.mark.parametrize(("split", "classes"), [("train", (0, 1, 3, 4)), ("test", (5, 2))])
def test_items_are_the_samplers_pixels_bit_for_bit(source, split, classes):
    dataset = as_dataset(source, split)
    assert dataset.labels == [number for number in classes for _ in range(PER_CLASS)]
    sampler = EpisodeSampler(source, split, ways=len(classes), shots=2, queries=PER_CLASS - 2)
    plan = sampler.plan(KEY, 1)
    batch = sampler.load(plan)
    table = by_pixels(dataset)
    for images, shots in ((batch.support_images[0], 2), (batch.query_images[0], PER_CLASS - 2)):
        assert [table[bits(image)] for image in images] == np.repeat(plan.classes[0], shots).tolist()
    assert dataset[0][0].dtype == torch.float32
    assert dataset[0][0].shape == (3, 6, 6)


def task_dataset(l2l, dataset, ways, shots, kind="Taskset"):
    """The transforms of learn2learn's own examples."""
    meta = l2l.data.MetaDataset(dataset, indices_to_labels=dict(enumerate(dataset.labels)))
    kinds = l2l.data.transforms
    transforms = [kinds.NWays(meta, ways), kinds.KShots(meta, shots), kinds.LoadData(meta), kinds.RemapLabels(meta)]
    return getattr(l2l.data, kind)(meta, task_transforms=transforms)


def test_learn2learn_draws_tasks_of_the_right_images(l2l, source):
    dataset = as_dataset(source, "train")
    table, tasks, seen = by_pixels(dataset), task_dataset(l2l, dataset, ways=3, shots=4), set()
    for number in range(10):
        with seeded_globals(KEY.child(number)):
            images, labels = tasks.sample()
        assert len({bits(image) for image in images}) == 12
        pairs = {(table[bits(image)], int(label)) for image, label in zip(images, labels, strict=True)}
        assert len(pairs) == 3  # one label a class, one class a label
        assert {label for _, label in pairs} == {0, 1, 2}
        seen |= {number for number, _ in pairs}
    assert seen == {0, 1, 3, 4}


def test_meta_dataset_finds_the_labels_by_itself(l2l, source):
    dataset = as_dataset(source, "train")
    meta = l2l.data.MetaDataset(dataset)
    assert dict(meta.indices_to_labels) == dict(enumerate(dataset.labels))


def test_there_and_back_again(l2l, source):
    """Source -> learn2learn's tasks -> our episodes: images of one label are of one class of the source."""
    taskset = task_dataset(l2l, as_dataset(source, "train"), ways=2, shots=1)
    batch = Tasksets("noise", {"train": taskset}).episodes("train", ways=4, shots=2, queries=3).sample(KEY, tasks=2)
    table = by_pixels(as_dataset(source, "train"))
    for task in range(2):
        support = [table[bits(image)] for image in batch.support_images[task]]
        query = [table[bits(image)] for image in batch.query_images[task]]
        assert support[::2] == support[1::2] == query[::3] == query[1::3] == query[2::3]
        assert set(support) == {0, 1, 3, 4}


def test_deprecated_task_dataset_serves_as_well(l2l, source):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # learn2learn's word for its own older name
        taskset = task_dataset(l2l, as_dataset(source, "test"), ways=2, shots=1, kind="TaskDataset")
    assert Tasksets("noise", {"test": taskset}).episodes("test", 2, 1, 1).sample(KEY, 1).ways == 2


def test_empty_and_unknown_splits_are_refused(source):
    with pytest.raises(DataError, match="unknown split 'val'"):
        as_dataset(source, "val")
    empty = Source("none", source.images, (ClassEntry("none", np.zeros(0, dtype=np.int64)),), {"train": (0,)})
    with pytest.raises(DataError, match="split 'train': no images"):
        as_dataset(empty, "train")
