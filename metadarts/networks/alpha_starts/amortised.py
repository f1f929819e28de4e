"""Tasks start from alphas that an encoder M reads off their support sets S_i.

theta <- theta - lr grad sum_i L_i(M_theta(S_i)): the encoder is trained in the meta-gradient, jointly with the weights,
exactly through the inner loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import ALPHA_PREFIX, Params
from metadarts.operations import Shapes
from metadarts.spaces import Decision

from ._encoder import Encoder
from ._types import AlphaStartContext


@dataclass(frozen=True)
class Amortised(Encoder):
    """alphas = shared alphas + what the encoder says of the support set; at first it says nothing."""

    def shapes(self, decisions: tuple[Decision, ...], channels: int) -> Shapes:
        tables = {f"{ALPHA_PREFIX}{decision.name}": (*decision.shape, self.size) for decision in decisions}
        return self.encoder_shapes(channels) | tables

    def init(self, name: str, shape: tuple[int, ...], key: Key) -> Tensor:
        return torch.zeros(shape) if name.startswith(ALPHA_PREFIX) else super().init(name, shape, key)

    def alphas(self, seen: AlphaStartContext) -> Params:
        vector = self.vector(seen)
        return {
            name: table + torch.einsum("trch,th->trc", seen.own[ALPHA_PREFIX + name], vector)
            for name, table in seen.shared.items()
        }


ALPHAS = Amortised
