"""Schedules of rates: (step, progress) -> the share of the rate, on numbers of the host."""

from __future__ import annotations

import math
from collections.abc import Callable

from metadarts.core.variants import Variants

from ._arithmetic import map_rates
from ._types import Transform, Update

Schedule = Callable[[int, float], float]
"""(steps taken, how far the run is from 0 to 1) -> share of the rate; beyond its ends a run is at its ends."""


def constant() -> Schedule:
    """1 throughout."""
    return lambda step, progress: 1.0


def cosine(final: float = 0.0) -> Schedule:
    """From 1 to ``final`` along half a cosine (Loshchilov and Hutter, ICLR 2017, equation 5, without restarts)."""

    def schedule(step: int, progress: float) -> float:
        return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))

    return schedule


def warmup(share: float) -> Schedule:
    """Linearly from 0 to 1 over the first ``share`` of the run; 0 is none."""
    return lambda step, progress: 1.0 if share <= 0.0 else min(max(progress, 0.0) / share, 1.0)


def after(steps: float) -> Schedule:
    """0 for the first ``steps`` steps, or for that share of the run where it is below 1; then 1."""
    return lambda step, progress: float(steps <= 0 or (progress if steps < 1 else step) >= steps)


def product(*schedules: Schedule) -> Schedule:
    """All of ``schedules`` at once."""
    return lambda step, progress: math.prod(schedule(step, progress) for schedule in schedules)


def scheduled(schedule: Schedule, steps: int) -> Transform:
    """The rates of a rule that is to take ``steps`` steps, counted by a number, times ``schedule``."""

    def transform(seen: Update) -> Update:
        step = int(seen.step)
        share = schedule(step, step / max(steps, 1))
        return seen._replace(rates=map_rates(seen.rates, lambda rate: rate * share))

    return transform


SCHEDULES: Variants[Callable[[], Schedule]] = Variants("schedule", {"constant": constant, "cosine": cosine})
"""Those that a name alone describes."""
