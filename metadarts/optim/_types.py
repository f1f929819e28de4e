"""The definitions of an update rule and of a transform of its arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from metadarts.core.types import Params

State = dict[str, Params]
"""Slots by name ("exp_avg", ...), each shaped like the parameters."""

Rates = Params | Tensor | float
"""Learning rates by parameter name, [T] each, one number per task; or one for all parameters: 0-dim, or a number.

The first is the inner loop's and may be differentiated. The second is the outer loop's: operations on all parameters
are handed to torch at once, which a GPU does in few launches.
"""

Step = int | float | Tensor
"""The number of steps taken before this one; 0-dim where it must stay on the device."""


class Rule(NamedTuple):
    """One update rule.

    Args:
        name: name in configurations.
        init: params -> state.
        update: (gradients, state, params, rates, step) -> (params, state). Parameters without a gradient do not change.
        simplex: whether it treats the rows of its parameters as logits of a softmax: a rule only for alphas.
    """

    name: str
    init: Callable[[Params], State]
    update: Callable[[Params, State, Params, Rates, Step], tuple[Params, State]]
    simplex: bool = False


class Update(NamedTuple):
    """The inputs of a rule for one step; fields as the arguments of `Rule.update`."""

    grads: Params
    params: Params
    rates: Rates
    step: Step


Transform = Callable[[Update], Update]
"""Changes a rule's arguments: gradients to clip, parameters to decay, rates to schedule. See `chain`."""
