"""The state of a search in addition to its `MetaState`, as the plain numbers that a checkpoint stores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from metadarts.core.errors import RunError
from metadarts.store.fields import Count, Number, Positive
from metadarts.store.schema import Schema

from .clock import Clock, Smoothed
from .config import Config


@dataclass(frozen=True)
class TrainerFacts:
    """A `TrainerState` in a checkpoint's JSON, and how many bytes of metrics.jsonl are older than the checkpoint."""

    looks: Count  # validations done, under the name that files of version 0.1 have
    best: Number | None
    micro_batch: Positive
    evaluation_batch: Positive
    seconds: Number
    reserve: Number
    smooth_loss: Number | None
    smooth_accuracy: Number | None
    metrics_size: Count
    more: dict[str, Any]


TRAINER = Schema(TrainerFacts, RunError, "go on from another run, or begin anew")


@dataclass
class TrainerState:
    """What going on needs to know. Randomness needs no more than the seed and the step.

    Args:
        clock: how far the run is.
        micro_batch, evaluation_batch: tasks per pass, as far as memory allowed.
        validations: how many are done.
        best: the best validation accuracy so far.
        smooth: running means for the progress bar.
    """

    clock: Clock
    micro_batch: int
    evaluation_batch: int
    validations: int = 0
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
            "looks": self.validations,
            "best": self.best,
            "micro_batch": self.micro_batch,
            "evaluation_batch": self.evaluation_batch,
            "seconds": self.clock.seconds,
            "reserve": self.clock.reserve,
            "smooth_loss": self.smooth.loss,
            "smooth_accuracy": self.smooth.accuracy,
        }

    @staticmethod
    def from_facts(told: TrainerFacts, config: Config) -> TrainerState:
        """Where the search stood that wrote ``told``."""
        return TrainerState(
            Clock(config.training, spent=told.seconds, reserve=told.reserve),
            told.micro_batch,
            told.evaluation_batch,
            told.looks,
            told.best,
            Smoothed(told.smooth_loss, told.smooth_accuracy),
        )
