"""Task batches: slices, single tasks, and the note of whether anything is padding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.core.types import TaskBatch, is_alpha
from metadarts.testing import random_tasks

FIELDS = [f"{side}_{name}" for side in ("support", "query") for name in ("images", "labels", "mask")]


@pytest.fixture(scope="module")
def batch() -> TaskBatch:
    return random_tasks(Key.from_seed(0), tasks=3, size=4)


def test_tasks_are_counted_and_sliced_with_their_axis_kept(batch):
    assert batch.tasks == 3
    middle = batch.slice(1, 3)
    assert middle.tasks == 2
    assert middle.ways == batch.ways
    for name in FIELDS:
        assert torch.equal(getattr(middle, name), getattr(batch, name)[1:])
        assert torch.equal(getattr(batch.task(2), name), getattr(batch, name)[2:])


@pytest.mark.parametrize("side", ["support", "query"])
def test_padding_of_either_side_makes_a_batch_ragged_and_slices_know_better(batch, side):
    mask = getattr(batch, f"{side}_mask").clone()
    mask[1, -1] = False
    padded = replace(batch, **{f"{side}_mask": mask})
    assert padded.ragged
    assert not batch.ragged
    assert [padded.task(index).ragged for index in range(3)] == [False, True, False]


def test_to_changes_the_dtype_of_images_only(batch):
    noise = torch.zeros(3, 2, 1, 4, dtype=torch.float64)
    narrow = batch.with_noise({"normal": noise}).to("cpu", torch.float32)
    assert narrow.noise["normal"].dtype == torch.float64
    assert narrow.support_images.dtype == narrow.query_images.dtype == torch.float32
    assert narrow.query_labels.dtype == torch.int64
    assert narrow.query_mask.dtype == torch.bool
    assert batch.to("cpu").support_images.dtype == torch.float64


@pytest.mark.parametrize(("name", "alpha"), [("alphas.normal", True), ("stem.conv1", False), ("cells.alphas.x", False)])
def test_alphas_are_known_by_their_prefix(name, alpha):
    assert is_alpha(name) == alpha


def halves_of(labels, mask, ways=3):
    images, labels, mask = torch.zeros(1, len(labels), 1, 2, 2), torch.tensor([labels]), torch.tensor([mask])
    return TaskBatch(images, labels, mask, images, labels, mask, ways).in_halves()


def test_halves_take_the_images_of_each_class_in_turn():
    batch = halves_of([0, 1, 2, 0, 0, 2, 1, 2, 2], [True] * 9)
    first, second = batch.halves[0]
    assert first.tolist() == [True, True, True, False, True, False, False, True, False]
    assert torch.equal(second, ~first)
    assert not batch.ragged


def test_padding_is_in_no_half_and_does_not_count():
    first, second = halves_of([0, 1, 0, 0, 1, 0, 0, 0], [True, True, False, True, True, True, False, False]).halves[0]
    assert first.tolist() == [True, True, False, False, False, True, False, False]
    assert second.tolist() == [False, False, False, True, True, False, False, False]


def test_halves_follow_their_tasks(batch):
    cut = batch.in_halves()
    assert torch.equal(cut.slice(1, 3).halves, cut.halves[1:3])
    assert torch.equal(cut.clone().to("cpu").channels_last().halves, cut.halves)
    assert len(cut.tensors()) == len(batch.tensors())


@pytest.mark.parametrize(
    ("labels", "mask", "message"),
    [
        ([0, 1, 2, 0, 1], [True] * 5, "6 for 3 classes, got 5: give more shots, or set inner.alpha_images to all"),
        ([0, 1, 2, 0, 0, 0], [True] * 3 + [False] * 3, "got a task whose classes have one each at most"),
    ],
)
def test_a_support_set_too_small_for_halves_is_refused(labels, mask, message):
    with pytest.raises(ConfigError, match=message):
        halves_of(labels, mask)
