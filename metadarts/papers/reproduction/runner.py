"""A table from end to end: freeze the episodes, train, evaluate. Completed work is not repeated."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from metadarts.core.errors import RunError
from metadarts.core.progress import Progress, Watch
from metadarts.core.rng import Key
from metadarts.core.types import alphas_of
from metadarts.derive import derive_genotype
from metadarts.papers.rows import HEADLINE, META_CELL, RANDOM_CELL, TASK_CELL
from metadarts.spaces import Genotype, darts, random_genotype
from metadarts.training import RunFolder, open_run
from metadarts.training.search import SearchProgress, SearchStopped

from .job import Finding, Findings, Job, NotYet, Stopped
from .measuring import measure
from .papers import AUTO_MAML
from .place import PLAN, frozen_episodes, locked, require_own
from .plans import RowPlan, rows_of
from .recipes import AUTO_MAML_CELLS
from .results_cache import Measured, Shares, load_measured, save_measured
from .trainings import train

NODES = 4
RowKey = tuple[int, int, str]
"""(seed, shots, row's name)."""
MOST_CELLS, LEAST_SHARE = 3, 0.05
"""Of the tasks' own cells, how many are meta-trained at most, and of how many tasks a second one must be the cell."""


def carry_out(job: Job) -> Findings:
    """Complete ``job``.

    Raises:
        Stopped: on request.
        RunError: when the folder holds something else, is in use, or cannot be written; or when what is there so far is
            nothing.
        DataError: when the frozen episodes were changed.
    """
    if job.so_far:
        return _so_far(job)
    require_own(job)
    with locked(job.out):
        return _Work(job).carry_out()


def _so_far(job: Job) -> Findings:
    if not (job.out / PLAN).is_file():
        raise RunError(f"{job.out} holds no table that was begun; leave out --so-far to begin one")
    found = _Work(job).carry_out()
    if not found.found:
        raise RunError(f"{job.out}: nothing is measured yet; wait, or go on without --so-far")
    return found


def most_frequent(genotypes: tuple[str, ...]) -> list[tuple[str, int]]:
    """Distinct genotypes with their counts, most frequent first; of equally frequent ones the first met."""
    return Counter(genotypes).most_common()


class _Work:
    """One process's share of a table."""

    def __init__(self, job: Job) -> None:
        self.job, self.spec = job, job.spec
        self.trainings = {
            (shots, training.name): training
            for shots in job.shots
            for training in job.spec.trainings(job.budget, shots)
        }
        self.episodes = frozen_episodes(job, set(job.shots))

    def carry_out(self) -> Findings:
        found: dict[RowKey, Finding] = {}
        missing: list[RowKey] = []
        wanted = self._wanted()
        for key in sorted(wanted, key=lambda key: (key[0], wanted[key][0])):
            seed, shots, _ = key
            row = wanted[key][1]
            try:
                found[key] = self._finding(row, shots, seed)
            except NotYet:
                missing.append(key)
            except SearchStopped as stopped:
                raise Stopped from stopped
        in_order = tuple(found[key] for key in wanted if key in found)
        named = tuple(f"{wanted[key][1].method} ({key[1]}-shot, seed {key[0]})" for key in missing)
        return Findings(self.episodes, in_order, named)

    def _wanted(self) -> dict[RowKey, tuple[int, RowPlan]]:
        """What the table has, in its order, with the number of each row in its setting: a row is measured in all
        settings before the next, so that what a table is made for is there first.
        """
        return {
            (seed, shots, row.name): (number, row)
            for seed in self.job.seeds
            for shots in self.job.shots
            for number, row in enumerate(rows_of(self.spec, self.job.budget, shots))
            if (row.training or seed == self.job.seeds[0])  # nothing was trained: another seed would be the same
            and (not self.job.rows or row.name in self.job.rows)
        }

    def _finding(self, row: RowPlan, shots: int, seed: int) -> Finding:
        if not row.training:
            return Finding(row, shots, seed, self._measured(row, shots, seed, None))
        steps = self.trainings[shots, row.training].steps
        if row.name == TASK_CELL:
            return self._own_cells(row, shots, seed)
        if not self.trainings[shots, row.training].cell:
            run = self._run(row.training, shots, seed)
            measured = self._measured(row, shots, seed, run)
            cells = [(Genotype.parse(cell), count) for cell, count in most_frequent(measured.genotypes)]
            return Finding(row, shots, seed, measured, steps, (run,), tuple(cells))
        behind = (self._run(HEADLINE, shots, seed),) if row.name == META_CELL else ()
        cell = self._cell(row.name, seed, behind)
        run = self._run(row.training, shots, seed, cell)
        measured = self._measured(row, shots, seed, run)
        return Finding(row, shots, seed, measured, steps, (run, *behind), ((cell, len(measured.accuracies)),))

    def _own_cells(self, row: RowPlan, shots: int, seed: int) -> Finding:
        """Protocol C: every task under the network of its own cell, where that is one of the most frequent, which are
        meta-trained; else under that of the most frequent one. A cell is chosen by support sets alone.
        """
        headline = self._run(HEADLINE, shots, seed)
        derived = next(row for row in rows_of(self.spec, self.job.budget, shots) if row.mode == "cells")
        own = self._measured(derived, shots, seed, headline).genotypes
        counts = most_frequent(own)
        chosen = [cell for cell, count in counts[:MOST_CELLS] if count >= LEAST_SHARE * len(own)] or [counts[0][0]]
        runs = {cell: self._run(row.training, shots, seed, Genotype.parse(cell)) for cell in chosen}
        found = {cell: self._measured(row, shots, seed, run) for cell, run in runs.items()}
        under = [cell if cell in found else chosen[0] for cell in own]
        accuracies = np.array([found[cell].accuracies[task] for task, cell in enumerate(under)])
        first = found[chosen[0]]
        measured = Measured(accuracies, first.steps, first.bn, sum(each.seconds for each in found.values()))
        covered = sum(cell in found for cell in own)
        covers = (
            f"{covered} of {len(own)} tasks have one of the {len(chosen)} trained cells; {len(counts)} distinct cells"
        )
        cells = tuple((Genotype.parse(cell), under.count(cell)) for cell in chosen)
        steps = self.trainings[shots, row.training].steps
        return Finding(row, shots, seed, measured, steps, (*runs.values(), headline), cells, covers)

    def _cell(self, name: str, seed: int, behind: tuple[RunFolder, ...]) -> Genotype:
        if name in AUTO_MAML_CELLS:
            return AUTO_MAML[AUTO_MAML_CELLS[name]].canonical()
        if name == RANDOM_CELL:
            return random_genotype(darts(NODES), Key.from_seed(seed).child("reproduce", "random cell")).canonical()
        config, alphas = behind[0].config(), alphas_of(behind[0].load("best").params)
        return derive_genotype(alphas, config.search_space(), config.build_relaxation()).canonical()

    def _run(self, name: str, shots: int, seed: int, cell: Genotype | None = None) -> RunFolder:
        """The finished run of a training, for tasks of ``shots``. A cell that two rows share is trained once."""
        training = self.trainings[shots, name]
        trained_at = shots if training.own_setting else self.spec.trained_at(self.job.budget, shots)
        extra: dict[str, Any] = {"tasks.file": self.job.place}
        label = name
        if cell is not None:
            extra["model.genotype"] = str(cell)
            label = f"cell-{hashlib.sha256(str(cell).encode()).hexdigest()[:10]}"
        config = training.config(self.spec.sources[self.job.split], trained_at, seed, extra)
        path = self.job.out / "runs" / f"{label}-{trained_at}shot-seed{seed}"
        if self.job.so_far and not (path / "finished.json").is_file():
            raise NotYet
        title = f"train {training.title} ({training.steps} meta-updates, {trained_at}-shot, seed {seed})"

        def watch(now: SearchProgress) -> None:
            best = "" if now.best is None else f"  best val {now.best:.1%}"
            figures = f"step {now.step}  acc {now.accuracy:.1%}{best}"
            self.job.tell(title, Progress(now.fraction, 1.0, now.accuracy, figures))

        return train(path, config, self.job.source, self.job.device, watch, self.job.stop)

    def _measured(self, row: RowPlan, shots: int, seed: int, run: RunFolder | None) -> Measured:
        """What ``row`` comes to on ``run``, measured now where it was not yet."""
        episodes = self.episodes[shots]
        opened = None if run is None else open_run(run.path, device=self.job.device)
        experiment = None if opened is None else opened.experiment(self.job.source)
        checkpoint = None if opened is None else opened.checkpoint
        of = {
            "mode": row.mode,
            "bn": row.bn,
            "episodes": episodes.sha256,
            "checkpoint": "" if checkpoint is None else checkpoint.facts["sha256"],
            "steps": 0 if experiment is None else experiment.config.evaluate.steps,
        }
        path = self._path(row, shots, run)
        part, found = path.with_suffix(".part.jsonl"), load_measured(path, of, episodes.tasks)
        if self.job.so_far:
            if found is None:
                raise NotYet
            return found
        if found is None:
            shares = Shares(part, of)
            found = measure(row, experiment, checkpoint, episodes, shares, self._watch(row, shots, seed))
            save_measured(path, found, of)
        if part.exists():  # also where a process died between the two
            part.unlink()
        return found

    def _path(self, row: RowPlan, shots: int, run: RunFolder | None) -> Path:
        """By what is measured on what: two rows of one run and one mode are one file."""
        how = "-".join(part for part in (row.mode, row.bn) if part)
        return self.job.out / "measured" / f"{shots}shot" / f"{run.path.name if run else 'pixels'}-{how}.json"

    def _watch(self, row: RowPlan, shots: int, seed: int) -> Watch:
        def watch(now: Progress) -> None:
            if self.job.stop():
                raise Stopped
            self.job.tell(f"measure {row.method} ({shots}-shot, seed {seed})", now)

        return watch
