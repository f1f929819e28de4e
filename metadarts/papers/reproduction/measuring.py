"""One row: a checkpoint, fixed before this file is reached, on the table's frozen test episodes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from metadarts.core.progress import Watch, tell_mean
from metadarts.core.types import TaskBatch
from metadarts.meta import Evaluation, evaluate
from metadarts.papers.cells import adapt_batch, genotypes_of, with_cells
from metadarts.tasks import nearest_class_mean
from metadarts.tasks.frozen import FrozenEpisodes
from metadarts.training.build import Experiment
from metadarts.training.checkpoints import Checkpoint
from metadarts.training.evaluation import VALIDATION_ADVICE, evaluation_inner, on_device
from metadarts.training.memory import fitted

from .plans import RowPlan
from .results_cache import Measured, Share, Shares

Answer = tuple[list[float], list[str]]
"""Accuracies by task, and the tasks' own cells where they were derived."""
PIXELS_AT_ONCE = 10


def measure(
    row: RowPlan,
    experiment: Experiment | None,
    checkpoint: Checkpoint | None,
    episodes: FrozenEpisodes,
    shares: Shares,
    progress: Watch,
) -> Measured:
    """Measure ``row`` on the episodes that ``shares`` does not have yet.

    Args:
        experiment, checkpoint: what it is measured on; None for a row of pixels.
        progress: reports the tasks done and their mean accuracy.
    """
    answer: Callable[[TaskBatch], Answer] = _pixels
    if experiment is None or checkpoint is None:
        steps, bn, size = 0, "", PIXELS_AT_ONCE
    else:
        experiment = _as_asked(row, experiment)
        steps, bn, size = experiment.config.evaluate.steps, experiment.learner.bn, experiment.config.evaluate.batch
        answer = _answers(row, experiment, checkpoint)
    for first in range(shares.done[-1].last if shares.done else 0, episodes.tasks, size):
        begun, last = time.monotonic(), min(first + size, episodes.tasks)
        accuracies, genotypes = answer(episodes.batch(first, last))
        shares.add(Share(first, last, accuracies, genotypes, round(time.monotonic() - begun, 3)))
        mean = float(np.mean([value for share in shares.done for value in share.accuracies]))
        tell_mean(progress, last, episodes.tasks, mean)
    return Measured(
        np.array([value for share in shares.done for value in share.accuracies]),
        steps,
        bn,
        round(sum(share.seconds for share in shares.done), 1),
        tuple(genotype for share in shares.done for genotype in share.genotypes),
    )


def _as_asked(row: RowPlan, experiment: Experiment) -> Experiment:
    """The experiment under the row's own batch-norm policy and number of steps."""
    if row.bn:
        experiment = replace(experiment, learner=replace(experiment.learner, bn=row.bn))
    if row.mode != "unadapted":
        return experiment
    config = experiment.config
    return replace(experiment, config=replace(config, evaluate=replace(config.evaluate, steps=0)))


def _answers(row: RowPlan, experiment: Experiment, checkpoint: Checkpoint) -> Callable[[TaskBatch], Answer]:
    own = _cells if row.mode == "cells" else _adapted

    def answer(batch: TaskBatch) -> Answer:
        return own(experiment, checkpoint, batch.to(experiment.device))

    return answer


def _adapted(experiment: Experiment, checkpoint: Checkpoint, batch: TaskBatch) -> Answer:
    def work(size: int) -> Evaluation:
        return evaluate(
            experiment.learner,
            on_device(experiment, checkpoint.params) or {},
            batch.slice,
            evaluation_inner(experiment.config),
            tasks=batch.tasks,
            rates=on_device(experiment, checkpoint.rates),
            batch_size=size,
        )

    result, _ = fitted(work, batch.tasks, True, VALIDATION_ADVICE)
    return result.accuracies.double().tolist(), []


def _cells(experiment: Experiment, checkpoint: Checkpoint, batch: TaskBatch) -> Answer:
    """Protocol B: adapt the supernet to a task, keep its cell with the weights it inherits, adapt that again."""

    def work(size: int) -> list[tuple[list[float], list[str]]]:
        return [one(batch.slice(i, min(i + size, batch.tasks))) for i in range(0, batch.tasks, size)]

    def one(part: TaskBatch) -> Answer:
        adapted, _ = adapt_batch(experiment, checkpoint, part)
        own = genotypes_of(adapted, experiment.network)
        return with_cells(experiment, checkpoint, adapted, part, own).double().tolist(), [str(cell) for cell in own]

    found, _ = fitted(work, batch.tasks, True, VALIDATION_ADVICE)
    return [value for values, _ in found for value in values], [cell for _, cells in found for cell in cells]


def _pixels(batch: TaskBatch) -> Answer:
    with torch.no_grad():
        return nearest_class_mean(batch).double().tolist(), []
