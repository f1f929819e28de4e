"""check_rule: a differentiable update rule against its reference optimiser of torch.optim."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.optim import Optimizer

from metadarts.core.rng import Key
from metadarts.core.types import Params
from metadarts.optim import Rates, Rule

from ._close import check_close

TASKS = 2
SHAPES = {"scalar": (), "vector": (3,), "matrix": (2, 2)}
STEPS = 6
RATE = 0.05
SAME = 1e-9
"""Adam's ``eps_root`` of 1e-12 moves an update by about half of that, relative to a squared gradient near one."""


def check_rule(rule: Rule, reference: Callable[..., Optimizer]) -> None:
    """Check that ``rule`` takes the same steps as ``reference``, and that the steps can be differentiated twice.

    Args:
        rule: the rule.
        reference: (parameters, lr=...) -> optimiser; a class of torch.optim, or a partial of one.

    Raises:
        AssertionError: naming the step and the parameter, or with gradcheck's report.
    """
    _check_walk(rule, reference)
    _check_one_rate(rule)
    _check_purity(rule)
    _check_derivatives(rule)
    _check_zero_gradient(rule)


def _draw(name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(TASKS, *shape, dtype=torch.float64, generator=Key(("check_rule", name)).torch())


def _starts(rule: Rule) -> tuple[Params, Params]:
    """Parameters and rates: every task has its own rate, every parameter too. A point of the simplex is a row."""
    params = {name: _draw(name, shape) for name, shape in SHAPES.items() if shape or not rule.simplex}
    return params, {name: 0.01 + 0.1 * _draw(f"rate {name}", ()).abs() for name in params}


def _gradients(params: Params) -> Params:
    """A smooth curved field that is nowhere near zero, so that rules which divide by its size are well conditioned."""
    return {name: 1.5 + torch.sin(tensor) + 0.1 * tensor.square() for name, tensor in params.items()}


def _walk(rule: Rule, params: Params, rates: Rates, steps: int) -> list[Params]:
    state, path = rule.init(params), []
    for step in range(steps):
        params, state = rule.update(_gradients(params), state, params, rates, step)
        path.append(params)
    return path


def _check_walk(rule: Rule, reference: Callable[..., Optimizer]) -> None:
    params, rates = _starts(rule)
    path = _walk(rule, params, rates, STEPS)
    for name in params:
        for task in range(TASKS):
            leaf = params[name][task].clone().requires_grad_()
            optimiser = reference([leaf], lr=float(rates[name][task]))
            for step in range(STEPS):
                leaf.grad = _gradients({name: leaf.detach()})[name]
                optimiser.step()
                check_close(f"{rule.name}: {name} of task {task} after step {step}", path[step][name][task], leaf, SAME)


def _check_one_rate(rule: Rule) -> None:
    """One rate for all parameters, as a number or 0-dim, is that rate for each task and parameter."""
    params, _ = _starts(rule)
    one = torch.tensor(RATE, dtype=torch.float64)
    *_, expected = _walk(rule, params, dict.fromkeys(params, one.expand(TASKS)), STEPS)
    for what, rate in (("a number", RATE), ("0-dim", one)):
        *_, found = _walk(rule, params, rate, STEPS)
        for name, tensor in expected.items():
            check_close(f"{rule.name}: {name} under a rate that is {what}", found[name], tensor, SAME)


def _check_purity(rule: Rule) -> None:
    """Nothing is changed in place, and a parameter without a gradient stays where it is."""
    params, rates = _starts(rule)
    copies, state = {name: tensor.clone() for name, tensor in params.items()}, rule.init(params)
    some = {"vector": _gradients(params)["vector"]}
    moved, _ = rule.update(some, state, params, rates, 0)
    for name, copy in copies.items():
        if not torch.equal(params[name], copy):
            raise AssertionError(f"{rule.name}: update changed its argument {name} in place")
        if torch.equal(moved[name], copy) != (name != "vector"):
            raise AssertionError(f"{rule.name}: {name} moved without a gradient, or did not move with one")
    if any(bool(slot.any()) for slots in state.values() for slot in slots.values()):
        raise AssertionError(f"{rule.name}: init is not zero, or update changed the state in place")


def _check_derivatives(rule: Rule) -> None:
    """gradcheck and gradgradcheck of two steps, with respect to where they start and to the rates."""
    params, rates = _starts(rule)
    leaves = [tensor.requires_grad_() for tensor in (*params.values(), *rates.values())]

    def two_steps(*tensors: Tensor) -> Any:
        own, own_rates = (
            dict(zip(params, half, strict=True)) for half in (tensors[: len(params)], tensors[len(params) :])
        )
        return tuple(_walk(rule, own, own_rates, 2)[-1].values())

    try:
        gradcheck(two_steps, leaves)
        gradgradcheck(two_steps, leaves)
    except RuntimeError as error:
        raise AssertionError(f"{rule.name}: {error}") from error


def _check_zero_gradient(rule: Rule) -> None:
    """At a gradient of zero the first two derivatives are finite: dead units must not turn a meta-gradient into NaN."""
    params, rates = _starts(rule)
    grads = {name: torch.zeros_like(tensor).requires_grad_() for name, tensor in params.items()}
    moved, state = rule.update(grads, rule.init(params), params, rates, 0)
    moved, _ = rule.update(grads, state, moved, rates, 1)
    leaves, total = list(grads.values()), torch.stack([tensor.sum() for tensor in moved.values()]).sum()
    first = torch.autograd.grad(total, leaves, create_graph=True)
    second: list[Tensor] = []
    if any(grad.requires_grad for grad in first):
        whole = torch.stack([grad.sum() for grad in first]).sum()
        second = [grad for grad in torch.autograd.grad(whole, leaves, allow_unused=True) if grad is not None]
    if not all(bool(torch.isfinite(grad).all()) for grad in (*first, *second)):
        raise AssertionError(f"{rule.name}: the derivative through a step at a zero gradient is not finite")
