"""Shapes checked before a kernel is run: it reads memory by what it is told, where torch would raise."""

from __future__ import annotations

from torch import Tensor


def check_shape(op: str, what: str, tensor: Tensor, expected: tuple[int | None, ...]) -> None:
    """Require a shape; None is any size.

    Raises:
        ValueError: naming the operator and the argument.
    """
    fits = len(tensor.shape) == len(expected) and all(
        want in (None, size) for want, size in zip(expected, tensor.shape, strict=True)
    )
    if not fits:
        shown = ", ".join("any" if want is None else str(want) for want in expected)
        raise ValueError(f"{op}: expected {what} of shape [{shown}], got {list(tensor.shape)}")


def check_kernel(op: str, weight: Tensor) -> None:
    """Require a square filter of odd size in the last two axes. Raises ValueError."""
    if weight.shape[-1] != weight.shape[-2] or weight.shape[-1] % 2 == 0:
        raise ValueError(f"{op}: expected a square filter of odd size, got {list(weight.shape[-2:])}")
