"""Central differences with a check of their validity: not across a kink of ReLU or max pooling."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Params
from metadarts.ops import implementation

STEPS = (1e-5, 1e-6, 1e-7)
DIRECTIONS = (0, 1, 2, 3, 4)
"""Seeds of the directions tried."""


class KinkPattern:
    """Which side of every ReLU and which pixel of every max pooling a computation took."""

    def __init__(self) -> None:
        self.calls = 0
        self._hash = hashlib.sha256()

    def add(self, sides: Tensor) -> None:
        self.calls += 1
        self._hash.update(sides.detach().cpu().contiguous().numpy().tobytes())

    def digest(self) -> bytes:
        return self._hash.digest()


@contextmanager
def kink_pattern() -> Iterator[KinkPattern]:
    """Record the activation pattern of the code inside.

    It observes calls of ``F.relu`` and ``F.max_pool2d``. Therefore operators inside use their folded implementation,
    which consists of these calls; fused kernels would not be observed.
    """
    pattern, relu, max_pool = KinkPattern(), F.relu, F.max_pool2d

    def seen_relu(x: Tensor, *args: Any, **options: Any) -> Tensor:
        pattern.add(x > 0)
        return relu(x, *args, **options)

    def seen_max_pool(x: Tensor, *args: Any, **options: Any) -> Tensor:
        pattern.add(F.max_pool2d_with_indices(x.detach(), *args, **options)[1])
        y: Tensor = max_pool(x, *args, **options)
        return y

    setattr(F, "relu", seen_relu)  # noqa: B010 - mypy forbids the assignment
    setattr(F, "max_pool2d", seen_max_pool)  # noqa: B010
    try:
        with implementation("folded"):
            yield pattern
    finally:
        setattr(F, "relu", relu)  # noqa: B010
        setattr(F, "max_pool2d", max_pool)  # noqa: B010


@dataclass(frozen=True)
class Difference:
    """A derivative by central difference.

    Args:
        value: (f(h) - f(-h)) / 2h.
        step: h.
    """

    value: float
    step: float

    def relative_error(self, analytic: float) -> float:
        return abs(self.value - analytic) / abs(analytic)


def clean_difference(function: Callable[[float], float], steps: Sequence[float] = STEPS) -> Difference | None:
    """The derivative of ``function`` at 0, by the first of ``steps`` within which it has no kink; None if all have one.

    A kink lies within h when the patterns at -h, 0 and h are not the same.

    Raises:
        AssertionError: when no ReLU or max pooling was observed, so that kinks would go unnoticed.
    """
    here = _pattern(function, 0.0)
    for step in steps:
        if _pattern(function, -step) == _pattern(function, step) == here:
            with torch.no_grad():
                return Difference((function(step) - function(-step)) / (2.0 * step), step)
    return None


def error_along(function: Callable[[Params], Tensor], gradients: Params, point: Params, names: Sequence[str]) -> float:
    """The relative error of ``gradients`` along the first direction over ``names`` that has no kink within h.

    Args:
        function: parameters -> a number.
        gradients: of it at ``point``, by name.

    Raises:
        AssertionError: when every direction has a kink within the smallest h.
    """
    for seed in DIRECTIONS:
        generator = Key.from_seed(seed).child("direction").torch()
        direction = {}
        for name in names:
            scale = point[name].std() if point[name].numel() > 1 else 1.0
            noise = torch.randn(point[name].shape, dtype=torch.float64, generator=generator)
            direction[name] = scale * noise

        def moved(step: float, direction: Params = direction) -> float:
            return float(function(point | {name: point[name] + step * along for name, along in direction.items()}))

        difference = clean_difference(moved)
        if difference is not None:
            return difference.relative_error(sum(float((gradients[n] * d).sum()) for n, d in direction.items()))
    raise AssertionError("every direction has a kink within the smallest h")


def _pattern(function: Callable[[float], float], at: float) -> bytes:
    with kink_pattern() as pattern, torch.no_grad():
        function(at)
    if not pattern.calls:
        raise AssertionError("saw neither F.relu nor F.max_pool2d: kinks would go unnoticed")
    return pattern.digest()
