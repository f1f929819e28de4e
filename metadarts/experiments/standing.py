"""Where a search stands, beside its `MetaState`, as the plain numbers that a checkpoint keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .clock import Clock, Smoothed
from .config import Config


@dataclass
class Standing:
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
    def at_start(config: Config) -> Standing:
        """Before the first step."""
        training = config.training
        return Standing(Clock(training), training.micro_batch or training.tasks, config.evaluate.batch)

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
    def from_facts(facts: dict[str, Any], config: Config) -> Standing:
        """What `facts` wrote. Raises KeyError, TypeError or ValueError when something else did."""
        spent, reserve = float(facts["seconds"]), float(facts["reserve"])
        return Standing(
            Clock(config.training, spent=spent, reserve=reserve),
            int(facts["micro_batch"]),
            int(facts["evaluation_batch"]),
            int(facts["looks"]),
            facts["best"],
            Smoothed(facts["smooth_loss"], facts["smooth_accuracy"]),
        )
