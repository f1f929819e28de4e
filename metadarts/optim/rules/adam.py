"""Adam."""

from __future__ import annotations

import torch

from metadarts.core.types import Params
from metadarts.optim._arithmetic import among, descend_ratio, elementwise, map_rates
from metadarts.optim._types import Rates, Rule, State, Step

SLOTS = ("exp_avg", "exp_avg_sq")
"""As torch.optim.Adam calls them."""


def adam(first: float = 0.9, second: float = 0.999, eps: float = 1e-8, eps_root: float = 1e-12) -> Rule:
    """Adam (Kingma and Ba, ICLR 2015) with bias correction, in torch.optim.Adam's operations and order.

    ``eps_root`` is added under the square root, to the bias-corrected square: at a zero gradient the derivative of sqrt
    is infinite, and a meta-gradient through this update would be NaN. With 0, which only an update that is not
    differentiated can have, it is torch's Adam to the bit.
    """

    def init(params: Params) -> State:
        return {slot: {name: torch.zeros_like(tensor) for name, tensor in params.items()} for slot in SLOTS}

    def update(grads: Params, state: State, params: Params, rates: Rates, step: Step) -> tuple[Params, State]:
        each, (means, squares) = elementwise(rates), (among(state[slot], grads) for slot in SLOTS)
        first_correction, second_correction = (1 - beta ** (step + 1) for beta in (first, second))
        means = each("lerp", means, grads, 1 - first)
        squares = each("addcmul", each("mul", squares, second), grads, grads, value=1 - second)
        shifted = each("add", squares, eps_root * second_correction) if eps_root else squares
        below = each("add", each("div", each("sqrt", shifted), second_correction**0.5), eps)
        params = descend_ratio(params, means, below, map_rates(rates, lambda rate: rate / first_correction))
        return params, {slot: state[slot] | new for slot, new in zip(SLOTS, (means, squares), strict=True)}

    return Rule("adam", init, update)


UPDATE_RULE = adam
