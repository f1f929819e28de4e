"""The operations and inputs of highest score (DARTS, Liu et al., ICLR 2019, section 2.4)."""

from __future__ import annotations

from dataclasses import dataclass

from metadarts.core.rng import Key
from metadarts.spaces import SearchSpace, decode

from ._types import Judge, Searched, Selection


@dataclass(frozen=True)
class Argmax:
    """The rule of `metadarts.spaces.decode`, also for pairs and edges with separate alphas. It needs no accuracy."""

    def judged(self, space: SearchSpace) -> int:
        return 0

    def select(self, searched: Searched, judge: Judge | None, key: Key) -> Selection:
        return Selection(decode(searched.space, searched.scores()))


SELECTION = Argmax
