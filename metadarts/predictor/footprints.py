"""Fixed features of plain images: spatial autocorrelation, and statistics of small pools.

They distinguish inputs to which kernels of different reach respond, without weights. They are for the synthetic family,
whose images have no meta-initialised stem.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.core.types import TaskBatch


@dataclass(frozen=True)
class Footprints:
    """Autocorrelations of x and of relu(x) at all offsets up to ``reach``, mean and deviation of 3x3 pools.

    Args:
        in_channels: of an image.
        reach: the largest offset along each axis, in pixels.
    """

    in_channels: int
    reach: int = 6

    @property
    def offsets(self) -> tuple[tuple[int, int], ...]:
        """One of every two opposite offsets (down, right), and (0, 0)."""
        reach = range(-self.reach, self.reach + 1)
        return tuple((down, right) for down in range(self.reach + 1) for right in reach if down > 0 or right >= 0)

    @property
    def features(self) -> int:
        """F, the number of features of an image."""
        return self.in_channels * (2 * len(self.offsets) + 4)

    def describe(self, batch: TaskBatch) -> Tensor:
        """[T, S, F] of the support images, which must be larger than ``reach`` along each side; no graph."""
        tasks, count, channels = batch.support_images.shape[:3]
        x = batch.support_images.flatten(0, 1)
        parts = []
        for signal in (x, F.relu(x)):
            for down, right in self.offsets:
                height, width = x.shape[-2] - down, x.shape[-1] - abs(right)
                left = max(0, -right)
                near = signal[..., :height, left : left + width]
                far = signal[..., down:, left + right : left + right + width]
                parts.append((near * far).mean((-2, -1)))
        for pooled in (F.max_pool2d(x, 3, 1, 1), F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)):
            parts += [pooled.mean((-2, -1)), pooled.std((-2, -1), unbiased=False)]
        return torch.stack(parts, dim=-1).view(tasks, count, channels * len(parts))
