"""Pixels as numbers: correctly rounded, normalised by channel, in memory of their own."""

from __future__ import annotations

import numpy as np
import torch

from metadarts.tasks.scaling import scaled

PIXELS = torch.arange(256, dtype=torch.uint8).view(2, 2, 8, 8)


def test_every_byte_is_divided_and_rounded_once():
    expected = (np.arange(256, dtype=np.float64) / 255).astype(np.float32)
    assert np.array_equal(scaled(PIXELS).flatten().numpy(), expected)


def test_each_channel_is_normalised_by_its_own():
    mean, std = (0.25, 0.5), (0.5, 2.0)
    found = scaled(PIXELS, mean, std)
    for channel in range(2):
        one = scaled(PIXELS)[:, channel]
        assert torch.equal(found[:, channel], (one - mean[channel]) / std[channel])
    assert torch.equal(found, scaled(PIXELS, torch.tensor(mean), torch.tensor(std)))


def test_floats_stay_and_nothing_is_shared():
    images = torch.linspace(-3, 3, 12).view(1, 3, 2, 2)
    found = scaled(images)
    assert torch.equal(found, images)
    assert found.data_ptr() != images.data_ptr()
