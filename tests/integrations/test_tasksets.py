"""learn2learn's tasksets as our episodes: the right pixels, and every task a pure function of its key."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import torch

from metadarts.core.errors import DataError
from metadarts.core.rng import Key
from metadarts.integrations import Tasksets, open_tasksets
from metadarts.integrations.randomness import seeded_globals
from metadarts.tasks import finish

KEY = Key.from_seed(7)


@pytest.fixture
def tasksets(l2l, noise_root) -> Tasksets:
    return open_tasksets("cifarfs", noise_root)


def global_draws() -> tuple[float, float, float]:
    """What the global generators give next; they go on from there."""
    return random.random(), float(np.random.random()), float(torch.rand(()))  # noqa: NPY002 - the state under test


def identity(images: torch.Tensor, classes: dict[str, np.ndarray]) -> list[tuple[str, int]]:
    """(class, number) of every image [N, C, H, W], found by its pixels."""
    known = {image.tobytes(): (name, n) for name, images in classes.items() for n, image in enumerate(images)}
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return [known[image.tobytes()] for image in pixels]


@pytest.mark.parametrize(("split", "first"), [("train", 0), ("val", 6), ("test", 12)])
def test_tasks_hold_the_splits_own_images(tasksets, noise_classes, split, first):
    batch = tasksets.episodes(split, ways=3, shots=2, queries=4).sample(KEY, tasks=5)
    assert batch.support_images.shape == (5, 6, 3, 32, 32)
    assert batch.query_images.shape == (5, 12, 3, 32, 32)
    assert batch.support_images.dtype == torch.float32
    assert not batch.ragged
    assert batch.ways == 3
    own = set(list(noise_classes)[first : first + 6])
    drawn = set()
    for task in range(5):
        support = identity(batch.support_images[task], noise_classes)
        query = identity(batch.query_images[task], noise_classes)
        assert len({*support, *query}) == 18  # no image twice
        by_label, labels = {}, [*batch.support_labels[task], *batch.query_labels[task]]
        for (name, _), label in zip(support + query, labels, strict=True):
            by_label.setdefault(int(label), set()).add(name)
        assert sorted(by_label) == [0, 1, 2]
        assert all(len(names) == 1 for names in by_label.values())
        assert len(set.union(*by_label.values())) == 3
        drawn |= set.union(*by_label.values())
    assert drawn <= own
    assert len(drawn) > 3  # tasks differ


def test_labels_are_those_that_learn2learn_dealt(tasksets):
    episodes = tasksets.episodes("train", ways=4, shots=1, queries=2)
    with seeded_globals(KEY.child(0)):
        images, labels = episodes.taskset.sample()
    batch = episodes.sample(KEY, tasks=1)
    assert labels[::3].tolist() != [0, 1, 2, 3]
    for label in range(4):
        theirs = images[labels == label]
        assert torch.equal(batch.support_images[0, batch.support_labels[0] == label], theirs[:1])
        assert torch.equal(batch.query_images[0, batch.query_labels[0] == label], theirs[1:])


def test_support_is_a_random_part_of_each_class(tasksets, noise_classes):
    batch = tasksets.episodes("train", ways=5, shots=1, queries=7).sample(KEY, tasks=20)
    numbers = {number for task in range(20) for _, number in identity(batch.support_images[task], noise_classes)}
    assert numbers == set(range(8))


def test_task_is_a_function_of_its_key(tasksets):
    episodes = tasksets.episodes("train", ways=3, shots=1, queries=2)
    long = episodes.sample(KEY, tasks=5)
    episodes.sample(Key.from_seed(99), tasks=1)
    part = episodes.sample(KEY, tasks=2, first=3)
    assert torch.equal(part.support_images, long.support_images[3:])
    assert torch.equal(part.query_images, long.query_images[3:])
    assert not torch.equal(episodes.sample(Key.from_seed(8), 5).support_images, long.support_images)


def test_global_generators_go_on_as_if_nothing_had_happened(tasksets):
    with seeded_globals(KEY):
        alone = global_draws()
    with seeded_globals(KEY):
        tasksets.episodes("train", 3, 1, 2).sample(Key.from_seed(1), tasks=2)
        assert global_draws() == alone


def test_opening_moves_no_global_generator(l2l, noise_root):
    with seeded_globals(KEY):
        alone = global_draws()
    with seeded_globals(KEY):
        assert open_tasksets("cifarfs", noise_root).content_sha256
        assert global_draws() == alone


def test_globals_are_given_back_after_an_error():
    with seeded_globals(KEY):
        alone = global_draws()
    with seeded_globals(KEY):
        with suppress(ZeroDivisionError), seeded_globals(Key.from_seed(1)):
            global_draws()
            raise ZeroDivisionError
        assert global_draws() == alone


def test_each_global_generator_follows_the_key():
    draws = []
    for seed in (1, 2, 1):
        with seeded_globals(Key.from_seed(seed)):
            draws.append(global_draws())
    assert draws[0] == draws[2]
    assert all(one != two for one, two in zip(draws[0], draws[1], strict=True))


def test_digest_names_the_first_tasks(tasksets):
    episodes = tasksets.episodes("val", 2, 1, 1)
    digest = episodes.sha256(KEY, 3)
    assert digest == episodes.sha256(KEY, 3)
    others = [
        episodes.sha256(KEY, 2),
        episodes.sha256(Key.from_seed(1), 3),
        tasksets.episodes("test", 2, 1, 1).sha256(KEY, 3),
    ]
    assert len({digest, *others}) == 4


def test_content_digest_tells_other_pixels(l2l, layout, noise_classes, noise_root, tmp_path):
    split = {name: layout.SPLITS[number // 6] for number, name in enumerate(noise_classes)}
    dark = {name: images // 2 for name, images in noise_classes.items()}
    layout.write_cifarfs(tmp_path / "dark", dark.items(), split)
    digests = [open_tasksets("cifarfs", root).content_sha256 for root in (noise_root, noise_root, tmp_path / "dark")]
    assert digests[0] == digests[1] != digests[2]


def test_channels_are_counted(tasksets):
    assert tasksets.channels == 3


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("validation", 2, 1, 1), r"unknown split 'validation'; did you mean 'val'\?|valid names: test, train, val"),
        (("train", 7, 1, 1), r"7-way tasks of 1 shots and 1 queries need as many classes .* it has 6 of at least 8"),
        (("train", 2, 4, 5), r"need as many classes of 9 images, it has 6 of at least 8; lower ways, shots or queries"),
        (("train", 2, 0, 5), r"shots must be one whole number, at least 1, given 0"),
        (("train", 2, (1, 3), 5), r"shots must be one whole number, at least 1, given \(1, 3\)"),
    ],
)
def test_impossible_episodes_are_refused_at_once(tasksets, asked, message):
    with pytest.raises(DataError, match=message):
        tasksets.episodes(*asked)


def test_no_tasks_are_refused(tasksets):
    with pytest.raises(DataError, match="tasks must be at least 1, given 0"):
        tasksets.episodes("train", 2, 1, 1).sample(KEY, 0)


class Numbers(torch.utils.data.Dataset):
    """Thirty items of class ``index % 5``; the image says the index, and noise that torch's global generator draws."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.stack([torch.tensor(float(index)), torch.rand(())]).view(2, 1, 1).to(self.dtype), index % 5


def own_taskset(l2l, transforms=("NWays", "KShots", "LoadData", "RemapLabels"), dtype=torch.float32, **settings):
    dataset = l2l.data.MetaDataset(Numbers(dtype))
    kinds = l2l.data.transforms
    made = [getattr(kinds, name)(dataset, **settings.get(name, {})) for name in transforms]
    return l2l.data.Taskset(dataset, made, num_tasks=settings.get("num_tasks", -1))


def test_any_taskset_is_taken_and_its_random_transforms_follow_the_key(l2l):
    episodes = Tasksets("numbers", {"train": own_taskset(l2l, num_tasks=3)}).episodes("train", 4, 2, 3)
    one, other = episodes.sample(KEY, 3), episodes.sample(KEY, 3)
    assert torch.equal(one.support_images, other.support_images)
    assert one.support_images[..., 1, :, :].unique().numel() == 3 * 4 * 2
    classes = one.support_images[:, :, 0].flatten(1).long() % 5
    assert torch.equal(classes, classes[:, ::2].repeat_interleave(2, 1))


def test_raw_tasks_are_the_tasks_also_while_another_thread_draws(l2l):
    tasksets = Tasksets("numbers", {split: own_taskset(l2l) for split in ("train", "val")})
    train, val = (tasksets.episodes(split, 4, 2, 3) for split in ("train", "val"))
    expected = [episodes.sample(KEY, 40) for episodes in (train, val)]
    assert not any(batch.ragged for batch in expected)
    with ThreadPoolExecutor(2) as threads:
        drawn = [threads.submit(episodes.raw, KEY, 40) for episodes in (train, val, train, val)]
        for number, raw in enumerate(drawn):
            pairs = zip(finish(raw.result()).tensors(), expected[number % 2].tensors(), strict=True)
            assert all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transforms": ("LoadData",)}, r"expected 2 classes labelled from 0 on with 2 images each.*RemapLabels"),
        ({"dtype": torch.uint8}, r"expected float images \[C, H, W\], given uint8 \[2, 1, 1\]; give .* ToTensor"),
        ({"KShots": {"replacement": True}}, "KShots draws images with replacement.*replacement=False"),
    ],
)
def test_unfit_tasksets_are_refused(l2l, settings, message):
    with pytest.raises(DataError, match=message):
        Tasksets("numbers", {"train": own_taskset(l2l, **settings)}).episodes("train", 2, 1, 1).sample(KEY, 1)


def test_unknown_transforms_are_refused(l2l):
    taskset = own_taskset(l2l)
    taskset.task_transforms = [*taskset.task_transforms, lambda description: description]
    with pytest.raises(DataError, match=r"NWays, KShots.*RandomClassRotation; given function"):
        Tasksets("numbers", {"train": taskset}).episodes("train", 2, 1, 1)
    taskset.task_transforms = lambda description: description
    with pytest.raises(DataError, match="a list of task transforms, given function"):
        Tasksets("numbers", {"train": taskset}).episodes("train", 2, 1, 1)
