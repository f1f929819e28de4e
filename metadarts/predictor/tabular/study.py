"""Tabular meta-learning measured: leave out one task or family, know K architectures of it, rank them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metadarts.core.errors import ConfigError
from metadarts.core.machine import describe
from metadarts.core.progress import Watch, tell, within
from metadarts.core.rng import Key
from metadarts.stats import Values

from .baselines import Baseline, Known, learnt_prior
from .learner import Learned, Pool, Recipe, TrainingSet, from_scratch, meta_train, ranked
from .methods import ALONE, BESIDE, CHOICE, CHOSEN, ORDER, RANDOM, SCRATCH
from .report import Report, Result
from .selection import Selection, remaining, select_recipes, select_steps
from .tables import Bench, ranks, read_table, spearman

"""(share that is done, what is going on), as a bar shows it with its remaining time."""
PACKAGES = ("torch", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Settings:
    """Settings of the study.

    Args:
        seeds: each draws its known architectures and starts its networks.
        shots: numbers K of known architectures; None for 0, 5, 10, 20 where one is chosen, 10 where all are ordered.
        losses: that cross-validation chooses from; None for "pairs" and "top", or "pairs" and "squared" for an order.
        scratch_steps: numbers of steps that cross-validation chooses from for the network on the K alone.
        recipe: of the meta-model, but for what cross-validation chooses.
        draws: sets of known architectures per task in cross-validation.
        trees: of every model of trees on known architectures; twice as many learn the other tasks.
    """

    seeds: int = 20
    shots: tuple[int, ...] | None = None
    losses: tuple[str, ...] | None = None
    scratch_steps: tuple[int, ...] = (10, 30, 100, 300)
    recipe: Recipe = field(default_factory=Recipe)
    draws: int = 3
    trees: int = 100

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.draws < 1:
            raise ConfigError(f"expected at least one seed and one draw, got {self.seeds} and {self.draws}")


def evaluate_table(
    path: Path, seeds: int = 20, settings: Settings | None = None, progress: Watch | None = None
) -> Report:
    """Measure the meta-model and its baselines on TransNAS-Bench-101 or on the latencies of NAS-Bench-201.

    Args:
        path: ``transnasbench101.npz`` or ``nasbench201_table.npz``; its arrays identify it.
        seeds: number of repetitions; replaces the number in ``settings``.
        settings: None for those of the published results.
        progress: reports the completed share and the current work.

    Raises:
        DataError: when the table is neither of the two, or broken.
        ConfigError: on settings out of range, or without scikit-learn.
    """
    chosen = replace(settings or Settings(), seeds=seeds)
    facts = _facts(path, chosen)  # before it begins: the commit is that of the code which runs
    benches = read_table(path)
    results = []
    for number, bench in enumerate(benches):
        told = within(progress, number / len(benches), 1 / len(benches))
        results.append(measure(bench, chosen, told))
    kind = "transnas" if benches[0].by_rank else "latency"
    return Report(kind, facts, tuple(results))


def measure(bench: Bench, settings: Settings, progress: Watch | None = None) -> Result:
    """All methods on all left-out tasks of ``bench``."""
    study = _Study(bench, settings)
    found = study.run(progress)
    return Result(
        bench.name,
        bench.size,
        tuple(f"{bench.tasks[task]}" for _, task in study.slots),
        tuple(group for group, _ in study.slots),
        tuple(bench.units[task] for _, task in study.slots),
        study.shots,
        study.methods,
        found,
        study.recipes(),
        bench.remarks,
    )


def percentile(values: Values, row: int) -> float:
    """How many percent of the other architectures are worse than ``row``, equal ones counted half; 100 is the best."""
    return float(100 * ranks(values)[row] / max(len(values) - 1, 1))


def chosen_row(scores: Values, key: Key) -> int:
    """The row of the highest score; of equal ones any, by ``key``."""
    best = np.flatnonzero(scores == scores.max())
    return int(best[key.choose(len(best), 1)[0]])


def choice_quality(bench: Bench, task: int, scores: Values, rows: NDArray[np.int64]) -> float:
    """Percentile by validation values of the best by ``scores``."""
    return percentile(bench.valid[task], int(np.argmax(scores)))


def order_quality(bench: Bench, task: int, scores: Values, rows: NDArray[np.int64]) -> float:
    """Rank correlation with the validation values of all architectures but the known ones."""
    rest = np.setdiff1d(np.arange(bench.size), rows)
    return spearman(scores[rest], bench.valid[task][rest])


class _Study:
    """One bench under measurement."""

    def __init__(self, bench: Bench, settings: Settings) -> None:
        self.bench, self.settings = bench, settings
        self.choosing = bench.by_rank
        self.shots = settings.shots or ((0, 5, 10, 20) if self.choosing else (10,))
        if max(self.shots) >= bench.size:
            raise ConfigError(f"shots: expected fewer than the {bench.size} architectures of {bench.name}")
        self.pool = Pool.of(bench)
        self.baselines: Mapping[str, Baseline] = CHOICE if self.choosing else ORDER
        self.methods = (CHOSEN, ALONE, BESIDE, SCRATCH, *self.baselines)
        self.slots = [(group, task) for group, tasks in bench.groups.items() for task in tasks]
        self.key = Key.from_seed(0).child("tabular", bench.name)
        self.selections: dict[str, dict[str, Selection]] = {}
        names = ("chosen", "percentile", "regret", "percentile_next") if self.choosing else ("spearman",)
        shape = (len(self.methods), len(self.shots), len(self.slots), settings.seeds)
        self.found = {name: np.full(shape, np.nan) for name in names}

    def candidates(self, others: bool) -> list[Recipe]:
        losses = self.settings.losses or (("pairs", "top") if self.choosing else ("pairs", "squared"))
        base = replace(self.settings.recipe, others=others, shots=self.shots)
        return [replace(base, loss=loss, mixing=mixing) for loss in losses for mixing in (True, False)]

    def run(self, progress: Watch | None) -> dict[str, NDArray[np.float64]]:
        self._select(progress)
        share = 0.5 / len(self.bench.groups)
        for number, group in enumerate(self.bench.groups):
            words = f"{self.bench.name}: left out: {group}"
            self._measure_group(group, within(progress, 0.5 + share * number, share, words))
        return self.found

    def _select(self, progress: Watch | None) -> None:
        quality = choice_quality if self.choosing else order_quality
        key, draws = self.key.child("validation"), self.settings.draws
        for number, (name, others) in enumerate(((ALONE, False), (BESIDE, True))):
            told = within(progress, 0.25 * number, 0.25)
            recipes = self.candidates(others)
            self.selections[name] = select_recipes(self.bench, self.pool, recipes, quality, key, draws, told)
        shots = tuple(shot for shot in self.shots if shot)
        if shots:
            recipe, steps = self.candidates(False)[0], self.settings.scratch_steps
            self.selections[SCRATCH] = select_steps(self.bench, self.pool, steps, recipe, quality, key, draws)

    def preferred(self, group: str) -> str:
        """The meta-model that cross-validation prefers for ``group``."""
        return max((ALONE, BESIDE), key=lambda name: max(self.selections[name][group].qualities))

    def _measure_group(self, group: str, progress: Watch) -> None:
        bench, seeds = self.bench, range(self.settings.seeds)
        tasks = remaining(bench, group)
        networks: dict[str, Learned] = {}
        for number, (name, others) in enumerate(((ALONE, False), (BESIDE, True))):
            recipe = self.candidates(others)[self.selections[name][group].best]
            training_sets = [TrainingSet(tasks, Key.from_seed(seed).child(bench.name, group, name)) for seed in seeds]
            networks[name] = meta_train(self.pool, training_sets, recipe, within(progress, 0.3 * number, 0.3))
        others_scores = bench.scores()[list(tasks)]
        prior = learnt_prior(bench.encoding, others_scores, self.key.child("prior", group), 2 * self.settings.trees)
        slots = [slot for slot, (name, _) in enumerate(self.slots) if name == group]
        for number, slot in enumerate(slots):
            for place in range(len(self.shots)):
                self._measure_task(group, slot, place, networks, others_scores, prior)
                tell(progress, 0.6 + 0.4 * (number + (place + 1) / len(self.shots)) / len(slots), 1.0)

    def _measure_task(
        self, group: str, slot: int, place: int, networks: Mapping[str, Learned], others: Values, prior: Values
    ) -> None:
        bench, task, shots = self.bench, self.slots[slot][1], self.shots[place]
        drawn = np.stack([self._drawn(task, seed) for seed in range(self.settings.seeds)])
        rows = drawn[:, :shots]
        values = bench.valid[task][rows]
        keys = [Key.from_seed(seed).child(bench.name, task, shots) for seed in range(self.settings.seeds)]
        known = [
            Known(bench.encoding, others, row, value, prior, bench.facts, key, self.settings.trees)
            for row, value, key in zip(rows, values, keys, strict=True)
        ]
        scores = self._network_scores(group, networks, rows, values, keys)
        for name, baseline in self.baselines.items():
            scores[name] = np.stack([baseline(one) for one in known])
        for number, name in enumerate(self.methods):
            for seed, key in enumerate(keys):
                found = self._worth(name, task, scores[name][seed], drawn[seed], shots, key.child("ties", name))
                for measure, value in found.items():
                    self.found[measure][number, place, slot, seed] = value

    def _network_scores(
        self,
        group: str,
        networks: Mapping[str, Learned],
        rows: NDArray[np.int64],
        values: Values,
        keys: list[Key],
    ) -> dict[str, Values]:
        numbers, known, measured = range(len(keys)), torch.from_numpy(rows), torch.from_numpy(values)
        scores = {name: ranked(self.pool, learned, numbers, known, measured) for name, learned in networks.items()}
        scores[CHOSEN] = scores[self.preferred(group)]
        if rows.shape[1]:
            steps = self.settings.scratch_steps[self.selections[SCRATCH][group].best]
            starts = [key.child("scratch") for key in keys]
            scores[SCRATCH] = from_scratch(self.pool, starts, known, measured, steps, self.settings.recipe.width)
        else:
            scores[SCRATCH] = np.zeros((len(keys), self.bench.size))
        return scores

    def _drawn(self, task: int, seed: int) -> NDArray[np.int64]:
        """The architectures in the order in which they become known, and one more: K of them are the first K."""
        key = Key.from_seed(seed).child(self.bench.name, "rows", self.bench.tasks[task])
        return key.choose(self.bench.size, max(self.shots) + 1).astype(np.int64)

    def _worth(
        self, name: str, task: int, scores: Values, drawn: NDArray[np.int64], shots: int, key: Key
    ) -> dict[str, float]:
        rows, test = drawn[:shots], self.bench.test[task]
        if not self.choosing:
            return {"spearman": order_quality(self.bench, task, scores, rows)}
        suggested = chosen_row(scores, key)
        # One more evaluation: of what is suggested, or, by who suggests nothing, of one more at random.
        following = int(drawn[shots]) if name == RANDOM else suggested
        tried = np.unique([*rows, following])
        kept = int(tried[np.argmax(self.bench.valid[task][tried])])
        return {
            "chosen": float(suggested),
            "percentile": percentile(test, suggested),
            "regret": float(test.max() - test[suggested]),
            "percentile_next": percentile(test, kept),
        }

    def recipes(self) -> dict[str, Any]:
        """What cross-validation had to choose from, how each did, and what it chose, by group."""
        told: dict[str, Any] = {}
        for name, others in ((ALONE, False), (BESIDE, True)):
            told[name] = self._told(name, [asdict(recipe) for recipe in self.candidates(others)])
        if SCRATCH in self.selections:
            told[SCRATCH] = self._told(SCRATCH, [{"steps": steps} for steps in self.settings.scratch_steps])
        told[CHOSEN] = {"chosen": {group: self.preferred(group) for group in self.bench.groups}}
        return told

    def _told(self, name: str, candidates: list[dict[str, Any]]) -> dict[str, Any]:
        selections = self.selections[name]
        return {
            "candidates": candidates,
            "qualities": {group: list(selection.qualities) for group, selection in selections.items()},
            "chosen": {group: selection.best for group, selection in selections.items()},
        }


def _facts(path: Path, settings: Settings) -> dict[str, Any]:
    return {
        "table": path.name,
        "seeds": list(range(settings.seeds)),
        "settings": asdict(settings),
        "environment": describe("cpu", PACKAGES),
    }
