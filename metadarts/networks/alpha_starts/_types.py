"""The protocol of a start of the alphas."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Params, Stage, TaskBatch
from metadarts.operations import Shapes
from metadarts.spaces import Decision


@dataclass(frozen=True)
class AlphaStartContext:
    """What a start may read.

    Args:
        shared: decision -> the shared alphas [T, rows, candidates], a copy for every task.
        own: the start's parameters by their own names, [T, ...].
        batch: the tasks.
        at: where in the run.
    """

    shared: Params
    own: Params
    batch: TaskBatch
    at: Stage


class AlphaStart(Protocol):
    """Computes the alphas that each task starts from. A frozen value."""

    def shapes(self, decisions: tuple[Decision, ...], channels: int) -> Shapes:
        """Names and shapes of its parameters, without the prefix and without a task axis. The outer loop does not move
        those that begin with `FIXED`, and moves those that begin with `ALPHA_PREFIX` as it does the shared alphas.

        Args:
            channels: of an image.
        """
        ...

    def init(self, name: str, shape: tuple[int, ...], key: Key) -> Tensor:
        """Initial float32 values of the parameter of this own name."""
        ...

    def prepare(self, own: Params, batches: Iterable[TaskBatch]) -> Params:
        """Fixed parameters that are known only from training tasks, before the first step; empty for none.

        Args:
            own: the initial parameters by their own names, without a task axis.
        """
        ...

    def alphas(self, seen: AlphaStartContext) -> Params:
        """decision -> [T, rows, candidates], differentiable in ``seen.shared`` and ``seen.own``."""
        ...
