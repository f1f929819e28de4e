"""Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Callable

from metadarts.optim._types import Rule
from metadarts.optim.chaining import chain
from metadarts.optim.decay import decoupled_decay

from .adam import adam


def adamw(
    first: float = 0.9,
    second: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 1e-12,
    *,
    decay: float = 0.01,
    decayed: Callable[[str], bool] | None = None,
) -> Rule:
    """AdamW (Loshchilov and Hutter, ICLR 2019, algorithm 2), as torch.optim.AdamW; see `adam` and `decoupled_decay`."""
    return chain(adam(first, second, eps, eps_root), decoupled_decay(decay, decayed), name="adamw")


UPDATE_RULE = adamw
