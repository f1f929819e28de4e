"""A start of the alphas of one's own: an offset that grows with the brightness of the support set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import ALPHA_PREFIX, Params, TaskBatch
from metadarts.networks import AlphaStartContext
from metadarts.operations import Shapes
from metadarts.spaces import Decision


@dataclass(frozen=True)
class Brightness:
    """alphas = shared alphas + (mean pixel - middle) * a table that is learnt.

    Args:
        middle: the mean pixel of tasks whose alphas are the shared ones.
    """

    middle: float = 0.5

    def shapes(self, decisions: tuple[Decision, ...], channels: int) -> Shapes:
        return {ALPHA_PREFIX + decision.name: decision.shape for decision in decisions}

    def init(self, name: str, shape: tuple[int, ...], key: Key) -> Tensor:
        return torch.zeros(shape)

    def prepare(self, own: Params, batches: Iterable[TaskBatch]) -> Params:
        return {}

    def alphas(self, seen: AlphaStartContext) -> Params:
        shown = seen.batch.support_mask.to(seen.batch.support_images.dtype)
        means = (seen.batch.support_images.mean((2, 3, 4)) * shown).sum(1) / shown.sum(1) - self.middle
        return {
            name: table + means[:, None, None] * seen.own[ALPHA_PREFIX + name] for name, table in seen.shared.items()
        }


ALPHAS = Brightness
