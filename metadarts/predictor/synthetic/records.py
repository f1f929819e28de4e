"""What is learnt on teachers' tasks, as records: one for every operation that was trained alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from metadarts.predictor.task_record import TRAINED, Origin, TaskRecord
from metadarts.spaces import Genotype

from .family import Family, SyntheticTasks
from .students import Schedule, Trained

CELL = "normal"
CHOSEN = 4.0
"""The alpha of the operation that was trained; the others' are 0."""


def records_of(
    tasks: SyntheticTasks, trained: Trained, seed: int, schedule: Schedule | None = None
) -> list[TaskRecord]:
    """Tasks by operations, T * P of them, in this order. The truth is not among what they say.

    Their alphas are `CHOSEN` at the operation trained and 0 elsewhere: a trained architecture has none of its own.

    Args:
        tasks: T tasks.
        trained: what `train_each` gave on them.
        seed: of the first weights.
        schedule: how they were trained.
    """
    return list(_records_of(tasks, trained, seed, schedule or Schedule()))


def _records_of(tasks: SyntheticTasks, trained: Trained, seed: int, schedule: Schedule) -> Iterator[TaskRecord]:
    settings = {
        "starts": schedule.starts,
        "first": schedule.first,
        "steps": schedule.steps,
        "rate": schedule.rate,
        "rule": "adam",
        "bn": "transductive",
    }
    for task, origin in enumerate(tasks.origins):
        for column in range(len(tasks.family.operations)):
            worth = float(trained.before[task, column]), float(trained.accuracies[task, column])
            yield _record_of(origin, tasks.family, column, worth, seed, settings)


def taught(tasks: SyntheticTasks) -> list[TaskRecord]:
    """One for each of T tasks: the teacher itself, whose labels are right by construction. For training only."""
    chosen = zip(tasks.origins, tasks.truth.tolist(), strict=True)
    settings = {"trained": "none: the teacher's own operation and weights"}
    return [_record_of(origin, tasks.family, op, (1.0, 1.0), 0, settings) for origin, op in chosen]


def _record_of(
    origin: Origin, family: Family, column: int, worth: tuple[float, float], seed: int, settings: dict[str, Any]
) -> TaskRecord:
    space = family.space
    alphas = np.zeros(space.alpha_shape, dtype=np.float32)
    alphas[0, column] = CHOSEN
    genotype = Genotype(((family.operations[column], 0),), space.concat, (), (), space.edges_per_node)
    return TaskRecord(origin, space, {CELL: alphas}, genotype, *worth, TRAINED, seed, "none", settings)


def best_of(records: Iterable[TaskRecord]) -> dict[str, str]:
    """Task (the hash of its origin) -> the operation of its highest accuracy after training; the first of equals."""
    found: dict[str, TaskRecord] = {}
    for record in records:
        name = record.origin.sha256
        if name not in found or record.after > found[name].after:
            found[name] = record
    return {name: record.genotype.pairs(CELL)[0][0] for name, record in found.items()}
