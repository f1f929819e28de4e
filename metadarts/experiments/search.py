"""The search: meta-training of the supernet, watched on validation classes, able to stop and go on at any step.

Every draw is a function of the seed and the step, so a search is determined by its configuration and where it stands;
checkpoint "last" holds all of the latter. A run limited by ``meta_steps`` that goes on from it ends bit for bit as the
run that never stopped (on a CPU, with the same number of threads).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from metadarts.core.errors import NumericsError, ResourceError, RunError
from metadarts.derive import alpha_entropy, count_skips, derive_genotype
from metadarts.meta import Evaluation, MetaGradient, MetaState, evaluate, meta_gradient

from .board import Board
from .build import Experiment, held_out
from .checkpoints import Checkpoint
from .clock import Clock, Smoothed
from .evaluation import LOOK_ADVICE, alphas_of, evaluation_inner, on_device
from .memory import fitted
from .records import RunFolder

RECORD_SECONDS = 2.0
ALPHA_SECONDS = 30.0
CURVE_TASKS = 10
"""Validation tasks on which a look measures every inner step; all would cost more than the look itself."""


@dataclass(frozen=True)
class Progress:
    """What a watcher is told after each outer step."""

    step: int
    fraction: float
    seconds: float
    loss: float
    accuracy: float
    best: float | None


class SearchStopped(Exception):
    """The search was asked to stop and did, with checkpoint "last" in place; ``step`` is where it stands."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after meta-step {step}")
        self.step = step


@dataclass
class Standing:
    """Where a search stands, beside its `MetaState`: what a checkpoint keeps as plain numbers.

    Args:
        looks: validations done.
        best: the best validation accuracy so far.
        micro_batch, evaluation_batch: tasks per pass, as far as memory allowed.
        smooth: running means for the progress bar.
    """

    looks: int
    best: float | None
    micro_batch: int
    evaluation_batch: int
    smooth: Smoothed = field(default_factory=Smoothed)


def search(
    experiment: Experiment,
    run: RunFolder,
    watch: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> MetaState:
    """Meta-train from where ``run`` stands (fresh, or its checkpoint "last") to the end.

    Checkpoint "best" is the one of highest validation accuracy, "last" the one to go on from. The search holds the
    run's lock.

    Args:
        watch: told of every outer step.
        stop: polled between steps and within validations; once it says True, "last" is written and the search ends.

    Raises:
        SearchStopped: when ``stop`` said so.
        NumericsError: when a whole meta-batch leaves the finite numbers; "last" holds the state before it.
        ResourceError: when memory runs out and `training.fit_memory` is off; "last" is written as well.
        RunError: when the folder is in use, cannot be written, or holds a checkpoint of something else.
    """
    with run.lock():
        return _Search(experiment, run, watch, stop).run_to_end()


class _Search:
    """One process's share of a search."""

    def __init__(
        self,
        experiment: Experiment,
        run: RunFolder,
        watch: Callable[[Progress], None] | None,
        stop: Callable[[], bool],
    ) -> None:
        self.experiment, self.run, self.watch, self.stop = experiment, run, watch, stop
        self.config = experiment.config
        self.space = experiment.network.space
        self.validation = held_out(experiment, "val", purpose="selection")
        self.saved = self.recorded = self.drawn = float("-inf")
        checkpoint = run.load("last") if run.has("last") else None
        if checkpoint is None:
            training = self.config.training
            self.state = experiment.fresh_state()
            self.standing = Standing(0, None, training.micro_batch or training.tasks, self.config.evaluate.batch)
            self.clock = Clock(training)
            run.cut_metrics(0)
        else:
            self._restore(checkpoint)

    def run_to_end(self) -> MetaState:
        """Steps and looks until the run is done."""
        board = Board(self.run.path, self.space, self.state.step + 1 if self.state.step else None)
        try:
            self.board = board
            self._begin()
            with self._kept():
                while not self._look_if_due():
                    self._check_stop()
                    self._advance()
        finally:
            board.close()
        self.run.write_json("finished.json", {"steps": self.state.step, "seconds": round(self.clock.seconds, 1)})
        return self.state

    def _begin(self) -> None:
        if self.state.step:
            self._note(kind="resume", step=self.state.step, seconds=self._seconds(), threads=torch.get_num_threads())
        else:
            self._note_alphas()

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Write "last" when the search stops for a reason that leaves the state whole."""
        try:
            yield
        except (NumericsError, ResourceError) as error:
            step = self.state.step + 1 if self._is_finite() else self.state.step
            if self._is_finite():
                self._save()
            raise type(error)(
                f"meta-step {step}: {error} (what was good before it is kept in {self.run.path})"
            ) from error
        except SearchStopped:
            self._save()
            raise

    def _check_stop(self, *_: Any) -> None:
        if self.stop():
            raise SearchStopped(self.state.step)

    def _look_if_due(self) -> bool:
        """Validate when it is time; True once the run is done."""
        fraction, count = self.clock.fraction(self.state.step), self.config.training.validations
        if fraction >= 1.0 or fraction * count >= self.standing.looks + 1:
            before = self.clock.seconds
            self._look()
            self.standing.looks = int(fraction * count)
            self.clock.reserve = max(self.clock.reserve, self.clock.seconds - before)
            self._save()
        elif self.clock.seconds - self.saved >= self.config.training.save_seconds:
            self._save()
        return fraction >= 1.0

    def _advance(self) -> None:
        """One outer step."""
        training, step = self.config.training, self.state.step
        batch, fraction = self.experiment.training_batch(step), self.clock.fraction(step)

        def work(size: int) -> MetaGradient:
            learner, inner, rates = self.experiment.learner, self.config.inner, self.state.rates
            return meta_gradient(
                learner, self.state.params, batch, inner, rates=rates, engine=training.engine, micro_batch=size
            )

        result, fitting = fitted(work, self.standing.micro_batch, training.fit_memory, STEP_ADVICE)
        norms = self.state.apply(result.gradients, fraction)
        if not self._is_finite():
            raise NumericsError("the outer update left the finite numbers; lower outer.weight_rate or set outer.clip")
        if fitting != self.standing.micro_batch:
            self.standing.micro_batch = fitting
            self._note(kind="memory", step=step, micro_batch=fitting)
        loss, accuracy = self.standing.smooth.update(result)
        if self.clock.seconds - self.recorded >= RECORD_SECONDS or step == 0:
            self.recorded = self.clock.seconds
            self._note_step(result, norms)
        if self.clock.seconds - self.drawn >= ALPHA_SECONDS:
            self._note_alphas()
        if self.watch:
            seconds, step = self.clock.seconds, self.state.step
            self.watch(Progress(step, self.clock.fraction(step), seconds, loss, accuracy, self.standing.best))

    def _is_finite(self) -> bool:
        return all(
            bool(torch.isfinite(tensor).all())
            for tensor in (*self.state.params.values(), *self.state.log_rates.values())
        )

    def _look(self) -> None:
        """Measure on the validation tasks; keep the checkpoint if it is the best so far."""
        training = self.config.training
        result, self.standing.evaluation_batch = fitted(
            self._validate, self.standing.evaluation_batch, training.fit_memory, LOOK_ADVICE
        )
        bn, accuracy, interval = self.config.model.bn, result.accuracy, result.interval95
        if self.standing.best is None or accuracy >= self.standing.best:
            self.standing.best = accuracy
            facts = {"validation_accuracy": accuracy, "validation_interval95": interval}
            self.run.save("best", self.state, **facts, validation_tasks=training.validation_tasks, bn=bn)
        curves = {
            "curve_accuracy": _means(result.curve),
            "curve_loss": _means(result.loss_curve),
            "curve_tasks": result.curve.shape[-1],
        }
        now = {"step": self.state.step, "seconds": self._seconds()}
        self._note(kind="validate", **now, accuracy=accuracy, interval95=interval, bn=bn, **curves)
        self._note_alphas()

    def _validate(self, size: int) -> Evaluation:
        return evaluate(
            self.experiment.learner,
            self.state.params,
            self.validation.batch,
            evaluation_inner(self.config),
            tasks=self.config.training.validation_tasks,
            rates=self.state.rates,
            batch_size=size,
            curve_tasks=CURVE_TASKS,
            progress=self._check_stop,
        )

    def _note(self, **facts: Any) -> None:
        """One record, for metrics.jsonl and for TensorBoard alike."""
        self.run.record(**facts)
        self.board.add(facts)

    def _note_step(self, result: MetaGradient, norms: dict[str, float]) -> None:
        alphas, finite = alphas_of(self.state.params), result.finite
        rates = self.state.rates or {}
        self._note(
            kind="train",
            step=self.state.step,
            seconds=self._seconds(),
            loss=float(result.losses[finite].mean()),
            accuracy=float(result.accuracies[finite].mean()),
            finite_tasks=int(finite.sum()),
            **{f"gradient_{name}": norm for name, norm in norms.items()},
            **{f"entropy_{kind}": value for kind, value in alpha_entropy(alphas).items()},
            **{f"skips_{kind}": count for kind, count in count_skips(derive_genotype(alphas, self.space)).items()},
            support_losses=_means(result.support_losses[:, finite]),
            **({"rates": {name: rate.tolist() for name, rate in rates.items()}} if rates else {}),
        )

    def _note_alphas(self) -> None:
        alphas = alphas_of(self.state.params)
        self.drawn = self.clock.seconds
        self._note(
            kind="alphas",
            step=self.state.step,
            seconds=self._seconds(),
            **{kind: [[round(value, 6) for value in row] for row in table.tolist()] for kind, table in alphas.items()},
            genotype=str(derive_genotype(alphas, self.space)),
        )

    def _seconds(self) -> float:
        return round(self.clock.seconds, 2)

    def _save(self) -> None:
        """Write all that going on needs. Randomness needs no more than the seed and the step."""
        standing, self.saved = self.standing, self.clock.seconds
        self.run.save(
            "last",
            self.state,
            resumable=True,
            looks=standing.looks,
            best=standing.best,
            micro_batch=standing.micro_batch,
            evaluation_batch=standing.evaluation_batch,
            seconds=self.clock.seconds,
            reserve=self.clock.reserve,
            smooth_loss=standing.smooth.loss,
            smooth_accuracy=standing.smooth.accuracy,
            metrics_size=self.run.metrics_size(),
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Stand where ``checkpoint`` was taken; later records are dropped, since their steps are taken again."""
        facts, experiment = checkpoint.facts, self.experiment
        experiment.check_params(checkpoint.params)
        params, log_rates = (on_device(experiment, part) or {} for part in (checkpoint.params, checkpoint.log_rates))
        if log_rates.keys() != experiment.fresh_state().log_rates.keys():
            raise RunError(f"{self.run.path}: checkpoint of another configuration: it has other learned rates")
        self.state = MetaState.restore(params, log_rates, checkpoint.memory, facts["step"], self.config.outer)
        try:
            smooth = Smoothed(facts["smooth_loss"], facts["smooth_accuracy"])
            batches = int(facts["micro_batch"]), int(facts["evaluation_batch"])
            self.standing = Standing(int(facts["looks"]), facts["best"], *batches, smooth)
            self.clock = Clock(self.config.training, spent=float(facts["seconds"]), reserve=float(facts["reserve"]))
            self.run.cut_metrics(int(facts["metrics_size"]))
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.run.path}: checkpoint 'last' is damaged: {error}") from error


STEP_ADVICE = (
    "lower training.micro_batch, or let --fit-memory do it; else set inner.checkpoint to inner.steps (exact, slower), "
    "use --order first, or lower inner.steps, tasks.queries or model.channels"
)


def _means(table: torch.Tensor) -> list[float | None]:
    """Mean of every row over its finite values; None where there is none, which is what JSON has for it."""
    rows = [row[torch.isfinite(row)] for row in table]
    return [float(row.mean()) if len(row) else None for row in rows]
