"""Inputs and outputs of the inner loop."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metadarts.core.errors import ConfigError, nearest
from metadarts.core.types import Params, group_of, is_alpha
from metadarts.optim import SCHEDULES, Rule, chain, require_for_weights, rule_by_name, scheduled, split

ORDERS = ("first", "second")
ALPHA_IMAGES = ("all", "two-fold")
GRANULARITIES = ("group", "tensor", "step", "tensor-step")
RATE_PREFIX = "rates."
RATE_FIELDS = {"head": "head_rate", "body": "weight_rate", "alphas": "alpha_rate"}
"""Group of parameters -> the field of `InnerLoop` that is its rate."""


@dataclass(frozen=True)
class InnerLoop:
    """How one task is learnt from its support set.

    A group with rate 0 does not change: with a ``weight_rate`` of 0 and a ``head_rate`` above it only the head learns
    (ANIL, Raghu et al., ICLR 2020), with a ``head_rate`` of 0 only the body (BOIL, Oh et al., ICLR 2021).

    Args:
        steps: K inner steps.
        rule: a name of `metadarts.optim.RULES` ("sgd", "momentum", "adam", "adamw"), or your own rule; for all
            parameters, or for all but the alphas if ``alpha_rule`` is given.
        weight_rate: initial learning rate of the weights.
        alpha_rate: initial learning rate of the alphas.
        order: "second" differentiates through the inner steps, "first" treats inner gradients as constants (FOMAML).
        learn_rates: whether the outer loop learns the rates (Meta-SGD, MAML++ section 4).
        granularity: one learned rate per "group" (weights, alphas; and head, if it has a separate rate), per "tensor",
            per "step" of a group, or per "tensor-step".
        clip: maximum norm of a task's inner gradient, separately for weights and alphas; None for no limit.
        checkpoint: number of the K steps (from the first) to recompute in the outer backward instead of storing. Exact;
            it trades about one more forward and backward per step for that step's memory.
        head_rate: initial learning rate of the head; None for that of the weights; the head then also shares their
            learned rates.
        decay: decoupled weight decay of head and body; None for that of the rule (only "adamw" has one).
        schedule: schedule of all rates over the K steps: "constant", or "cosine" to 0 at step K.
        alpha_images: "all": alphas and weights learn from the same images; "two-fold": from different ones, see
            `metadarts.inner.two_fold`. It requires two support images per class.
        alpha_rule: the rule of the alphas: a name (also "exponentiated", GAEA) or a rule; None for ``rule``.
    """

    steps: int = 5
    rule: str | Rule = "sgd"
    weight_rate: float = 0.1
    alpha_rate: float = 30.0
    order: str = "second"
    learn_rates: bool = False
    granularity: str = "group"
    clip: float | None = None
    checkpoint: int = 0
    head_rate: float | None = None
    decay: float | None = None
    schedule: str = "constant"
    alpha_images: str = "all"
    alpha_rule: str | Rule | None = None

    def __post_init__(self) -> None:
        faults = []
        if self.steps < 0:
            faults.append(f"steps: expected 0 or more, got {self.steps}")
        if self.order not in ORDERS:
            faults.append(f"order {self.order!r} is unknown; {nearest(self.order, ORDERS)}")
        if self.granularity not in GRANULARITIES:
            faults.append(f"granularity {self.granularity!r} is unknown; {nearest(self.granularity, GRANULARITIES)}")
        if not all(0 <= rate < math.inf for rate in self.rates.values()):  # refuses NaN too
            faults.append(f"rates: expected finite numbers from 0 on, got {self.rates}")
        if self.decay is not None and not 0 <= self.decay < math.inf:
            faults.append(f"decay: expected a finite number from 0 on or none, got {self.decay}")
        if self.schedule not in SCHEDULES:
            faults.append(f"schedule {self.schedule!r} is unknown; {nearest(self.schedule, SCHEDULES)}")
        if self.alpha_images not in ALPHA_IMAGES:
            faults.append(f"alpha_images {self.alpha_images!r} is unknown; {nearest(self.alpha_images, ALPHA_IMAGES)}")
        if self.checkpoint < 0:
            faults.append(f"checkpoint: expected 0 or more, got {self.checkpoint}")
        if self.clip is not None and self.clip <= 0:
            faults.append(f"clip: expected a positive number or none, got {self.clip}")
        if faults:
            raise ConfigError("inner loop: " + "; ".join(faults))
        require_for_weights(self.make_rule(), "inner loop")

    def make_rule(self) -> Rule:
        """The rule with its decay and its schedule. Raises ConfigError for an unknown name."""
        rule = rule_by_name(self.rule, decay=self.decay, decayed=lambda name: not is_alpha(name))
        if self.alpha_rule is not None:
            rule = split(rule, self._alpha_rule(self.alpha_rule), is_alpha)
        if self.schedule == "constant":
            return rule
        return chain(rule, scheduled(SCHEDULES[self.schedule](), self.steps))

    @staticmethod
    def _alpha_rule(rule: str | Rule) -> Rule:
        """That of the alphas, which decay under no name."""
        return rule_by_name(rule, decayed=lambda name: False)

    @property
    def rates(self) -> dict[str, float]:
        """The initial learning rate of each group: "head", "body", "alphas"."""
        head = self.weight_rate if self.head_rate is None else self.head_rate
        return {"head": head, "body": self.weight_rate, "alphas": self.alpha_rate}

    def rate_of(self, name: str) -> float:
        return self.rates.get(group_of(name), 0.0)  # the start of the alphas is moved by the outer loop only

    def adapts(self, name: str) -> bool:
        """Whether the parameter ``name`` changes in the inner loop."""
        return self.rate_of(name) > 0

    def separates(self, names: Iterable[str]) -> bool:
        """Whether weights and alphas learn from separate images. False if none of ``names`` is an alpha that changes:
        then the weights learn from all images."""
        moved = any(is_alpha(name) and self.adapts(name) for name in names)
        return self.alpha_images == "two-fold" and self.steps > 0 and moved

    @property
    def facts(self) -> dict[str, Any]:
        """How parameters are updated, for records: rule, rates, clipping; rarer settings only if they are set."""
        rare = {name: getattr(self, name) for name in ("head_rate", "decay", "schedule", "alpha_images")}
        used = {name: value for name, value in rare.items() if value not in (None, "constant", "all")}
        common = {name: getattr(self, name) for name in ("weight_rate", "alpha_rate", "clip")}
        if self.alpha_rule is not None:
            used["alpha_rule"] = self._alpha_rule(self.alpha_rule).name
        return {"rule": self.make_rule().name, **common, **used}


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
    if "tensor" in inner.granularity:
        return RATE_PREFIX + name
    group = group_of(name)
    return RATE_PREFIX + ("weights" if group == "body" or (group == "head" and inner.head_rate is None) else group)


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
    """``tensor`` as a separate variable: an inner gradient is partial, whatever its parameters were computed from.

    A prototype head, for example, is a function of the same weights that are adapted together with it. With
    ``keep_graph`` the variable stays connected to its inputs, only for the outer gradient.
    """
    return tensor.view_as(tensor) if keep_graph and tensor.requires_grad else tensor.detach().requires_grad_()
