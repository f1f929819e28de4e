"""Tasks choose one of at most K cells by their support sets; the cells are learnt with the choice.

alphas_i = shared alphas + sum_k p_k(S_i) table_k. The choice p = softmax(logits / T) commits over the run: T falls, and
from ``finish`` on a task starts from exactly one of K sets of alphas. If the inner loop does not move alphas, no more
than K cells are left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.core.types import ALPHA_PREFIX, Params
from metadarts.operations import Shapes
from metadarts.relaxations.annealed import Annealed
from metadarts.spaces import Decision

from ._encoder import GAIN, Encoder
from ._types import AlphaStartContext

LOGITS = f"{ALPHA_PREFIX}choice-of-cell"
"""They move as alphas do."""


@dataclass(frozen=True)
class CellChoice(Encoder):
    """At first all tables are 0, and tasks differ in what they would choose.

    Args:
        cells: K, the most cells at the end.
        begin, finish: fractions of the run between which the temperature of the choice falls from 1 to ``end``. After
            that a task has one table, and neither the encoder nor the logits have a gradient: only the momentum of the
            outer rule moves them on. A decay of alphas, which would too, is refused.
        end: temperature at ``finish``.

    Raises:
        ConfigError: for numbers below 1, a temperature of 0 or less, or ``begin`` and ``finish`` out of order.
    """

    cells: int = 4
    begin: float = 0.1
    finish: float = 0.5
    end: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cells < 1:
            raise ConfigError(f"alphas.cells: expected at least 1, got {self.cells}")
        if not self.end > 0.0:
            raise ConfigError(f"alphas.end: expected a temperature above 0, got {self.end}")
        if not 0.0 <= self.begin < self.finish < 1.0:
            raise ConfigError(
                f"alphas.begin: expected 0 <= begin < alphas.finish < 1, got {self.begin} and {self.finish}"
            )

    @property
    def _annealed(self) -> Annealed:
        return Annealed(end=self.end, begin=self.begin, finish=self.finish)

    def shapes(self, decisions: tuple[Decision, ...], channels: int) -> Shapes:
        tables = {f"{ALPHA_PREFIX}{decision.name}": (self.cells, *decision.shape) for decision in decisions}
        return self.encoder_shapes(channels) | tables | {LOGITS: (self.cells, self.size)}

    def init(self, name: str, shape: tuple[int, ...], key: Key) -> Tensor:
        if name == LOGITS:
            return torch.randn(shape, generator=key.torch()) * (math.sqrt(self.size) / GAIN)  # logits of about 1
        return torch.zeros(shape) if name.startswith(ALPHA_PREFIX) else super().init(name, shape, key)

    def alphas(self, seen: AlphaStartContext) -> Params:
        shares = self.shares(seen)
        return {
            name: table + torch.einsum("tk,tkrc->trc", shares, seen.own[ALPHA_PREFIX + name])
            for name, table in seen.shared.items()
        }

    def shares(self, seen: AlphaStartContext) -> Tensor:
        """[T, K], p of each task."""
        logits = torch.einsum("tkh,th->tk", seen.own[LOGITS], self.vector(seen))
        soft = self._annealed.weights(logits, seen.at)
        chosen = F.one_hot(logits.argmax(-1), self.cells).to(soft.dtype)
        done = seen.at.progress >= self.finish
        return torch.where(done, chosen, soft) if isinstance(done, Tensor) else chosen if done else soft


ALPHAS = CellChoice
