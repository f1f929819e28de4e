"""A table from end to end: freeze the episodes, train, measure, compare, write. What is done already is not done again.

OUT/plan.json                  which table this is, and the hashes of its episodes
OUT/episodes-SHOTSshot.jsonl   the frozen test episodes
OUT/runs/NAME-*                run folders of the trainings
OUT/measured/SETTING/*.json    accuracies by task, of one row and seed
OUT/table.json, table.md, table.png, table-comparisons.png   (table-so-far.* of an unfinished one)
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metadarts.core.described import read_json
from metadarts.core.errors import ConfigError, RunError
from metadarts.core.files import cannot_write, write_atomically
from metadarts.core.rng import Key
from metadarts.derive import derive_genotype
from metadarts.experiments import RunFolder
from metadarts.experiments.evaluation import alphas_of
from metadarts.experiments.search import Progress, SearchStopped
from metadarts.spaces import Genotype, darts, random_genotype
from metadarts.tasks import EpisodeSampler, Source
from metadarts.tasks.frozen import FrozenEpisodes, freeze, thaw

from .measuring import Measured, load_measured, measure, save_measured
from .papers import AUTO_MAML
from .recipes import AUTO_MAML_CELLS, HEADLINE, META_CELL, RANDOM_CELL, TASK_CELL
from .tables import QUERIES, WAYS, RowPlan, Spec, rows_of
from .trainings import train, trained

Tell = Callable[[str, float, str], None]
"""Told (what is being done, how far it is from 0 to 1, current figures)."""
NODES = 4


class Stopped(Exception):
    """The work was asked to stop and did; the same call goes on from there."""


@dataclass(frozen=True)
class Job:
    """One table to be had.

    Args:
        spec: which.
        budget: "smoke", "hour" or "full".
        split: of its splits.
        source: its data, open.
        place: where they lie, for the run folders' config.yaml; empty for their usual place.
        out: the folder.
        seeds: of the trainings.
        shots: settings to measure.
        device: "cpu" or "cuda".
        tell: told of progress.
        stop: polled; once it says True, `Stopped` is raised.
        so_far: train and measure nothing: what is there already, also while another process is at work.
    """

    spec: Spec
    budget: str
    split: str
    source: Source
    place: str
    out: Path
    seeds: tuple[int, ...]
    shots: tuple[int, ...]
    device: str
    tell: Tell
    stop: Callable[[], bool]
    so_far: bool = False


class _NotYet(Exception):
    """Not measured yet, and nothing is to be measured now."""


@dataclass(frozen=True, eq=False)
class Finding:
    """One row of one seed, and the run it was measured on; None for a row of pixels."""

    row: RowPlan
    shots: int
    seed: int
    measured: Measured
    run: RunFolder | None
    steps: int


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything a table is made of.

    Args:
        episodes: shots -> the frozen episodes.
        found: all rows of all seeds, in the order of the table.
        missing: what is not there yet, where only what is there was asked for.
    """

    episodes: dict[int, FrozenEpisodes]
    found: tuple[Finding, ...]
    missing: tuple[str, ...] = ()


def carry_out(job: Job) -> Findings:
    """Bring ``job`` to its end.

    Raises:
        Stopped: when asked to.
        RunError: when the folder holds another table, is in use, or cannot be written; or when what is there so far is
            nothing.
        DataError: when the frozen episodes were changed.
    """
    if job.so_far:
        return _so_far(job)
    with _locked(job.out):
        return _Work(job).carry_out()


def _so_far(job: Job) -> Findings:
    if not (job.out / "plan.json").is_file():
        raise RunError(f"{job.out} holds no table that was begun; leave out --so-far to begin one")
    found = _Work(job).carry_out()
    if not found.found:
        raise RunError(f"{job.out}: nothing is measured yet; wait, or go on without --so-far")
    return found


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(out / ".lock")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(f"{out}: another process is at work in it; wait for it, or stop it first") from error
    except OSError as error:
        raise cannot_write(out, error) from error
    try:
        yield
    finally:
        lock.release()


class _Work:
    """One process's share of a table."""

    def __init__(self, job: Job) -> None:
        self.job, self.spec = job, job.spec
        self.trainings = {training.name: training for training in job.spec.trainings(job.budget)}
        self.episodes = {shots: self._frozen(shots) for shots in sorted({*job.shots, *self._trained()})}
        self._require_same_plan()

    def carry_out(self) -> Findings:
        found: list[Finding] = []
        missing: list[str] = []
        for seed in self.job.seeds:
            for shots in self.job.shots:
                for row in rows_of(self.spec, self.job.budget, shots):
                    try:
                        found.append(self._finding(row, shots, seed))
                    except _NotYet:
                        missing.append(f"{row.method} ({shots}-shot, seed {seed})")
                    except SearchStopped as stopped:
                        raise Stopped from stopped
        return Findings({shots: self.episodes[shots] for shots in self.job.shots}, tuple(found), tuple(missing))

    def _trained(self) -> set[int]:
        return {self.spec.trained_at(self.job.budget, shots) for shots in self.job.shots}

    def _frozen(self, shots: int) -> FrozenEpisodes:
        sampler = EpisodeSampler(self.job.source, "test", WAYS, shots, QUERIES)
        path = self.job.out / f"episodes-{shots}shot.jsonl"
        if self.job.so_far:
            return thaw(path, sampler, self.spec.tasks(self.job.budget))
        return freeze(path, sampler, Key.from_seed(0).child("held out", "test"), self.spec.tasks(self.job.budget))

    def _require_same_plan(self) -> None:
        """Require that the folder is of this table, and remember what it is."""
        path, job = self.job.out / "plan.json", self.job
        plan: dict[str, Any] = {"table": self.spec.name, "budget": job.budget, "split": job.split}
        hashes = {str(shots): episodes.sha256 for shots, episodes in self.episodes.items()}
        before: dict[str, Any] = {}
        if path.exists():
            try:
                before = dict(read_json(path.read_text(encoding="utf-8")))
                known = dict(before["episodes"])
            except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
                raise RunError(f"{path} cannot be read ({error}); give another --out") from error
            if odd := [name for name, value in plan.items() if before.get(name) != value]:
                raise RunError(
                    f"{job.out} holds another table: its {odd[0]} is {str(before.get(odd[0]))[:60]!r}, asked for is "
                    f"{plan[odd[0]]!r}; give another --out"
                )
            for shots, digest in hashes.items():
                if known.get(shots, digest) != digest:
                    raise RunError(
                        f"{job.out}: the {shots}-shot test episodes are not those this table was begun with "
                        f"({str(known[shots])[:12]}…, now {digest[:12]}…); restore the file, or give another --out"
                    )
            hashes = known | hashes
        if before.get("episodes") != hashes and not job.so_far:
            write_atomically(path, (json.dumps(plan | {"episodes": hashes}, indent=2) + "\n").encode())

    def _finding(self, row: RowPlan, shots: int, seed: int) -> Finding:
        run = self._run(row.training, shots, seed) if row.training else None
        steps = self.trainings[row.training].steps if row.training else 0
        return Finding(row, shots, seed, self._measured(row, shots, seed, run), run, steps)

    def _run(self, name: str, shots: int, seed: int) -> RunFolder:
        """The finished run of a training, for tasks of ``shots``."""
        training, trained_at = self.trainings[name], self.spec.trained_at(self.job.budget, shots)
        extra: dict[str, Any] = {"tasks.file": self.job.place}
        label = name
        if training.cell:
            genotype = self._cell(name, trained_at, seed)
            extra |= {"model.genotype": str(genotype)}
            label = "cell-" + hashlib.sha256(str(genotype).encode()).hexdigest()[:10]  # the same cell is trained once
        config = training.config(self.spec.sources[self.job.split], trained_at, seed, extra)
        title = f"train {training.title} ({training.steps} meta-updates, {trained_at}-shot, seed {seed})"
        path = self.job.out / "runs" / f"{label}-{trained_at}shot-seed{seed}"

        if self.job.so_far and not (path / "finished.json").is_file():
            raise _NotYet

        def watch(now: Progress) -> None:
            best = "" if now.best is None else f"  best val {now.best:.1%}"
            self.job.tell(title, now.fraction, f"step {now.step}  acc {now.accuracy:.1%}{best}")

        return train(path, config, self.job.source, self.job.device, watch, self.job.stop)

    def _cell(self, name: str, trained_at: int, seed: int) -> Genotype:
        space = darts(NODES)
        if name in AUTO_MAML_CELLS:
            return AUTO_MAML[AUTO_MAML_CELLS[name]].canonical()
        if name == RANDOM_CELL:
            return random_genotype(space, Key.from_seed(seed).child("reproduce", "random cell")).canonical()
        headline = self._run(HEADLINE, trained_at, seed)
        if name == META_CELL:
            return derive_genotype(alphas_of(headline.load("best").params), space).canonical()
        if name == TASK_CELL:
            cells = next(row for row in rows_of(self.spec, self.job.budget, trained_at) if row.mode == "cells")
            return Genotype.parse(most_frequent(self._measured(cells, trained_at, seed, headline).genotypes)[0])
        raise ConfigError(f"no cell is called {name!r}")

    def _measured(self, row: RowPlan, shots: int, seed: int, run: RunFolder | None) -> Measured:
        episodes = self.episodes[shots]
        experiment = None if run is None else trained(run, self.job.source, self.job.device)
        checkpoint = None if run is None else run.load("best")
        of = {
            "row": row.name,
            "mode": row.mode,
            "bn": row.bn,
            "episodes": episodes.sha256,
            "checkpoint": "" if checkpoint is None else checkpoint.facts["sha256"],
            "steps": 0 if experiment is None else experiment.config.evaluate.steps,
        }
        name = row.name.replace(", ", "-").replace(" ", "-")
        path = self.job.out / "measured" / f"{shots}shot" / f"{name}-seed{seed}.json"
        found = load_measured(path, of, episodes.tasks)
        if found is None and self.job.so_far:
            raise _NotYet
        if found is None:
            found = measure(row, experiment, checkpoint, episodes, self._teller(row, shots, seed))
            path.parent.mkdir(parents=True, exist_ok=True)
            save_measured(path, found, of)
        return found

    def _teller(self, row: RowPlan, shots: int, seed: int) -> Callable[[int, float], None]:
        tasks, title = self.episodes[shots].tasks, f"measure {row.method} ({shots}-shot, seed {seed})"

        def tell(done: int, mean: float) -> None:
            if self.job.stop():
                raise Stopped
            self.job.tell(title, done / tasks, f"{done} tasks  {mean:.2%}")

        return tell


def most_frequent(genotypes: tuple[str, ...]) -> tuple[str, int, int]:
    """(the most frequent, how often it is there, how many distinct ones); of equally frequent ones the first."""
    counts = Counter(genotypes)
    genotype, count = counts.most_common(1)[0]
    return genotype, count, len(counts)
