"""One batch of tasks through everything that is measured, so that memory does not grow with the number of tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch, alphas_of
from metadarts.papers.cells import adapt_batch, as_values, finite_tasks, genotypes_of, with_choices, with_fixed_alphas
from metadarts.spaces import Genotype, random_genotype
from metadarts.stats import Values
from metadarts.training import Experiment
from metadarts.training.checkpoints import Checkpoint
from metadarts.training.evaluation import on_device

from .distances import shares_of

SOFT = {
    "own": "weights and alphas adapt together, as ever",
    "meta": "alphas held at the meta-learned ones",
    "own_fixed": "the own adapted alphas, from the start on",
    "other_fixed": "another task's, from the start on",
    "uniform": "all candidates alike",
}
DISCRETE = {
    "own": "the task's own cell",
    "other": "another task's cell (swapped)",
    "meta": "the cell of the meta-learned alphas",
    "random": "a random cell for each task",
}


@dataclass(frozen=True)
class TaskResults:
    """What N tasks gave, one row per task.

    Args:
        first: [N, R, P] shares after adaptation to the own support set.
        second: [N, R, P] shares after adaptation to other images of the same classes.
        genotypes: N cells of the first adaptation.
        again: N cells of the second.
        finite: [N] bool, whether both adaptations stayed in the finite numbers.
        partners: [N] the number of the other task whose architecture each was given.
        soft: query accuracies [N] by the names of `SOFT`.
        discrete: query accuracies [N] by the names of `DISCRETE`.
    """

    first: Tensor
    second: Tensor
    genotypes: list[Genotype]
    again: list[Genotype]
    finite: NDArray[np.bool_]
    partners: list[int]
    soft: dict[str, Values]
    discrete: dict[str, Values]


def spans(tasks: int, size: int) -> list[tuple[int, int]]:
    """(first, last) of passes of about ``size`` tasks that cover all ``tasks``; none has fewer than two.

    Raises:
        ConfigError: when there are fewer than two tasks.
    """
    if tasks < 2:
        raise ConfigError(f"tasks: expected at least 2, whose architectures can be swapped, got {tasks}; measure more")
    passes = min(-(-tasks // max(size, 2)), tasks // 2)
    ends = [tasks * index // passes for index in range(passes + 1)]
    return list(pairwise(ends))


def partners_of(finite: Sequence[bool]) -> list[int]:
    """For each task of a pass the next one in cyclic order that stayed finite; the next at all where none other did."""
    count = len(finite)
    found = []
    for task in range(count):
        others = [(task + ahead) % count for ahead in range(1, count)]
        found.append(next((other for other in others if finite[other]), others[0]))
    return found


def second_support(batch: TaskBatch, shots: int) -> TaskBatch:
    """The same tasks with another support set: the first ``shots`` query images of every class.

    The queries stay, so that accuracies on them would no longer be honest: this batch is only to adapt to. Where the
    source has varieties (drawers, say), queries are of other ones than the support, and so is this support.

    Args:
        batch: tasks with Q query images; no query image is among the support images.
        shots: images per class.

    Raises:
        ConfigError: when a class has fewer queries than ``shots``.
    """
    labels = batch.query_labels.masked_fill(~batch.query_mask, -1)
    of_class = labels.unsqueeze(1) == torch.arange(batch.ways, device=labels.device).view(1, -1, 1)
    fewest = int(of_class.sum(-1).min())
    if fewest < shots:
        raise ConfigError(
            f"evaluate.queries: expected at least as many queries per class as shots ({shots}), as they make a second "
            f"support set, got {fewest}; raise evaluate.queries or lower tasks.shots"
        )
    # A stable sort brings each class's queries to the front in the order they have: [T, ways, shots] -> [T, S].
    rows = (~of_class).int().argsort(dim=-1, stable=True)[..., :shots].flatten(1)
    tasks = torch.arange(batch.tasks, device=rows.device).unsqueeze(1)
    return replace(
        batch,
        support_images=batch.query_images[tasks, rows],
        support_labels=batch.query_labels[tasks, rows],
        support_mask=batch.query_mask[tasks, rows],
    )


def measure(
    experiment: Experiment, checkpoint: Checkpoint, batch: TaskBatch, meta: Genotype, key: Key, first: int
) -> TaskResults:
    """Everything about the tasks of one batch.

    Args:
        batch: at least two tasks.
        meta: the cell of the meta-learned alphas.
        key: of the random cells; that of task i depends on ``key.child(i)`` alone.
        first: the number of the batch's first task.
    """
    network = experiment.network
    adapted, own = adapt_batch(experiment, checkpoint, batch)
    again, _ = adapt_batch(experiment, checkpoint, second_support(batch, experiment.config.tasks.shots))
    once = finite_tasks(adapted)
    partners = partners_of(once.tolist())
    genotypes = genotypes_of(adapted, network)
    cells = {
        "own": genotypes,
        "other": [genotypes[partner] for partner in partners],
        "meta": [meta] * batch.tasks,
        "random": [random_genotype(network.space, key.child(first + task)).canonical() for task in range(batch.tasks)],
    }
    return TaskResults(
        shares_of(alphas_of(adapted), network.relaxation),
        shares_of(alphas_of(again), network.relaxation),
        genotypes,
        genotypes_of(again, network),
        np.asarray(once & finite_tasks(again)),
        [first + partner for partner in partners],
        _soft(experiment, checkpoint, batch, alphas_of(adapted), own, partners),
        _discrete(experiment, checkpoint, batch, adapted, cells),
    )


def _soft(
    experiment: Experiment, checkpoint: Checkpoint, batch: TaskBatch, alphas: Params, own: Tensor, partners: list[int]
) -> dict[str, Values]:
    meta = alphas_of(on_device(experiment, checkpoint.params) or {})
    replaced = {
        "meta": meta,
        "own_fixed": alphas,
        "other_fixed": {kind: table[partners] for kind, table in alphas.items()},
        "uniform": {kind: torch.zeros_like(table) for kind, table in meta.items()},
    }
    found = {name: with_fixed_alphas(experiment, checkpoint, batch, tables) for name, tables in replaced.items()}
    return {name: as_values(found.get(name, own)) for name in SOFT}


def _discrete(
    experiment: Experiment,
    checkpoint: Checkpoint,
    batch: TaskBatch,
    adapted: Params,
    cells: dict[str, list[Genotype]],
) -> dict[str, Values]:
    """All roles in one go: a cell that a task has in two of them is learnt once."""
    choices = [(task, genotype) for name in DISCRETE for task, genotype in enumerate(cells[name])]
    found = with_choices(experiment, checkpoint, adapted, batch, choices).view(len(DISCRETE), batch.tasks)
    return {name: as_values(row) for name, row in zip(DISCRETE, found, strict=True)}


def joined(parts: Sequence[TaskResults]) -> TaskResults:
    """The tasks of all parts, in order."""

    def arrays(read: Callable[[TaskResults], dict[str, Values]]) -> dict[str, Values]:
        return {name: np.concatenate([read(part)[name] for part in parts]) for name in read(parts[0])}

    return TaskResults(
        torch.cat([part.first for part in parts]),
        torch.cat([part.second for part in parts]),
        _flat(part.genotypes for part in parts),
        _flat(part.again for part in parts),
        np.concatenate([part.finite for part in parts]),
        [partner for part in parts for partner in part.partners],
        arrays(lambda part: part.soft),
        arrays(lambda part: part.discrete),
    )


def _flat(lists: Iterable[list[Genotype]]) -> list[Genotype]:
    return [genotype for own in lists for genotype in own]
