"""The protocol of a start of the alphas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch
from metadarts.operations import Shapes
from metadarts.spaces import Decision


@dataclass(frozen=True)
class Context:
    """What a start may read.

    Args:
        shared: decision -> the shared alphas [T, rows, candidates], a copy for every task.
        own: the start's parameters by their own names, [T, ...].
        batch: the tasks.
        stem: images [T, N, C, H, W] of the support sets -> the map [T, N, h, w, F] of the network's first block, batch
            norm by the support set.
    """

    shared: Params
    own: Params
    batch: TaskBatch
    stem: Callable[[Tensor], Tensor]


class AlphaStart(Protocol):
    """Computes the alphas that each task starts from. A frozen value."""

    def shapes(self, decisions: tuple[Decision, ...], features: int) -> Shapes:
        """Names and shapes of its parameters, without the prefix and without a task axis.

        Args:
            features: F, channels of the first block's map.
        """
        ...

    def init(self, name: str, shape: tuple[int, ...], key: Key) -> Tensor:
        """Initial float32 values of the parameter of this own name."""
        ...

    def alphas(self, seen: Context) -> Params:
        """decision -> [T, rows, candidates], differentiable in ``seen.shared`` and ``seen.own``."""
        ...
