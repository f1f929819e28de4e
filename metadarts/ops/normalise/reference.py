"""The reference of batch normalisation under weighted statistics, written as its definition."""

from __future__ import annotations

from torch import Tensor


def normalise(x: Tensor, rows: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """See `op.normalise`."""
    pixels = x.shape[1] * x.shape[2]
    if rows is None:
        rows = x.new_full((x.shape[0], x.shape[3]), 1.0 / x.shape[0])
    weight = (rows / pixels)[:, None, None, :]
    mean = (weight * x).sum((0, 1, 2))
    variance = (weight * (x - mean) ** 2).sum((0, 1, 2))
    return (x - mean) / (variance + eps).sqrt()
