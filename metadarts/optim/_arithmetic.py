"""Elementwise arithmetic on dictionaries of tensors, in the operations and the order of torch.optim's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metadarts.core.types import Params

from ._types import Rates


def elementwise(rates: Rates) -> Callable[..., Params]:
    """How to do an operation of torch on all parameters: one by one, or at once where one rate is for all.

    Returns:
        (name, tensors, *others, **options) -> tensors; each of the others is a dictionary of the same names, a 0-dim
        tensor, or a number.
    """
    return _one_by_one if isinstance(rates, dict) else _at_once


def _one_by_one(name: str, first: Params, *others: Any, **options: float) -> Params:
    operation = getattr(torch, name)
    return {
        key: operation(tensor, *(other[key] if isinstance(other, dict) else other for other in others), **options)
        for key, tensor in first.items()
    }


def _at_once(name: str, first: Params, *others: Any, **options: float) -> Params:
    if not first:
        return {}
    tensors = list(first.values())
    columns = [_column(other, first, tensors[0].dtype) for other in others]
    return dict(zip(first, getattr(torch, f"_foreach_{name}")(tensors, *columns, **options), strict=True))


def _column(other: Any, names: Params, dtype: torch.dtype) -> Any:
    if isinstance(other, dict):
        return [other[name] for name in names]
    return other.to(dtype) if isinstance(other, Tensor) else other  # of another type it would be slow


def map_rates(rates: Rates, change: Callable[[Any], Any]) -> Rates:
    """``change`` of every rate."""
    return {name: change(rate) for name, rate in rates.items()} if isinstance(rates, dict) else change(rates)


def among(tensors: Params, names: Params) -> Params:
    """Those of ``tensors`` that are called as one of ``names``, in the order of ``names``."""
    return {name: tensors[name] for name in names}


def scaled(directions: Params, rates: Rates) -> Params:
    """rate * direction."""
    if not isinstance(rates, dict):
        return _at_once("mul", directions, rates)
    return {name: rates[name].view(-1, *(1,) * (step.dim() - 1)) * step for name, step in directions.items()}


def descend(params: Params, directions: Params, rates: Rates) -> Params:
    """x <- x - rate * direction; a number is multiplied within the addition, as torch does."""
    each, moving = elementwise(rates), among(params, directions)
    if isinstance(rates, Tensor | dict):
        return params | each("sub", moving, scaled(directions, rates))
    return params | each("add", moving, directions, alpha=-rates)


def descend_ratio(params: Params, above: Params, below: Params, rates: Rates) -> Params:
    """x <- x - rate * above / below."""
    each, moving = elementwise(rates), among(params, above)
    if isinstance(rates, Tensor | dict):
        return params | each("addcdiv", moving, scaled(above, map_rates(rates, lambda rate: -rate)), below)
    return params | each("addcdiv", moving, above, below, value=-rates)
