"""One row: a checkpoint, fixed before this file is reached, on the table's frozen test episodes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metadarts.core.described import number, read_json, whole
from metadarts.core.errors import RunError
from metadarts.core.files import write_atomically
from metadarts.experiments.build import Experiment
from metadarts.experiments.checkpoints import Checkpoint
from metadarts.experiments.evaluation import evaluation_inner, on_device
from metadarts.meta import evaluate
from metadarts.spaces import Genotype
from metadarts.studies.cells import adapt_batch, genotypes_of, with_cells
from metadarts.tasks import nearest_class_mean
from metadarts.tasks.frozen import FrozenEpisodes

from .tables import RowPlan

Tell = Callable[[int, float], None]
"""Told (tasks done, mean accuracy so far); may raise, to stop."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What one row of one seed came to.

    Args:
        accuracies: [T] query accuracies, 0 to 1, in the order of the episodes.
        steps: inner steps taken.
        bn: batch-norm policy; empty where there is no network.
        seconds: of wall time.
        genotypes: [T] the tasks' own cells, where cells were derived.
    """

    accuracies: NDArray[np.float64]
    steps: int
    bn: str
    seconds: float
    genotypes: tuple[str, ...] = ()


def measure(
    row: RowPlan, experiment: Experiment | None, checkpoint: Checkpoint | None, episodes: FrozenEpisodes, tell: Tell
) -> Measured:
    """Measure ``row`` on all episodes.

    Args:
        experiment, checkpoint: what it is measured on; None for a row of pixels.
    """
    begun = time.monotonic()
    genotypes: tuple[str, ...] = ()
    if experiment is None or checkpoint is None:
        accuracies, steps, bn = _pixels(episodes, tell), 0, ""
    else:
        if row.bn:
            experiment = replace(experiment, learner=replace(experiment.learner, bn=row.bn))
        if row.mode == "unadapted":
            config = experiment.config
            experiment = replace(experiment, config=replace(config, evaluate=replace(config.evaluate, steps=0)))
        bn, steps = experiment.learner.bn, experiment.config.evaluate.steps
        if row.mode == "cells":
            accuracies, genotypes = _cells(experiment, checkpoint, episodes, tell)
        else:
            accuracies = _adapted(experiment, checkpoint, episodes, tell)
    seconds = round(time.monotonic() - begun, 1)
    return Measured(np.asarray(accuracies, dtype=np.float64), steps, bn, seconds, genotypes)


def _adapted(experiment: Experiment, checkpoint: Checkpoint, episodes: FrozenEpisodes, tell: Tell) -> list[float]:
    result = evaluate(
        experiment.learner,
        on_device(experiment, checkpoint.params) or {},
        lambda first, last: episodes.batch(first, last).to(experiment.device),
        evaluation_inner(experiment.config),
        tasks=episodes.tasks,
        rates=on_device(experiment, checkpoint.rates),
        batch_size=experiment.config.evaluate.batch,
        progress=tell,
    )
    found: list[float] = result.accuracies.double().tolist()
    return found


def _cells(
    experiment: Experiment, checkpoint: Checkpoint, episodes: FrozenEpisodes, tell: Tell
) -> tuple[list[float], tuple[str, ...]]:
    """Protocol B: adapt the supernet to a task, keep its cell with the weights it inherits, adapt that again."""
    accuracies: list[float] = []
    genotypes: list[Genotype] = []
    for first, last in _slices(episodes.tasks, experiment.config.evaluate.batch):
        batch = episodes.batch(first, last).to(experiment.device)
        adapted, _ = adapt_batch(experiment, checkpoint, batch)
        own = genotypes_of(adapted, experiment.network.space)
        accuracies += with_cells(experiment, checkpoint, adapted, batch, own).double().tolist()
        genotypes += own
        tell(last, float(np.mean(accuracies)))
    return accuracies, tuple(map(str, genotypes))


def _pixels(episodes: FrozenEpisodes, tell: Tell) -> list[float]:
    accuracies: list[float] = []
    for first, last in _slices(episodes.tasks, 10):
        with torch.no_grad():
            accuracies += nearest_class_mean(episodes.batch(first, last)).double().tolist()
        tell(last, float(np.mean(accuracies)))
    return accuracies


def _slices(tasks: int, size: int) -> list[tuple[int, int]]:
    return [(first, min(first + size, tasks)) for first in range(0, tasks, size)]


def save_measured(path: Path, measured: Measured, of: dict[str, Any]) -> None:
    """Write what `load_measured` reads. Raises RunError.

    Args:
        of: what was measured on what; a file of something else is refused later.
    """
    body = {
        "of": of,
        "accuracies": measured.accuracies.tolist(),
        "steps": measured.steps,
        "bn": measured.bn,
        "seconds": measured.seconds,
        "genotypes": list(measured.genotypes),
    }
    write_atomically(path, (json.dumps(body | {"sha256": _digest(body)}) + "\n").encode())


def load_measured(path: Path, of: dict[str, Any], tasks: int) -> Measured | None:
    """What was measured already; None where it was not. Raises RunError when the file is of something else."""
    if not path.exists():
        return None
    try:
        told = read_json(path.read_text(encoding="utf-8"))
        vouched, known = told.pop("sha256"), dict(told["of"])
        accuracies = np.array([number(value) for value in told["accuracies"]])
        measured = Measured(
            accuracies, whole(told["steps"], 0, 10_000), str(told["bn"]), number(told["seconds"]),
            tuple(map(str, told["genotypes"])),
        )  # fmt: skip
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{path} cannot be read ({error}); remove it, and the row is measured again") from error
    if _digest(told) != vouched or len(accuracies) != tasks or not ((0 <= accuracies) & (accuracies <= 1)).all():
        raise RunError(f"{path} was changed since it was written; remove it, and the row is measured again")
    if odd := [name for name in of | known if known.get(name) != of.get(name)]:
        raise RunError(
            f"{path} was measured on something else: its {odd[0]} is {str(known.get(odd[0]))[:60]!r}, expected "
            f"{str(of.get(odd[0]))[:60]!r}; give another --out, or remove it"
        )
    return measured


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
