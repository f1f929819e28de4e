"""Hyper-parameters by cross-validation over training tasks: what is left out never has a say in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from metadarts.core.progress import Watch, tell, within
from metadarts.core.rng import Key
from metadarts.stats import Values

from .learner import Learned, Pool, Recipe, TrainingSet, from_scratch, meta_train, ranked
from .tables import Bench

Quality = Callable[[Bench, int, Values, np.ndarray], float]
"""(bench, task, scores [N], known rows [K]) -> how good the scores are by validation values; more is better."""


@dataclass(frozen=True)
class Selection:
    """What cross-validation says for one left-out group.

    Args:
        qualities: mean quality on the other groups, each left out as well, by the candidate's number.
        best: number of the candidate with the highest.
    """

    qualities: tuple[float, ...]
    best: int


def base_groups(bench: Bench) -> list[str]:
    """The groups that hold no other group whole."""
    sets = {name: set(tasks) for name, tasks in bench.groups.items()}
    return [name for name, tasks in sets.items() if not any(other < tasks for other in sets.values())]


def inner_folds(bench: Bench) -> list[tuple[str, str]]:
    """(left out, validation) groups that share no task, each pair once: a network without both serves both ways."""
    base = base_groups(bench)
    wide = [name for name in bench.groups if name not in base]
    pairs = [*combinations(base, 2), *((name, other) for name in wide for other in base)]
    return [(a, b) for a, b in pairs if not set(bench.groups[a]) & set(bench.groups[b])]


def remaining(bench: Bench, *left_out: str) -> tuple[int, ...]:
    """Numbers of the tasks of none of these groups."""
    gone = {task for name in left_out for task in bench.groups[name]}
    return tuple(task for task in range(len(bench.tasks)) if task not in gone)


def select_recipes(
    bench: Bench, pool: Pool, recipes: Sequence[Recipe], quality: Quality, key: Key, draws: int, progress: Watch
) -> dict[str, Selection]:
    """For every group the recipe that does best on the other groups, trained without either.

    Args:
        draws: how many sets of known architectures are drawn per validation task.
    """
    folds = [fold for fold in inner_folds(bench) if remaining(bench, *fold)]
    training_sets = [TrainingSet(remaining(bench, *fold), key.child("network", *fold)) for fold in folds]
    tables = []
    for number, recipe in enumerate(recipes):
        whole, words = 1 / len(recipes), f"{bench.name}: cross-validation, recipe {number + 1} of {len(recipes)}"
        told = within(progress, number * whole, whole, words)
        learned = meta_train(pool, training_sets, recipe, within(told, 0.0, 0.5))

        def scored(task: int, fold: int, shots: int, learned: Learned = learned) -> list[float]:
            rows = _rows(bench, key, task, shots, draws)
            values = torch.from_numpy(bench.valid[task][rows])
            found = ranked(pool, learned, [fold] * draws, torch.from_numpy(rows), values)
            return [quality(bench, task, scores, row) for scores, row in zip(found, rows, strict=True)]

        tables.append(_by_group(bench, folds, recipe.shots, scored, within(told, 0.5, 0.5)))
    return _best(bench, tables)


def select_steps(
    bench: Bench, pool: Pool, steps: Sequence[int], recipe: Recipe, quality: Quality, key: Key, draws: int
) -> dict[str, Selection]:
    """For every group the number of steps from scratch that does best on the other groups' tasks."""
    shots = tuple(shot for shot in recipe.shots if shot)
    known: dict[tuple[int, int, int], list[float]] = {}
    for count in steps:
        for task in range(len(bench.tasks)):
            for shot in shots:
                rows = _rows(bench, key, task, shot, draws)
                keys = [key.child("scratch", task, shot, draw) for draw in range(draws)]
                values = torch.from_numpy(bench.valid[task][rows])
                found = from_scratch(pool, keys, torch.from_numpy(rows), values, count, recipe.width)
                known[count, task, shot] = [
                    quality(bench, task, scores, row) for scores, row in zip(found, rows, strict=True)
                ]
    folds = inner_folds(bench)
    tables = [
        _by_group(bench, folds, shots, lambda task, fold, shot, count=count: known[count, task, shot])  # type: ignore[misc]
        for count in steps
    ]
    return _best(bench, tables)


def _rows(bench: Bench, key: Key, task: int, shots: int, draws: int) -> np.ndarray:
    """[draws, K] known architectures; those of another seed than any that is reported."""
    drawn = [key.child("rows", bench.tasks[task], draw).choose(bench.size, shots) for draw in range(draws)]
    return np.stack(drawn).astype(np.int64)


def _by_group(
    bench: Bench,
    folds: Sequence[tuple[str, str]],
    shots: Sequence[int],
    scored: Callable[[int, int, int], list[float]],
    progress: Watch | None = None,
) -> Mapping[str, float]:
    """By left-out group the mean quality on the groups that validate it."""
    found: dict[str, list[float]] = {name: [] for name in bench.groups}
    wide = set(bench.groups) - set(base_groups(bench))
    for number, pair in enumerate(folds):
        for left_out, validation in (pair, pair[::-1]):
            if validation in wide:  # it is made of groups that validate on their own
                continue
            tasks = bench.groups[validation]
            values = [value for task in tasks for shot in shots for value in scored(task, number, shot)]
            found[left_out].append(float(np.mean(values)))
        tell(progress, number + 1, len(folds))
    return {name: float(np.mean(values)) if values else 0.0 for name, values in found.items()}


def _best(bench: Bench, tables: Sequence[Mapping[str, float]]) -> dict[str, Selection]:
    chosen = {}
    for name in bench.groups:
        qualities = tuple(table[name] for table in tables)
        chosen[name] = Selection(qualities, int(np.argmax(qualities)))
    return chosen
