"""The search: meta-training of the supernet, watched on validation classes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from metadarts.core.errors import NumericsError
from metadarts.derive import alpha_entropy
from metadarts.meta import Evaluation, MetaGradient, MetaState, evaluate, meta_step

from .build import Experiment, HeldOut, held_out
from .config import Training
from .evaluation import alphas_of, evaluation_inner
from .records import RunFolder

RECORD_SECONDS = 2.0


@dataclass(frozen=True)
class Progress:
    """What a watcher is told after each outer step."""

    step: int
    fraction: float
    seconds: float
    loss: float
    accuracy: float
    best: float | None


@dataclass
class Clock:
    """How far a run is, by steps or by time, whichever ends first."""

    training: Training
    started: float = field(default_factory=time.monotonic)
    reserve: float = 0.0
    """Seconds kept for the look at validation classes that ends the run; as long as the longest so far."""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def fraction(self, step: int) -> float:
        parts = []
        if self.training.meta_steps:
            parts.append(step / self.training.meta_steps)
        if self.training.minutes:
            parts.append((self.seconds + self.reserve) / (60.0 * self.training.minutes))
        return min(1.0, max(parts))


@dataclass
class Smoothed:
    """Running means of loss and accuracy, so that the bar does not flicker."""

    loss: float = float("nan")
    accuracy: float = float("nan")

    def update(self, result: MetaGradient) -> None:
        loss, accuracy = (float(t[result.finite].mean()) for t in (result.losses, result.accuracies))
        fresh = self.loss != self.loss
        self.loss = loss if fresh else 0.95 * self.loss + 0.05 * loss
        self.accuracy = accuracy if fresh else 0.95 * self.accuracy + 0.05 * accuracy


def search(experiment: Experiment, run: RunFolder, watch: Callable[[Progress], None] | None = None) -> MetaState:
    """Meta-train from scratch and leave the best checkpoint by validation accuracy in ``run``.

    Raises:
        NumericsError: when a whole meta-batch leaves the finite numbers; the last good checkpoint stays in place.
    """
    from torch.utils.tensorboard import SummaryWriter

    config, state = experiment.config, experiment.fresh_state()
    validation = held_out(experiment, "val", purpose="selection")
    clock, smooth, best = Clock(config.training), Smoothed(), None
    looks, recorded = 0, -RECORD_SECONDS
    writer = SummaryWriter(str(run.path))
    try:
        while True:
            fraction = clock.fraction(state.step)
            if fraction >= 1.0 or fraction * config.training.validations >= looks + 1:
                looks = int(fraction * config.training.validations)
                before = clock.seconds
                best = _look(experiment, state, validation, run, writer, best)
                clock.reserve = max(clock.reserve, clock.seconds - before)
            if fraction >= 1.0:
                run.write_json("finished.json", {"steps": state.step, "seconds": round(clock.seconds, 1)})
                return state
            result, norms = _step(experiment, state, fraction)
            smooth.update(result)
            if clock.seconds - recorded >= RECORD_SECONDS or state.step == 1:
                recorded = clock.seconds
                _record(experiment, state, result, norms, clock.seconds, run, writer)
            if watch:
                seconds = clock.seconds
                watch(Progress(state.step, clock.fraction(state.step), seconds, smooth.loss, smooth.accuracy, best))
    finally:
        writer.close()


def _step(experiment: Experiment, state: MetaState, fraction: float) -> tuple[MetaGradient, dict[str, float]]:
    config = experiment.config
    batch = experiment.training_batch(state.step)
    try:
        return meta_step(
            experiment.learner,
            state,
            batch,
            config.inner,
            progress=fraction,
            engine=config.training.engine,
            micro_batch=config.training.micro_batch or None,
        )
    except NumericsError as error:
        raise NumericsError(f"meta-step {state.step + 1}: {error}") from error


def _look(
    experiment: Experiment, state: MetaState, validation: HeldOut, run: RunFolder, writer: Any, best: float | None
) -> float:
    """Measure on the validation tasks; keep the checkpoint if it is the best so far."""
    result = _validate(experiment, state, validation)
    bn = experiment.config.model.bn
    run.record(kind="validate", step=state.step, accuracy=result.accuracy, interval95=result.interval95, bn=bn)
    writer.add_scalar("validate/accuracy", result.accuracy, state.step)
    if best is None or result.accuracy >= best:
        facts = {"validation_accuracy": result.accuracy, "validation_interval95": result.interval95}
        run.save("best", state, **facts, validation_tasks=experiment.config.training.validation_tasks, bn=bn)
        return result.accuracy
    return best


def _validate(experiment: Experiment, state: MetaState, validation: HeldOut) -> Evaluation:
    config = experiment.config
    return evaluate(
        experiment.learner,
        state.params,
        validation.batch,
        evaluation_inner(config),
        tasks=config.training.validation_tasks,
        rates=state.rates,
        batch_size=config.evaluate.batch,
    )


def _record(
    experiment: Experiment,
    state: MetaState,
    result: MetaGradient,
    norms: dict[str, float],
    seconds: float,
    run: RunFolder,
    writer: Any,
) -> None:
    alphas = alphas_of(state.params)
    facts = {
        "loss": float(result.losses[result.finite].mean()),
        "accuracy": float(result.accuracies[result.finite].mean()),
        "finite_tasks": int(result.finite.sum()),
        **{f"gradient_{name}": norm for name, norm in norms.items()},
        **{f"entropy_{name}": value for name, value in alpha_entropy(alphas).items()},
    }
    run.record(kind="train", step=state.step, seconds=round(seconds, 2), **facts)
    for name, value in facts.items():
        writer.add_scalar(f"train/{name}", value, state.step)
    for step, losses in enumerate(result.support_losses):
        writer.add_scalar(f"inner/support_loss_{step}", float(torch.nanmean(losses)), state.step)
