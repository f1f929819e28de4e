"""Episodes with raw pixels: small to move to a device, and finished there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from metadarts.core.types import TaskBatch

from .scaling import scaled


@dataclass(frozen=True, eq=False)
class RawBatch:
    """T tasks as their source stores them; `finish` makes the `TaskBatch`. All tensors are on one device.

    Args:
        support_pixels: [T, S, C, H, W] uint8, not yet rotated; or float images that need no further processing.
        support_labels: [T, S] int64; rows that the mask rejects hold 0.
        support_mask: [T, S] bool, False on padding rows, whose pixels may be anything.
        query_pixels: [T, Q, C, H, W] of the same type.
        query_labels: [T, Q] int64.
        query_mask: [T, Q] bool.
        ways: classes per task.
        ragged: whether any row is padding.
        support_turns: [T, S] uint8, counter-clockwise rotations by 90 degrees, only even numbers if H and W differ;
            None if the source rotates no class.
        query_turns: [T, Q] uint8, or None.
        mean, std: [C] float32, see `Source`; None to leave images in [0, 1].
        domain: [T] int64, see `TaskBatch`; None in a source of one domain.
    """

    support_pixels: Tensor
    support_labels: Tensor
    support_mask: Tensor
    query_pixels: Tensor
    query_labels: Tensor
    query_mask: Tensor
    ways: int
    ragged: bool
    support_turns: Tensor | None = None
    query_turns: Tensor | None = None
    mean: Tensor | None = None
    std: Tensor | None = None
    domain: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by the name of its field, in the order of the fields."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def over(self, tensors: Mapping[str, Tensor]) -> RawBatch:
        """The same tasks with the given tensors, by name, which are copies in other memory."""
        return replace(self, **tensors)  # type: ignore[arg-type]  # the names are those of `tensors`

    def to(self, device: torch.device | str) -> RawBatch:
        """The same tasks on ``device``."""
        return self.over({name: tensor.to(device) for name, tensor in self.tensors().items()})


def finish(raw: RawBatch) -> TaskBatch:
    """Rotate, scale to [0, 1], normalise, and set padding to 0: bit-equal on every device.

    A GPU is not synchronised. The result shares no memory with ``raw``.
    """
    images = (_finished(raw, raw.support_pixels, raw.support_turns, raw.support_mask),
              _finished(raw, raw.query_pixels, raw.query_turns, raw.query_mask))  # fmt: skip
    return TaskBatch(
        images[0], raw.support_labels.clone(), raw.support_mask.clone(),
        images[1], raw.query_labels.clone(), raw.query_mask.clone(), raw.ways, raw.ragged,
        domain=None if raw.domain is None else raw.domain.clone(),
    )  # fmt: skip


def _finished(raw: RawBatch, pixels: Tensor, turns: Tensor | None, mask: Tensor) -> Tensor:
    """[T, K, C, H, W] -> float images of the same shape, in memory of their own."""
    if turns is not None:
        pixels = turned(pixels, turns)
    images = scaled(pixels, raw.mean, raw.std)
    return images.masked_fill(~mask[..., None, None, None], 0) if raw.ragged else images


def turned(pixels: Tensor, turns: Tensor) -> Tensor:
    """Each image turned counter-clockwise by its own number of quarter turns, chosen among all turns of all images.

    Args:
        pixels: [..., C, H, W]; odd turns are possible where H = W, and left undone elsewhere.
        turns: [...] whole numbers 0 to 3.
    """
    result, square = pixels, pixels.shape[-2] == pixels.shape[-1]
    for turn in (1, 2, 3) if square else (2,):
        chosen = (turns == turn)[..., None, None, None]
        result = torch.where(chosen, torch.rot90(pixels, turn, (-2, -1)), result)
    return result
