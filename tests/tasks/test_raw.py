"""Raw batches: finished by tensor operations alone, which look at no number, and in memory of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from metadarts.core.rng import Key
from metadarts.tasks import EpisodeSampler, RawBatch, finish
from metadarts.tasks.raw import turned

KEY = Key.from_seed(3)


@pytest.fixture(params=[(1, 3), 2], ids=["ragged", "even"])
def raw(request, toy) -> RawBatch:
    """Turned, normalised."""
    scaled = replace(toy, mean=(0.25, 0.4), std=(0.3, 1.7))
    return EpisodeSampler(scaled, "train", 6, request.param, 4).raw(KEY, 3)


@pytest.mark.parametrize("size", [(4, 4), (5, 5), (4, 6)], ids=["even", "odd", "oblong"])
def test_each_image_is_turned_by_its_own_turns(size):
    square = size[0] == size[1]
    turns = torch.arange(8).view(2, 4) % 4 if square else torch.arange(8).view(2, 4) % 2 * 2
    pixels = torch.arange(8 * 3 * size[0] * size[1]).view(2, 4, 3, *size).to(torch.uint8)
    result = turned(pixels, turns.to(torch.uint8))
    assert result.dtype == torch.uint8
    for place in np.ndindex(2, 4):
        expected = np.rot90(pixels[place].numpy(), int(turns[place]), (-2, -1))
        assert np.array_equal(result[place].numpy(), expected)


def test_reading_leaves_the_source_s_bytes_unturned(toy):
    sampler = EpisodeSampler(toy, "train", 6, 2, 3)
    raw, plan = sampler.raw(KEY, 4), sampler.plan(KEY, 4)
    assert raw.query_pixels.dtype == raw.query_turns.dtype == torch.uint8
    assert np.array_equal(raw.query_pixels.numpy(), toy.images[plan.query_rows].reshape(4, 18, 2, 6, 6))
    assert raw.query_turns.any()
    expected = np.array([entry.quarter_turns for entry in toy.classes])[plan.classes].repeat(3, axis=1)
    assert np.array_equal(raw.query_turns.numpy(), expected)


def test_source_that_turns_nothing_has_no_turns(toy):
    plain = replace(toy, classes=tuple(replace(entry, quarter_turns=0) for entry in toy.classes))
    raw = EpisodeSampler(plain, "train", 6, 2, 3).raw(KEY, 4)
    assert (raw.support_turns, raw.query_turns, raw.mean, raw.std) == (None,) * 4
    assert len(raw.tensors()) == 6


def test_finishing_looks_at_no_number(raw):
    batch = finish(raw.to("meta"))  # tensors without numbers: to look at one is an error
    assert [(t.shape, t.dtype) for t in batch.tensors()] == [(t.shape, t.dtype) for t in finish(raw).tensors()]
    assert batch.ragged == raw.ragged == (raw.support_mask.numel() > raw.support_mask.sum())


@pytest.mark.parametrize("kind", ["bytes", "images"])
def test_finishing_shares_no_memory(raw, kind):
    if kind == "images":
        images = {name: tensor.float() for name, tensor in raw.tensors().items() if name.endswith("pixels")}
        raw = replace(raw, **images, support_turns=None, query_turns=None, mean=None, std=None)
    batch = finish(raw)
    before = [tensor.clone() for tensor in batch.tensors()]
    for tensor in raw.tensors().values():
        tensor.zero_()
    assert all(torch.equal(one, other) for one, other in zip(before, batch.tensors(), strict=True))


def test_images_that_are_finished_stay_as_they_are(raw):
    images = torch.linspace(-3, 3, raw.query_pixels.numel()).view_as(raw.query_pixels)
    even = replace(raw, query_pixels=images, query_turns=None, mean=None, std=None)
    assert torch.equal(finish(even).query_images, images)


def test_padding_is_zero_whatever_was_read(raw):
    batch = finish(raw)
    assert not batch.support_images[~batch.support_mask].any()
    assert not batch.support_labels[~batch.support_mask].any()


def test_tensors_go_by_their_fields(raw):
    assert list(raw.tensors())[:3] == ["support_pixels", "support_labels", "support_mask"]
    assert len(raw.tensors()) == 10
    moved = raw.over({"query_labels": raw.query_labels + 1})
    assert torch.equal(moved.query_labels, raw.query_labels + 1)
    assert moved.support_pixels is raw.support_pixels
