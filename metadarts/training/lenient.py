"""Values from records that another version or another hand may have written: what fits is used, the rest is not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from metadarts.spaces import SearchSpace
from metadarts.store.schema import fitting

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 1e30
LAST_STEP = 2**53


def as_number(value: Any) -> float | None:
    """``value`` as a float; NaN where it is not finite or absurdly large, None when it is no number."""
    number = fitting(value, float)
    return None if number is None else _tamed(number)


def as_step(record: dict[str, Any]) -> int | None:
    """The meta-step of ``record``; None when it has none that a run can reach."""
    step = as_number(record.get("step"))
    return int(step) if step is not None and 0 <= step < LAST_STEP else None


def as_numbers(values: Any) -> list[float]:
    """A list of numbers as floats; empty when ``values`` is anything else."""
    return [_tamed(number) for number in fitting(values, list[float]) or []]


def _tamed(number: float) -> float:
    return number if -LARGEST < number < LARGEST else math.nan


def as_alphas(record: dict[str, Any], space: SearchSpace) -> dict[str, Tensor] | None:
    """decision -> finite alphas in double precision, from an "alphas" record; None when they do not fit."""
    import torch

    alphas = {}
    for decision in space.decisions:
        table = record.get(decision.name)
        rows = [as_numbers(row) for row in table] if isinstance(table, list) else []
        if len(rows) != decision.rows or any(len(row) != len(decision.candidates) for row in rows):
            return None
        alphas[decision.name] = torch.tensor(rows, dtype=torch.float64)
    return alphas if all(bool(torch.isfinite(alpha).all()) for alpha in alphas.values()) else None
