"""Gradient descent."""

from __future__ import annotations

from metadarts.core.types import Params
from metadarts.optim._arithmetic import descend
from metadarts.optim._types import Rates, Rule, State, Step


def sgd() -> Rule:
    """x <- x - rate * g."""

    def update(grads: Params, state: State, params: Params, rates: Rates, step: Step) -> tuple[Params, State]:
        return descend(params, grads, rates), state

    return Rule("sgd", lambda params: {}, update)


UPDATE_RULE = sgd
