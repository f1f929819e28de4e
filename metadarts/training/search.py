"""The search: meta-training of the supernet, validated on validation classes. It can stop and resume at any step.

Every draw is a function of the seed and the step, so the configuration and the current state determine a search;
checkpoint "last" contains the whole state. A run limited by ``meta_steps`` that resumes from it ends bit for bit like a
run that never stopped (on a CPU, with the same number of threads).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from metadarts.core.errors import NumericsError, ResourceError, RunError
from metadarts.core.machine import commit, device_name
from metadarts.core.types import TaskBatch
from metadarts.inner import rate_shapes
from metadarts.meta import CapturedStep, Evaluation, MetaGradient, MetaState, evaluate, meta_gradient
from metadarts.networks import Network, cutter

from .build import Experiment, held_out, task_names
from .checkpoints import Checkpoint
from .clock import Clock
from .data_record import remember
from .evaluation import VALIDATION_ADVICE, evaluation_inner, on_device
from .memory import ADVICE, fitted, is_out_of_memory
from .pace import Pace
from .prefetch import Prefetcher
from .recording import alpha_facts, commit_facts, last_stage, recorded_cell, step_facts, validation_facts
from .records import RunFolder
from .tensorboard_writer import TensorBoardWriter
from .trainer_state import TRAINER, TrainerState

RECORD_SECONDS = 2.0
ALPHA_SECONDS = 30.0
CURVE_TASKS = 10
"""Validation tasks that are measured after every inner step; all would cost more than the validation itself."""
CUT_CELL = "the cell that is cut out"
"""What the first validation of a run that committed is of; from it on "best" is of the cell."""
STEP_ADVICE = (
    "lower training.micro_batch, or let --fit-memory do it; else set inner.checkpoint to inner.steps (exact, slower), "
    "use --order first, or lower inner.steps, tasks.queries or macro.channels"
)


@dataclass(frozen=True)
class SearchProgress:
    """What a watcher is told after each outer step.

    Args:
        fraction: of the run that is done, 0 to 1.
        seconds: that the run took so far, and those it is expected to take still.
        loss, accuracy: running means.
        best: the best validation accuracy so far.
    """

    step: int
    fraction: float
    seconds: float
    remaining: float
    loss: float
    accuracy: float
    best: float | None


class SearchStopped(Exception):
    """The search was asked to stop and did, with checkpoint "last" in place; ``step`` is where it stands."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after meta-step {step}")
        self.step = step


def search(
    experiment: Experiment,
    run: RunFolder,
    watch: Callable[[SearchProgress], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> MetaState:
    """Meta-train from the state of ``run`` (new, or its checkpoint "last") to the end.

    Checkpoint "best" has the highest validation accuracy; a resumed run starts from "last". The search holds the run's
    lock.

    Args:
        watch: called after every outer step.
        stop: polled between steps and within validations; when it returns True, "last" is written and the search ends.

    Raises:
        SearchStopped: when ``stop`` returned True.
        NumericsError: when a whole meta-batch is non-finite; "last" contains the state before it.
        ResourceError: when memory runs out without ``fit_memory``, or one task does not fit; "last" is also written.
        RunError: when the folder is in use, cannot be written, or contains a checkpoint of something else.
    """
    with run.lock():
        remember(run, experiment.source)
        return _Search(experiment, run, watch, stop).run_to_end()


class _Search:
    """One process's share of a search."""

    def __init__(
        self,
        experiment: Experiment,
        run: RunFolder,
        watch: Callable[[SearchProgress], None] | None,
        stop: Callable[[], bool],
    ) -> None:
        self.experiment, self.run, self.watch, self.stop = experiment, run, watch, stop
        self.config = experiment.config
        self.rule = self.config.meta_rule()
        self.validation = held_out(experiment, "val", purpose="selection")
        self.saved = self.recorded = self.drawn = float("-inf")
        self.doing = "start"
        self.pace = Pace(self.config.commit)
        if run.has("last"):
            checkpoint = run.load("last")
            self.experiment = experiment.of_checkpoint(checkpoint)
            self.state, self.trainer = self._restored(checkpoint)
        else:
            self.state, self.trainer = experiment.fresh_state(), TrainerState.at_start(self.config)
            run.cut_metrics(0)
        self.captured = self._captured()

    def run_to_end(self) -> MetaState:
        """Steps and validations until the run is done."""
        step = self.state.step
        earlier = self._earlier_alphas() if step else []
        self.cell = recorded_cell(earlier[-1]) if earlier else None
        self.board = TensorBoardWriter(self.run.path, self.network, step + 1 if step else None, earlier)
        try:
            if step:
                device = device_name(self.experiment.device.type)
                self._note("resume", threads=torch.get_num_threads(), device=device, commit=commit() or "unknown")
            else:
                self._note_alphas()
            with self._kept(), self._batches() as batch_of:
                while not self._is_done():
                    self._check_stop()
                    self._advance(batch_of)
        finally:
            self.board.close()
        self.run.write_json("finished.json", {"steps": self.state.step, "seconds": round(self.clock.seconds, 1)})
        return self.state

    def _earlier_alphas(self) -> list[dict[str, Any]]:
        """The "alphas" records so far; none where a line is damaged, which must not keep the search from going on."""
        try:
            return self.run.records("alphas")
        except RunError:
            return []

    @property
    def network(self) -> Network:
        """What is left of the network."""
        return self.experiment.network

    @property
    def clock(self) -> Clock:
        return self.trainer.clock

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Write "last" when the search stops for a reason that leaves the state whole."""
        try:
            yield
        except SearchStopped:
            self._save()
            raise
        except NumericsError as error:
            again = "; --resume would meet the same numbers, so mend the data or start a new run with other settings"
            raise NumericsError(f"{self.doing}: {error}{self._kept_words()}{again}") from error
        except (ResourceError, MemoryError, RuntimeError) as error:
            if not isinstance(error, ResourceError) and not is_out_of_memory(error):
                raise
            text = str(error) if isinstance(error, ResourceError) else f"memory ran out; {ADVICE}"
            raise ResourceError(f"{self.doing}: {text}{self._kept_words()}") from error

    def _kept_words(self) -> str:
        """Save the state if it is whole, and say what there is."""
        if not self.state.updating and self._is_finite():
            self._save()
        return (
            f" (step {self.run.load('last').facts['step']} is kept in {self.run.path})" if self.run.has("last") else ""
        )

    def _check_stop(self, *_: Any) -> None:
        if self.stop():
            raise SearchStopped(self.state.step)

    def _is_done(self) -> bool:
        """Whether the run is at its end; validates and saves on the way when it is time for that."""
        if self.state.step == 0:
            return False  # starting up may take all the time there was: one step is the least a search does
        fraction, count = self.clock.fraction(self.state.step), self.config.training.validations
        self._commit(fraction)
        if fraction * count >= self.trainer.validations + 1:  # at the end, unless a killed process did it
            self._validate()
            self.trainer.validations = int(fraction * count)
            self._save()
        elif self.clock.seconds - self.saved >= self.config.training.save_seconds:
            self._save()
        return bool(fraction >= 1.0)

    def _commit(self, fraction: float) -> None:
        """Drop what is due for good, ``fraction`` of the run being done."""
        commit, network = self.config.commit, self.network
        if commit.is_due(network, float(self.state.progress), fraction):
            left = commit.network(network, self.state.params, fraction)
            if not left.mixes:
                self._keep_supernet()
            if left != network:
                self._go_on_with(left)
                self._note("commit", **commit_facts(left))
                self._save()
        if self.trainer.best is None and self.experiment.committed_facts():  # also where it was stopped within
            self._validate(CUT_CELL)
            self.trainer.validations = int(fraction * self.config.training.validations)  # one that is due by now, too
            self._save()

    def _keep_supernet(self) -> None:
        """Measure the supernet, whose cell is about to be cut out, and keep it; "best" begins anew with the cell."""
        measured = self._validate("the supernet before its cell is cut out")
        self.run.save("supernet", self.state, **self._validation_facts(measured))
        self.trainer.best, self.clock.reserve = None, 0.0

    def _go_on_with(self, network: Network) -> None:
        """The same run, of a part of its network."""
        experiment = self.experiment
        learner = replace(experiment.learner, network=network)
        self.experiment = replace(experiment, learner=learner)
        names = rate_shapes(self.config.inner, task_names(network.shapes()))
        self.state = self.state.cut(cutter(network, experiment.network), names)
        self.captured = self._captured()

    @contextmanager
    def _batches(self) -> Iterator[Callable[[int], TaskBatch]]:
        """step -> its meta-batch; on a GPU made and copied ahead."""
        if self.experiment.device.type == "cpu":
            yield self._training_batch
            return
        with Prefetcher(self.experiment.training_raw, self.experiment.device) as prefetcher:
            yield lambda step: self.experiment.with_noise(prefetcher.batch(step), step)

    def _training_batch(self, step: int) -> TaskBatch:
        return self.experiment.training_batch(step)  # of the network that is left by then

    def _advance(self, batch_of: Callable[[int], TaskBatch]) -> None:
        """One outer step."""
        step, trainer = self.state.step, self.trainer
        self.doing = f"meta-step {step + 1}"
        begun, batch, fraction = time.monotonic(), batch_of(step), self.clock.fraction(step)
        result, norms = self._step(batch, fraction)
        if not self._is_finite():
            raise NumericsError("the outer update left the finite numbers; lower outer.weight_rate or set outer.clip")
        loss, accuracy = trainer.smooth.update(result)
        self._note_in_turn(result, norms)
        self.pace.update(self.network, time.monotonic() - begun)
        if self.watch:
            seconds, step = self.clock.seconds, self.state.step
            fraction, remaining = self.clock.fraction(step), self.pace.remaining(self.clock, step, self._validations())
            self.watch(SearchProgress(step, fraction, seconds, remaining, loss, accuracy, trainer.best))

    def _step(self, batch: TaskBatch, fraction: float) -> tuple[MetaGradient, dict[str, float]]:
        """The meta-gradient and the update by it, recorded and replayed where that can be."""
        config, state, trainer = self.config, self.state, self.trainer
        found: list[tuple[MetaGradient, dict[str, float]]] = []

        def work(size: int) -> MetaGradient:
            if self.captured is None:
                learner, inner, engine = self.experiment.learner, config.inner, config.engine()
                state.progress.fill_(fraction)
                return meta_gradient(
                    learner, state.params, batch, inner, rates=state.rates, engine=engine, micro_batch=size,
                    rule=self.rule, progress=state.progress,
                )  # fmt: skip
            self.captured.micro_batch = size
            try:
                found.append(self.captured(batch, fraction))
            except (MemoryError, RuntimeError) as error:
                if not state.updating:
                    raise
                raise ResourceError(f"memory ran out during the outer update ({error}); {STEP_ADVICE}") from error
            return found[-1][0]

        result, fitting = fitted(work, trainer.micro_batch, config.training.fit_memory, STEP_ADVICE)
        norms = found[-1][1] if found else state.apply(result.gradients, fraction)
        if fitting != trainer.micro_batch:
            trainer.micro_batch = fitting
            self._note("memory", micro_batch=fitting)
        return result, norms

    def _captured(self) -> CapturedStep | None:
        """The recorded step; None where there is nothing to record with."""
        training = self.config.training
        if not (training.capture and self.state.on_device and training.engine == "batched"):
            return None
        return CapturedStep(self.experiment.learner, self.state, self.config.inner, rule=self.rule)

    def _is_finite(self) -> bool:
        tensors = (*self.state.params.values(), *self.state.log_rates.values())
        return bool(torch.isfinite(torch.cat([tensor.flatten() for tensor in tensors])).all())

    def _validate(self, of: str = "") -> Evaluation:
        """Measure on the validation tasks; keep the checkpoint if it is the best so far.

        Args:
            of: what is measured besides the turns that the run has for it.
        """
        training, trainer, before = self.config.training, self.trainer, self.clock.seconds
        self.doing = f"validation after meta-step {self.state.step}"
        result, trainer.evaluation_batch = fitted(
            self._measure, trainer.evaluation_batch, training.fit_memory, VALIDATION_ADVICE
        )
        if trainer.best is None or result.accuracy >= trainer.best:
            trainer.best = result.accuracy
            self.run.save("best", self.state, **self._validation_facts(result))
        self._note("validate", **validation_facts(result, self.config.model.bn), **({"of": of} if of else {}))
        self._note_alphas()
        self.clock.reserve = max(self.clock.reserve, self.clock.seconds - before)
        return result

    def _validations(self) -> int:
        """Validations that are still to come; one before a cell is cut out, and one after."""
        cuts = self.network.mixes and self.config.commit.ends_in_a_cell
        return self.config.training.validations - self.trainer.validations + (2 if cuts else 0)

    def _validation_facts(self, result: Evaluation) -> dict[str, Any]:
        """Of a checkpoint that was measured."""
        return {
            "validation_accuracy": result.accuracy,
            "validation_interval95": result.interval95,
            "validation_tasks": self.config.training.validation_tasks,
            "bn": self.config.model.bn,
            **self.experiment.committed_facts(),
        }

    def _measure(self, size: int) -> Evaluation:
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
            run_progress=float(self.state.progress),
        )

    def _note(self, kind: str, **facts: Any) -> None:
        """One record, for metrics.jsonl and for TensorBoard alike."""
        record = {"kind": kind, "step": self.state.step, "seconds": round(self.clock.seconds, 2), **facts}
        self.run.record(**record)
        self.board.add(record)

    def _note_in_turn(self, result: MetaGradient, norms: dict[str, float]) -> None:
        """The step just taken and the alphas, each if the last note of its kind is old enough."""
        if self.clock.seconds - self.recorded >= RECORD_SECONDS or self.state.step == 1:
            self.recorded = self.clock.seconds
            self._note("train", **step_facts(self.state, result, norms, self.network))
        if self.clock.seconds - self.drawn >= ALPHA_SECONDS:
            self._note_alphas()

    def _note_alphas(self) -> None:
        self.drawn = self.clock.seconds
        if self.experiment.network.mixes:
            at = last_stage(self.config.inner.steps, self.state.progress)
            facts = alpha_facts(self.state.params, self.network, at, self.cell)
            self.cell = recorded_cell(facts)
            self._note("alphas", **facts)

    def _save(self) -> None:
        self.saved = self.clock.seconds
        facts = self.trainer.facts() | {"metrics_size": self.run.settled_metrics()} | self.experiment.committed_facts()
        self.run.save("last", self.state, resumable=True, **facts)

    def _restored(self, checkpoint: Checkpoint) -> tuple[MetaState, TrainerState]:
        """Where ``checkpoint`` was taken; later records are dropped, since their steps are taken again."""
        facts, experiment = checkpoint.facts, self.experiment
        experiment.check_params(checkpoint.params)
        fresh = experiment.fresh_state()
        shapes = ({n: t.shape for n, t in rates.items()} for rates in (fresh.log_rates, checkpoint.log_rates))
        if next(shapes) != next(shapes):
            raise RunError(f"{self.run.path}: checkpoint of another configuration: it has other learned rates")
        # In the order of a fresh state: sums over all tensors, such as a norm to clip, are rounded in their order.
        params, log_rates = (
            on_device(experiment, {name: found[name] for name in names}) or {}
            for names, found in ((fresh.params, checkpoint.params), (fresh.log_rates, checkpoint.log_rates))
        )
        told = TRAINER.convert(facts, f"{self.run.path}: checkpoint 'last' is damaged")
        trainer, step = TrainerState.from_facts(told, self.config), facts["step"]
        # A validation may come before the next step sets it. Version 0.1 wrote none.
        progress = facts.get("progress", trainer.clock.fraction(max(0, step - 1)))
        state = MetaState.restore(params, log_rates, checkpoint.memory, step, self.config.outer, progress=progress)
        most = self.config.training.micro_batch or trainer.micro_batch  # fewer where the plan of this process says so
        trainer.micro_batch = min(trainer.micro_batch, most)
        trainer.evaluation_batch = min(trainer.evaluation_batch, self.config.evaluate.batch)
        self.run.cut_metrics(told.metrics_size)
        return state, trainer
