"""Weight decay: as part of the gradient, or decoupled."""

from __future__ import annotations

from collections.abc import Callable

from ._arithmetic import among, elementwise, map_rates, scaled
from ._types import Transform, Update


def l2_decay(decay: float) -> Transform:
    """g <- g + decay * x: the gradient of ``decay / 2 |x|^2`` is added to that of the loss.

    With Adam, which divides by the size of gradients, it keeps a parameter near |mean g| / decay at any rate.
    """

    def transform(seen: Update) -> Update:
        each, own = elementwise(seen.rates), among(seen.params, seen.grads)
        return seen._replace(grads=each("add", seen.grads, own, alpha=decay))

    return transform


def decoupled_decay(decay: float, decayed: Callable[[str], bool] | None = None) -> Transform:
    """x <- (1 - rate * decay) x before the rule's own step (Loshchilov and Hutter, ICLR 2019, algorithm 2).

    Args:
        decayed: parameter name -> whether it decays; None for all.
    """

    def transform(seen: Update) -> Update:
        names = {name: grad for name, grad in seen.grads.items() if decayed is None or decayed(name)}
        shrink = map_rates(seen.rates, lambda rate: 1 - rate * decay)
        return seen._replace(params=seen.params | scaled(among(seen.params, names), shrink))

    return transform
