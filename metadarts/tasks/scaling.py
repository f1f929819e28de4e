"""From pixels to what a network takes. `metadarts.export.plain`, which runs without metadarts, has it written out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PerChannel = Tensor | Sequence[float]


def scaled(pixels: Tensor, mean: PerChannel | None = None, std: PerChannel | None = None) -> Tensor:
    """Pixels in [0, 1], and normalised where a mean is given: the same bits on every device, in memory of their own.

    Args:
        pixels: [..., C, H, W] uint8; or floats, which are in [0, 1] already.
        mean, std: [C] in units of [0, 1] brightness; both or neither.
    """
    if pixels.is_floating_point():
        images = pixels.clone()
    else:
        # A tensor, since a GPU multiplies by the rounded reciprocal of a number that it is given as such.
        images = pixels.float() / torch.full((), 255.0, device=pixels.device)
    if mean is None or std is None:
        return images
    return (images - _per_channel(mean, images)) / _per_channel(std, images)


def _per_channel(values: PerChannel, images: Tensor) -> Tensor:
    """[C, 1, 1] float32 on the device of ``images``."""
    return torch.as_tensor(values, dtype=torch.float32, device=images.device).view(-1, 1, 1)
