"""All tasks start from the shared alphas (T-NAS, MetaNAS)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Params
from metadarts.operations import Shapes
from metadarts.spaces import Decision

from ._types import Context


@dataclass(frozen=True)
class Shared:
    """One meta-learned architecture for all tasks."""

    def shapes(self, decisions: tuple[Decision, ...], features: int) -> Shapes:
        return {}

    def init(self, name: str, shape: tuple[int, ...], key: Key) -> Tensor:
        raise KeyError(name)

    def alphas(self, seen: Context) -> Params:
        return seen.shared


ALPHAS = Shared
