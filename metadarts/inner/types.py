"""What goes into the inner loop and what comes out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metadarts.core.errors import ConfigError, nearest
from metadarts.core.types import Params, is_alpha
from metadarts.optim import Rule, rule_by_name

ORDERS = ("first", "second")
GRANULARITIES = ("group", "tensor", "step", "tensor-step")
RATE_PREFIX = "rates."


@dataclass(frozen=True)
class InnerLoop:
    """How one task is learnt from its support set.

    Args:
        steps: K inner steps.
        rule: "sgd", "momentum" or "adam".
        weight_rate: initial learning rate of the weights; 0 leaves them alone.
        alpha_rate: initial learning rate of the alphas; 0 leaves them alone.
        order: "second" differentiates through the inner steps, "first" treats inner gradients as constants (FOMAML).
        learn_rates: whether the outer loop learns the rates (Meta-SGD, MAML++ section 4).
        granularity: one learned rate per "group" (weights, alphas), per "tensor", per "step" of a group, or per
            "tensor-step".
        clip: largest norm of a task's inner gradient, weights and alphas apart; None for no limit.
        checkpoint: of the K steps, how many (from the first) to recompute in the outer backward instead of storing.
            Exact; it trades about one more forward and backward per step for that step's memory.
    """

    steps: int = 5
    rule: str = "sgd"
    weight_rate: float = 0.1
    alpha_rate: float = 30.0
    order: str = "second"
    learn_rates: bool = False
    granularity: str = "group"
    clip: float | None = None
    checkpoint: int = 0

    def __post_init__(self) -> None:
        faults = []
        if self.steps < 0:
            faults.append(f"steps: expected 0 or more, got {self.steps}")
        if self.order not in ORDERS:
            faults.append(f"order {self.order!r} is unknown; {nearest(self.order, ORDERS)}")
        if self.granularity not in GRANULARITIES:
            faults.append(f"granularity {self.granularity!r} is unknown; {nearest(self.granularity, GRANULARITIES)}")
        if not (0 <= self.weight_rate < math.inf and 0 <= self.alpha_rate < math.inf):  # refuses NaN too
            faults.append(f"rates: expected finite numbers from 0 on, got {self.weight_rate} and {self.alpha_rate}")
        if self.checkpoint < 0:
            faults.append(f"checkpoint: expected 0 or more, got {self.checkpoint}")
        if self.clip is not None and self.clip <= 0:
            faults.append(f"clip: expected a positive number or none, got {self.clip}")
        if faults:
            raise ConfigError("inner loop: " + "; ".join(faults))
        rule_by_name(self.rule)

    def make_rule(self) -> Rule:
        return rule_by_name(self.rule)

    def rate_of(self, name: str) -> float:
        return self.alpha_rate if is_alpha(name) else self.weight_rate

    def adapts(self, name: str) -> bool:
        """Whether the parameter ``name`` moves in the inner loop."""
        return self.rate_of(name) > 0


@dataclass(frozen=True)
class Adapted:
    """The result of an inner loop.

    Args:
        params: the tasks' parameters after K steps, [T, ...]; connected to the start by the graph of the chosen order.
        losses: [K, T] support losses before each step, detached.
    """

    params: Params
    losses: Tensor


def rate_shapes(inner: InnerLoop, names: list[str]) -> dict[str, tuple[tuple[int, ...], float]]:
    """Names, shapes and initial values of the rates the outer loop learns, for task parameters called ``names``."""
    steps: tuple[int, ...] = (inner.steps,) if "step" in inner.granularity else ()
    table: dict[str, tuple[tuple[int, ...], float]] = {}
    for name in names:
        if inner.adapts(name):
            table[_rate_name(inner, name)] = (steps, inner.rate_of(name))
    return table


def _rate_name(inner: InnerLoop, name: str) -> str:
    group = "alphas" if is_alpha(name) else "weights"
    return RATE_PREFIX + (name if "tensor" in inner.granularity else group)


def rates_at(inner: InnerLoop, rates: Params | None, start: Params, step: int) -> Params:
    """The rate [T] of every adapted parameter at ``step``.

    Args:
        rates: learned rates with a task axis, [T] or [T, K] by `rate_shapes` name; None for the configured constants.
            Beyond the K steps they were learned for, the last step's rates continue.
    """
    found = {}
    constants: dict[tuple[float, torch.dtype, torch.device], Tensor] = {}
    for name, tensor in start.items():
        if not inner.adapts(name):
            continue
        if rates is None:
            kind = (inner.rate_of(name), tensor.dtype, tensor.device)
            if kind not in constants:
                constants[kind] = torch.full((tensor.shape[0],), kind[0], dtype=kind[1], device=kind[2])
            found[name] = constants[kind]
            continue
        rate = rates[_rate_name(inner, name)].to(tensor.dtype)
        found[name] = rate[:, min(step, rate.shape[1] - 1)] if rate.dim() == 2 else rate
    return found


def independent(tensor: Tensor, keep_graph: bool) -> Tensor:
    """``tensor`` as a variable of its own: an inner gradient is partial, whatever its parameters were computed from.

    A prototype head, for one, is a function of the same weights that are adapted beside it. With ``keep_graph`` the
    variable stays connected to what it was computed from, for the outer gradient only.
    """
    return tensor.view_as(tensor) if keep_graph and tensor.requires_grad else tensor.detach().requires_grad_()
