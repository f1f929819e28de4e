"""How far a run is, and running means of its figures."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from metadarts.meta import MetaGradient

from .config import Training


@dataclass
class Clock:
    """How far a run is, by steps or by time, whichever ends first.

    Args:
        training: the lengths that were asked for.
        spent: seconds that earlier processes spent on the run.
        reserve: seconds kept for the validation that ends the run; as long as the longest so far.
    """

    training: Training
    started: float = field(default_factory=time.monotonic)
    spent: float = 0.0
    reserve: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of search so far, without the time between processes."""
        return self.spent + time.monotonic() - self.started

    def fraction(self, step: int) -> float:
        """Share of the run that is done after ``step`` outer steps, 0 to 1."""
        parts = []
        if self.training.meta_steps:
            parts.append(step / self.training.meta_steps)
        if self.training.minutes:
            parts.append((self.seconds + self.reserve) / (60.0 * self.training.minutes))
        return min(1.0, max(parts))


@dataclass
class Smoothed:
    """Running means of loss and accuracy, so that the bar does not flicker; None before the first step."""

    loss: float | None = None
    accuracy: float | None = None

    def update(self, result: MetaGradient) -> tuple[float, float]:
        """Take in one meta-batch; the new means."""
        loss, accuracy = (float(t[result.finite].mean()) for t in (result.losses, result.accuracies))
        self.loss = loss if self.loss is None else 0.95 * self.loss + 0.05 * loss
        self.accuracy = accuracy if self.accuracy is None else 0.95 * self.accuracy + 0.05 * accuracy
        return self.loss, self.accuracy
