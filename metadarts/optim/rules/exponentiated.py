"""Exponentiated gradient: descent on the simplex, for alphas (GAEA, Li et al., ICLR 2021)."""

from __future__ import annotations

from metadarts.core.types import Params
from metadarts.optim._arithmetic import among, descend_ratio
from metadarts.optim._types import Rates, Rule, State, Step

FLOOR = 1e-5


def exponentiated(floor: float = FLOOR) -> Rule:
    """p <- p exp(-rate * dL/dp) / Z for each row p = softmax(x) (GAEA, algorithm 1).

    The logits x are what is kept: x <- x - rate * g / max(p, floor), g = dL/dx. Where L depends on x through p alone,
    g_i = p_i (dL/dp_i - sum_j p_j dL/dp_j), so g_i / p_i is dL/dp_i up to a constant of the row, which Z removes. That
    is so for weights that do not change when a number is added to a row: softmax at any temperature, its samples,
    sparsemax, entmax. For others (sigmoid, normalised ReLUs) it is a descent, but not this one.

    p are the mixing weights themselves at a temperature of 1. At another one the softmax of x / temperature mixes, and
    p is still the point that moves: the rate is one of p, not of the weights.

    A candidate below ``floor`` moves as if at a rate smaller by p / floor. The floor keeps the step and its derivatives
    finite; at the floor itself the derivative has a kink.

    Rows are the last axis; Z is left out, as it changes no p: at a rate of 0 nothing moves. Decoupled decay pulls p
    towards uniform; L2 decay has no meaning here.
    """

    def update(grads: Params, state: State, params: Params, rates: Rates, step: Step) -> tuple[Params, State]:
        below = {name: tensor.softmax(-1).clamp(min=floor) for name, tensor in among(params, grads).items()}
        return descend_ratio(params, grads, below, rates), state

    return Rule("exponentiated", lambda params: {}, update, simplex=True)


UPDATE_RULE = exponentiated
