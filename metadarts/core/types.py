"""The nouns that flow through metadarts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field

import torch
from torch import Tensor

Params = dict[str, Tensor]
"""Parameters by dotted name. Task parameters have a leading task axis [T, ...], shared ones have not."""

HALF_WIDTH = (torch.bfloat16, torch.float16)
"""Types too narrow for batch statistics and for telling near-equal mixing weights apart."""

ALPHA_PREFIX = "alphas."
"""Parameters under this prefix are architecture parameters (alphas); all others are weights."""


SIDES = ("support", "query")


def is_alpha(name: str) -> bool:
    """Whether the parameter ``name`` is an architecture parameter."""
    return name.startswith(ALPHA_PREFIX)


@dataclass(frozen=True)
class TaskBatch:
    """T few-shot tasks, task axis first.

    Args:
        support_images: [T, S, C, H, W] float, values in [0, 1] unless the source normalises.
        support_labels: [T, S] int64 in ``range(ways)``; rows that the mask rejects hold 0.
        support_mask: [T, S] bool, False on padding rows, so that classes and tasks may have unequal counts.
        query_images: [T, Q, C, H, W].
        query_labels: [T, Q] int64.
        query_mask: [T, Q] bool.
        ways: classes per task.
        known_ragged: what ``ragged`` is, where that is known; None to look at the masks, which makes a GPU wait. Not
            kept, so that ``dataclasses.replace`` looks at the masks it is given.
        ragged: whether any row is padding. Engines take a faster path when there is none.
    """

    support_images: Tensor
    support_labels: Tensor
    support_mask: Tensor
    query_images: Tensor
    query_labels: Tensor
    query_mask: Tensor
    ways: int
    known_ragged: InitVar[bool | None] = None
    ragged: bool = field(init=False)

    def __post_init__(self, known_ragged: bool | None) -> None:
        if known_ragged is None:
            known_ragged = not (bool(self.support_mask.all()) and bool(self.query_mask.all()))
        object.__setattr__(self, "ragged", known_ragged)

    @property
    def tasks(self) -> int:
        return self.support_images.shape[0]

    def _map(self, change: Callable[[Tensor], Tensor]) -> TaskBatch:
        names = ("images", "labels", "mask")
        tensors = {f"{side}_{name}": change(getattr(self, f"{side}_{name}")) for side in SIDES for name in names}
        return TaskBatch(**tensors, ways=self.ways, known_ragged=None if self.ragged else False)  # a part may be full

    def tensors(self) -> tuple[Tensor, ...]:
        """Images, labels and mask of both sides, in a fixed order."""
        return tuple(getattr(self, f"{side}_{name}") for side in SIDES for name in ("images", "labels", "mask"))

    def clone(self) -> TaskBatch:
        """The same tasks in memory of their own."""
        return self._map(Tensor.clone)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TaskBatch:
        """The same tasks on ``device``, images in ``dtype``."""
        return self._map(lambda tensor: tensor.to(device, dtype if tensor.is_floating_point() else None))

    def slice(self, start: int, stop: int) -> TaskBatch:
        """Tasks ``start`` to ``stop`` (exclusive), the task axis kept."""
        return self._map(lambda tensor: tensor[start:stop])

    def task(self, index: int) -> TaskBatch:
        """Task ``index`` alone, as a batch of one."""
        return self.slice(index, index + 1)
