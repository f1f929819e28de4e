"""Selection of the cell of a finished search: by its alphas, or by accuracy on tasks of the validation classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from metadarts.core.errors import ConfigError
from metadarts.core.progress import Watch, tell
from metadarts.core.rng import Key
from metadarts.core.types import Stage, TaskBatch, alphas_of
from metadarts.derive import Searched, Selection, SelectionRule, check_alphas, derive_genotype, genotype_weights
from metadarts.meta import evaluate

from .build import Experiment, held_out
from .catalogue import BUILT_IN, Catalogue
from .checkpoints import Checkpoint
from .choice import Choice
from .config import Config
from .evaluation import VALIDATION_ADVICE, evaluation_inner, on_device
from .memory import fitted

COMPARED = 3
"""The supernet, the chosen cell and that of argmax, which are judged after the choice."""


def selection_rule(name: str, options: Mapping[str, str], catalogue: Catalogue = BUILT_IN) -> SelectionRule:
    """The rule ``name`` with its options, their values as text. Raises ConfigError."""
    choice = Choice(name)
    for option, value in options.items():
        choice = choice.with_option(f"{name}.{option}", value, catalogue.selections, 0)
    rule: SelectionRule = choice.make(catalogue.selections)
    return rule


def searched(config: Config, checkpoint: Checkpoint) -> Searched:
    """What a rule is told of a run: the meta-learned alphas, and the mixing after the last inner step. Needs no data.

    Raises:
        GenotypeError: when the checkpoint's alphas are not those of the space.
        NumericsError: when one is not finite.
    """
    network, alphas = config.build_network().fitting(checkpoint.params), alphas_of(checkpoint.params)
    steps = config.evaluate.steps
    check_alphas(alphas, network.space)
    at = Stage(steps, steps, checkpoint.facts.get("progress", 1.0))
    return Searched(network.space, alphas, network.relaxation, network.weights_of(checkpoint.params, at))


@dataclass
class TaskJudge:
    """Judges candidates on the same tasks of the validation classes, adapted by the run's inner loop.

    The tasks are those on which the search chose its checkpoint. A candidate's mixing weights stand still while the
    other parameters adapt. As many (candidate, task) pairs as ``evaluate.batch`` lie on one task axis: all tasks of
    several candidates, else some tasks of one, so that what a candidate has no weight on need not run.

    Args:
        experiment, checkpoint: the run.
        tasks: how many.
        candidates: how many are expected; for the share done.
        progress: reports the candidates evaluated and the highest accuracy so far.
    """

    experiment: Experiment
    checkpoint: Checkpoint
    tasks: int
    candidates: int = 1
    progress: Watch | None = None
    size: int = field(init=False)
    found: list[float] = field(init=False, default_factory=list)
    drawn: TaskBatch | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        self.size = self.experiment.config.evaluate.batch

    def __call__(self, candidates: Sequence[Mapping[str, Tensor]]) -> list[float]:
        """The mean accuracy of each of ``candidates``, tables [E, P] by cell. Raises ResourceError."""

        def work(size: int) -> list[float]:
            judged: list[float] = []
            together = max(1, size // self.tasks)
            for first in range(0, len(candidates), together):
                group = candidates[first : first + together]
                weights = {cell: torch.stack([own[cell] for own in group]) for cell in group[0]}
                judged += self._group(weights, len(group), size, judged)
            return judged

        return self._fitted(work)

    def supernet(self) -> float:
        """The mean accuracy of the supernet, whose alphas adapt as in the run."""
        return self._fitted(lambda size: self._group(None, 1, size, []))[0]

    def _fitted(self, work: Callable[[int], list[float]]) -> list[float]:
        fits = self.experiment.config.training.fit_memory
        accuracies, self.size = fitted(work, self.size, fits, VALIDATION_ADVICE)
        self.found += accuracies
        return accuracies

    def _group(self, weights: Mapping[str, Tensor] | None, count: int, size: int, before: list[float]) -> list[float]:
        """Mean accuracies of ``count`` candidates, tables [count, E, P], as many tasks at a time as ``size`` allows."""
        span, parts = max(1, size // count), []
        for first in range(0, self.tasks, span):
            last = min(first + span, self.tasks)
            parts.append(self._pass(weights, count, first, last))
            self._tell(count * last / self.tasks, [*self.found, *before])
        means: list[float] = torch.cat(parts, 1).mean(1).tolist()
        return means

    def _pass(self, weights: Mapping[str, Tensor] | None, count: int, first: int, last: int) -> Tensor:
        """Accuracies [count, tasks] on tasks ``first`` to ``last``."""
        learner, batch, wide = self.experiment.learner, self._batch(first, last), last - first
        if weights is not None:
            own = {cell: table.repeat_interleave(wide, 0) for cell, table in weights.items()}
            learner = replace(learner, weights=own)
        if count > 1:
            batch = batch.take(torch.arange(wide, device=batch.support_labels.device).repeat(count))
        result = evaluate(
            learner,
            on_device(self.experiment, self.checkpoint.params) or {},
            lambda _first, _last: batch,
            evaluation_inner(self.experiment.config),
            tasks=batch.tasks,
            rates=on_device(self.experiment, self.checkpoint.rates),
            batch_size=batch.tasks,
            run_progress=self.checkpoint.facts.get("progress", 1.0),
        )
        return result.accuracies.double().view(count, wide)

    def _batch(self, first: int, last: int) -> TaskBatch:
        """The tasks; kept where one pass holds them all."""
        if self.drawn is None or last - first < self.tasks:
            drawn = held_out(self.experiment, "val", purpose="selection").batch(first, last)
            self.drawn = drawn if drawn.tasks == self.tasks else None
            return drawn
        return self.drawn

    def _tell(self, more: float, judged: list[float]) -> None:
        """``more`` are under way, in parts of a candidate."""
        done = len(judged) + more
        best = f"  best {max(judged):.2%}" if judged else ""
        tell(self.progress, done, max(self.candidates, done), figures=f"{int(done)}/{self.candidates} judged{best}")


@dataclass(frozen=True)
class Choosing:
    """A choice by accuracy.

    Args:
        selection: the cell, and what to read beside it.
        supernet: accuracy of the supernet on the tasks of the choice, 0 to 1.
        chosen: that of the cell with the weights it inherits.
        argmax: that of the cell of highest scores, likewise.
    """

    selection: Selection
    supernet: float
    chosen: float
    argmax: float


def choose(
    experiment: Experiment,
    checkpoint: Checkpoint,
    rule: SelectionRule,
    *,
    tasks: int,
    key: Key,
    progress: Watch | None = None,
) -> Choosing:
    """Choose by ``rule`` on ``tasks`` tasks of the validation classes, and compare the choice on these.

    Raises:
        ConfigError: where the run has dropped candidates for good.
        MetadartsError: what `searched` raises, or where memory runs out.
    """
    if experiment.network.kept is not None:
        raise ConfigError(
            "the supernet has dropped candidates for good: expected all of them, to judge any cell; search with "
            "commit.drop_below and commit.operations off"
        )
    known = searched(experiment.config, checkpoint)
    judge = TaskJudge(experiment, checkpoint, tasks, rule.judged(known.space) + COMPARED, progress)
    selection = rule.select(known, judge, key)
    cells = [selection.genotype, derive_genotype(known.alphas, known.space, known.relaxation)]
    chosen, argmax = judge([genotype_weights(cell, known.space, dtype=torch.float64) for cell in cells])
    return Choosing(selection, judge.supernet(), chosen, argmax)
