"""Schedules over the run; progress is a number, or a 0-dim tensor that a recorded GPU step sees change."""

from __future__ import annotations

from torch import Tensor


def passed(progress: Tensor | float, begin: float, finish: float) -> Tensor | float:
    """How much of the span from ``begin`` to ``finish`` lies behind ``progress``, 0 to 1."""
    share = (progress - begin) / (finish - begin)
    return share.clamp(0.0, 1.0) if isinstance(share, Tensor) else min(max(share, 0.0), 1.0)


def geometric(start: float, end: float, share: Tensor | float) -> Tensor | float:
    """From ``start`` to ``end``, by equal factors in equal shares."""
    return start * (end / start) ** share
