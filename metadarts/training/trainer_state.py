"""Where a search stands, beside its `MetaState`, as the plain numbers that a checkpoint keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from .clock import Clock, Smoothed
from .config import Config


@dataclass
class TrainerState:
    """What going on needs to know. Randomness needs no more than the seed and the step.

    Args:
        clock: how far the run is.
        micro_batch, evaluation_batch: tasks per pass, as far as memory allowed.
        looks: validations done.
        best: the best validation accuracy so far.
        smooth: running means for the progress bar.
    """

    clock: Clock
    micro_batch: int
    evaluation_batch: int
    looks: int = 0
    best: float | None = None
    smooth: Smoothed = field(default_factory=Smoothed)

    @staticmethod
    def at_start(config: Config) -> TrainerState:
        """Before the first step."""
        training = config.training
        return TrainerState(Clock(training), training.micro_batch or training.tasks, config.evaluate.batch)

    def facts(self) -> dict[str, Any]:
        """For the checkpoint's JSON."""
        return {
            "looks": self.looks,
            "best": self.best,
            "micro_batch": self.micro_batch,
            "evaluation_batch": self.evaluation_batch,
            "seconds": self.clock.seconds,
            "reserve": self.clock.reserve,
            "smooth_loss": self.smooth.loss,
            "smooth_accuracy": self.smooth.accuracy,
        }

    @staticmethod
    def from_facts(facts: dict[str, Any], config: Config) -> TrainerState:
        """What `facts` wrote. Raises KeyError, TypeError or ValueError when something else did."""
        spent, reserve = _number(facts["seconds"]), _number(facts["reserve"])
        return TrainerState(
            Clock(config.training, spent=spent, reserve=reserve),
            whole(facts["micro_batch"], 1),
            whole(facts["evaluation_batch"], 1),
            whole(facts["looks"]),
            _maybe(facts["best"]),
            Smoothed(_maybe(facts["smooth_loss"]), _maybe(facts["smooth_accuracy"])),
        )


def whole(value: Any, least: int = 0) -> int:
    """``value`` as a whole number from ``least`` on. Raises ValueError."""
    if type(value) is not int or value < least:
        raise ValueError(f"expected a whole number from {least} on, got {value!r}")
    return value


def _maybe(value: Any) -> float | None:
    return None if value is None else _number(value)


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value!r}")
    return float(value)
