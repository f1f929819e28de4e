"""Gradient descent with momentum."""

from __future__ import annotations

import torch

from metadarts.core.types import Params
from metadarts.optim._arithmetic import among, descend, elementwise
from metadarts.optim._types import Rates, Rule, State, Step

SLOT = "momentum_buffer"


def momentum(beta: float = 0.9) -> Rule:
    """m <- beta * m + g;  x <- x - rate * m (torch.optim.SGD without dampening)."""

    def init(params: Params) -> State:
        return {SLOT: {name: torch.zeros_like(tensor) for name, tensor in params.items()}}

    def update(grads: Params, state: State, params: Params, rates: Rates, step: Step) -> tuple[Params, State]:
        each = elementwise(rates)
        moved = each("add", each("mul", among(state[SLOT], grads), beta), grads)
        return descend(params, moved, rates), {SLOT: state[SLOT] | moved}

    return Rule("momentum", init, update)


UPDATE_RULE = momentum
