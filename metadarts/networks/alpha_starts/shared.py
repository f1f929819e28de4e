"""All tasks start from the shared alphas (T-NAS, MetaNAS)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch
from metadarts.operations import Shapes
from metadarts.spaces import Decision

from ._types import AlphaStartContext


@dataclass(frozen=True)
class Shared:
    """One meta-learned architecture for all tasks."""

    def shapes(self, decisions: tuple[Decision, ...], channels: int) -> Shapes:
        return {}

    def init(self, name: str, shape: tuple[int, ...], key: Key) -> Tensor:
        raise KeyError(name)

    def prepare(self, own: Params, batches: Iterable[TaskBatch]) -> Params:
        return {}

    def alphas(self, seen: AlphaStartContext) -> Params:
        return seen.shared


ALPHAS = Shared
