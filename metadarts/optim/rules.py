"""SGD, momentum and Adam as (init, update) pairs on dictionaries of tensors with a leading task axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metadarts.core.errors import ConfigError, nearest
from metadarts.core.types import Params

State = dict[str, Params]
"""Slots by name ("momentum", "first", ...), each shaped like the parameters."""

Rates = Params
"""Learning rates by parameter name, each [T]: one number per task (shared rates are expanded)."""


class Rule(NamedTuple):
    """One update rule.

    Args:
        name: as configurations write it.
        init: params -> state.
        update: (gradients, state, params, rates, step) -> (params, state); ``step`` counts from 0.
    """

    name: str
    init: Callable[[Params], State]
    update: Callable[[Params, State, Params, Rates, int], tuple[Params, State]]


def _scaled(rate: Tensor, direction: Tensor) -> Tensor:
    return rate.view(-1, *(1,) * (direction.dim() - 1)) * direction


def _descend(params: Params, directions: Params, rates: Rates) -> Params:
    return params | {name: params[name] - _scaled(rates[name], step) for name, step in directions.items()}


def sgd() -> Rule:
    """x <- x - rate * g."""

    def update(grads: Params, state: State, params: Params, rates: Rates, step: int) -> tuple[Params, State]:
        return _descend(params, grads, rates), state

    return Rule("sgd", lambda params: {}, update)


def momentum(decay: float = 0.9) -> Rule:
    """m <- decay * m + g;  x <- x - rate * m (torch.optim.SGD without dampening)."""

    def init(params: Params) -> State:
        return {"momentum": {name: torch.zeros_like(tensor) for name, tensor in params.items()}}

    def update(grads: Params, state: State, params: Params, rates: Rates, step: int) -> tuple[Params, State]:
        slots = state["momentum"]
        moved = {name: decay * slots[name] + grad for name, grad in grads.items()}
        return _descend(params, moved, rates), {"momentum": slots | moved}

    return Rule("momentum", init, update)


def adam(first: float = 0.9, second: float = 0.999, eps: float = 1e-8, eps_root: float = 1e-12) -> Rule:
    """Adam (Kingma and Ba, ICLR 2015) with bias correction.

    ``eps_root`` is added under the square root: at a zero gradient the derivative of sqrt is infinite, and a
    meta-gradient through this update would be NaN.
    """

    def init(params: Params) -> State:
        return {slot: {n: torch.zeros_like(t) for n, t in params.items()} for slot in ("first", "second")}

    def update(grads: Params, state: State, params: Params, rates: Rates, step: int) -> tuple[Params, State]:
        means, squares, directions = {}, {}, {}
        for name, grad in grads.items():
            means[name] = first * state["first"][name] + (1.0 - first) * grad
            squares[name] = second * state["second"][name] + (1.0 - second) * grad * grad
            mean = means[name] / (1.0 - first ** (step + 1))
            square = squares[name] / (1.0 - second ** (step + 1))
            directions[name] = mean / ((square + eps_root).sqrt() + eps)
        state = {"first": state["first"] | means, "second": state["second"] | squares}
        return _descend(params, directions, rates), state

    return Rule("adam", init, update)


_RULES = {"sgd": sgd, "momentum": momentum, "adam": adam}


def rule_by_name(name: str) -> Rule:
    """The rule called ``name`` with its default constants. Raises ConfigError."""
    if name not in _RULES:
        raise ConfigError(f"unknown inner rule {name!r}: {nearest(name, _RULES)}")
    return _RULES[name]()


def clip_by_norm(grads: Params, limit: float | None) -> Params:
    """Scale each task's gradients down to a joint norm of at most ``limit``; None leaves them alone.

    The tiny constant under the root keeps the derivative finite where a task's gradient is zero.
    """
    if limit is None:
        return grads
    squares = torch.stack([grad.reshape(grad.shape[0], -1).square().sum(1) for grad in grads.values()]).sum(0)
    scale = limit / (squares + 1e-24).sqrt().clamp(min=limit)
    return {name: _scaled(scale, grad) for name, grad in grads.items()}
