"""Architectures of tasks where tasks differ: where the alphas of a task start, at equal steps.

    python -m benchmarks.families widths --seeds 3 --steps 600 --jobs 2
    python -m benchmarks.families mixture --data-root DATA --seeds 3 --steps 600 --jobs 2
    python -m benchmarks.families unseen --data-root DATA --seeds 3 --steps 600 --jobs 2

A row is one search in a process of one thread, all with the same episodes and settings but for ``alphas``. Every row is
measured on the same tasks of each domain: with its alphas; with its alphas of tasks of each other training domain, in
the mean ("swapped"); and with each task's cell cut out, its weights inherited. An arm "alone D" sees domain D only, in
as many training tasks as the other arms see of D: architecture and all weights are its own. Rows lie in runs/families,
named after all settings (not the code) that they depend on, so a study that stopped goes on; --arms chooses some arms.
The page of all rows of this size is printed; --publish also writes benchmarks/results/families-NAME.{json,md} and the
picture docs/families-NAME.png. DATA holds omniglot_28_u8.npz and the folder cifar100.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch, alphas_of, batched, with_alphas
from metadarts.derive import derive_genotype
from metadarts.inner import adapt
from metadarts.networks import Learner
from metadarts.papers.gate.study import weights_of
from metadarts.spaces import Genotype
from metadarts.store.files import write_atomically
from metadarts.tasks import EpisodeSampler, Source
from metadarts.training import Config, RunFolder, open_run, search, with_settings
from metadarts.training.build import Experiment, build
from metadarts.training.environment import describe
from metadarts.training.evaluation import evaluation_inner
from metadarts.training.open_run import data_settings

from .families_page import draw, published, table

RESULTS = Path(__file__).resolve().parent / "results"
PICTURES = RESULTS.parents[1] / "docs"
STARTS: dict[str, dict[str, Any]] = {
    **{name: {"alphas.name": name} for name in ("shared", "amortised", "per-domain")},
    **{f"choice {cells}": {"alphas.name": "choice", "alphas.cells": cells} for cells in (2, 4, 8)},
    "one cell": {"alphas.name": "shared", "commit.operations": 0.5, "commit.cell": 0.6},
}
"""Arm -> its settings. "one cell" commits to one for all tasks and meta-trains it on to the end."""
AT_ONCE = 10
SIZE, CHANNELS = 32, 3
"""The form that a mixture's images have here."""
COMMON: dict[str, Any] = {
    "tasks.shots": 5, "tasks.queries": 5, "tasks.train_ways": 8, "model.head": "prototype", "space.none": False,
    "relaxation.name": "annealed", "relaxation.begin": 0.15, "relaxation.finish": 0.6, "relaxation.end": 0.05,
    "inner.steps": 0, "inner.weight_rate": 0.05, "inner.alpha_rate": 0.0, "evaluate.steps": 0,
    "outer.alpha_rate": 0.03, "outer.alpha_warmup": 0.05, "outer.weight_rate": 3e-3, "outer.final": 0.02,
    "training.tasks": 6, "training.validations": 3, "training.validation_tasks": 60,
}  # fmt: skip
SOURCES = {"omniglot": "omniglot", "cifar-fs": "cifar-fs=cifar100", "glyphs": "glyphs"}
"""Domain of the mixture -> its source, below the root of the data."""
MIXED: dict[str, Any] = {"tasks.shots": 3, "space.nodes": 2, "macro.channels": 16, "training.tasks": 3}


@dataclass(frozen=True)
class Family:
    """Tasks of one kind.

    Args:
        source: its name.
        settings: besides `COMMON`.
        arms: what is compared on it.
    """

    source: str
    settings: dict[str, Any]
    arms: tuple[str, ...]


FAMILIES = {
    "widths": Family(
        "widths", {"macro.stem": [16], "macro.channels": 8, "space.nodes": 1, "tasks.train_ways": 5}, tuple(STARTS)
    ),
    "mixture": Family(
        "mixture:omniglot=.,cifar-fs=cifar100,glyphs", MIXED, (*STARTS, *(f"alone {name}" for name in SOURCES))
    ),
    "unseen": Family("mixture:omniglot=.,cifar-fs=cifar100,-glyphs", MIXED, ("shared", "amortised")),
}


@dataclass(frozen=True)
class Job:
    """One search.

    Args:
        family: a key of `FAMILIES`.
        arm: a key of `STARTS`, or "alone DOMAIN".
        seed: of the run.
        steps: meta-steps.
        tasks: tasks of each domain that it is measured on.
        data_root: where the data lie; empty for built-in ones.
        split: of those tasks; settings are chosen on "val".
    """

    family: str
    arm: str
    seed: int
    steps: int
    tasks: int
    data_root: str = ""
    split: str = "test"

    @property
    def alone(self) -> str:
        """The one domain that it sees; empty for all."""
        return self.arm.removeprefix("alone ") if self.arm.startswith("alone ") else ""

    def settings(self) -> dict[str, Any]:
        """All that it depends on, but where the data lie."""
        family = FAMILIES[self.family]
        own = {"alphas.name": "shared"} if self.alone else STARTS[self.arm]
        steps = self.steps // len(SOURCES) if self.alone else self.steps
        return {**COMMON, **family.settings, **own, "training.meta_steps": steps, "training.seed": self.seed}

    def config(self) -> Config:
        """Its configuration."""
        root = Path(self.data_root) if self.data_root else None
        source = SOURCES[self.alone] if self.alone else FAMILIES[self.family].source
        if self.alone:
            source, _, place = source.partition("=")
            root = None if root is None or source == "glyphs" else root / place
        more = {"tasks.size": SIZE, "tasks.channels": CHANNELS} if self.alone else {}
        return with_settings(Config(), self.settings() | more | data_settings(source, root)).check()

    @property
    def place(self) -> Path:
        """The folder of its run."""
        facts = {"source": FAMILIES[self.family].source, **self.settings()}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]
        return Path("runs/families") / f"{self.family}-{self.arm.replace(' ', '-')}-{self.seed}-{digest}"

    @property
    def row(self) -> Path:
        """The file of its row."""
        return self.place / f"measured-{self.split}-{self.tasks}.json"


def done(job: Job) -> dict[str, Any] | None:
    """Its row, if there is one."""
    found: dict[str, Any] | None = json.loads(job.row.read_text()) if job.row.is_file() else None
    return found


def run(job: Job) -> None:
    """Search, or go on with the search, and measure."""
    if done(job):
        return
    torch.set_num_threads(1)
    experiment, folder, finished = build(job.config()), RunFolder(job.place), job.place / "finished.json"
    if not (job.place / "config.yaml").is_file():
        folder = RunFolder.create(job.place, experiment.config, {"environment": describe("cpu")})
    if not finished.is_file():
        search(experiment, folder)
    seconds = json.loads(finished.read_text())["seconds"]
    opened = open_run(job.place, checkpoint="last")
    if experiment.config.commit.ends_in_a_cell:
        experiment = opened.experiment(experiment.source)
    measured = measure(experiment, opened.checkpoint.params, job)
    facts = {**asdict(job), "data_root": ""}  # a path says nothing elsewhere
    trained = json.loads((job.place / "env.json").read_text())
    found = {"job": facts, "seconds": seconds, "environment": trained, "domains": measured}
    write_atomically(job.row, json.dumps(found).encode())


def measure(experiment: Experiment, params: Params, job: Job) -> dict[str, dict[str, Any]]:
    """domain -> accuracies of its tasks, by what their alphas were; and the cells of the tasks."""
    source = experiment.source
    assert isinstance(source, Source)
    config = experiment.config
    told = config.alphas.name != "per-domain"  # an oracle knows the domains that it was trained in
    domains = [name for name in source.domain_classes(job.split) if told or name in source.domain_classes("train")]
    found: dict[str, dict[str, Any]] = {name: {"own": [], "swapped": [], "cell": [], "cells": []} for name in domains}
    for first in range(0, job.tasks, AT_ONCE):
        batches, starts = {}, {}
        for name in domains:
            of = config.tasks
            sampler = EpisodeSampler(source, job.split, of.ways, of.shots, config.evaluate.queries, name)
            key = Key.from_seed(0).child("families", name or job.alone)  # the classes of one domain: the same tasks
            batches[name] = sampler.sample(key, AT_ONCE, first)
            with torch.no_grad():
                starts[name] = experiment.learner.start(batched(params, AT_ONCE), batches[name])
        for name, batch in batches.items():
            row = found[name]
            row["own"] += _adapted(experiment, experiment.learner, batch, params, alphas_of(starts[name]))
            if not experiment.network.mixes:
                continue
            donors = [other for other in source.domain_classes("train") if other != name]
            given = [_adapted(experiment, experiment.learner, batch, params, alphas_of(starts[d])) for d in donors]
            row["swapped"] += np.mean(given, axis=0).tolist() if given else []
            cells = _cells(experiment, alphas_of(starts[name]))
            fixed = replace(experiment.learner, weights=weights_of(experiment.network.space, cells))
            row["cell"] += _adapted(experiment, fixed, batch, params, alphas_of(starts[name]))
            row["cells"] += [str(cell) for cell in cells]
    return {name or job.alone: row for name, row in found.items()}


def _adapted(experiment: Experiment, learner: Learner, batch: TaskBatch, params: Params, alphas: Params) -> list[float]:
    """Query accuracies of the tasks, adapted from the shared weights and these alphas."""
    with torch.no_grad():
        start = learner.start(with_alphas(batched(params, batch.tasks), alphas), batch)
        adapted = adapt(learner.support_loss, start, batch, evaluation_inner(experiment.config))
        accuracies: list[float] = learner.query_loss(adapted.params, batch)[1].tolist()
    return accuracies


def _cells(experiment: Experiment, alphas: Params) -> list[Genotype]:
    """The cell of each task."""
    count, network = len(next(iter(alphas.values()))), experiment.network
    return [
        derive_genotype({name: table[task] for name, table in alphas.items()}, network.space, network.relaxation)
        for task in range(count)
    ]


def main() -> None:
    """One job (--job), or a study whose jobs are processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--arms", nargs="*", help="default: all of the family")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--tasks", type=int, default=100, help="of each domain that a row is measured on")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="val: to choose settings")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--data-root", default="")
    parser.add_argument("--publish", action="store_true", help="write the page, its rows and the picture")
    parser.add_argument("--job", nargs=2, metavar=("ARM", "SEED"))
    given = parser.parse_args()
    root = str(Path(given.data_root).resolve()) if given.data_root else ""

    def job(arm: str, seed: int) -> Job:
        return Job(given.family, arm, seed, given.steps, given.tasks, root, given.split)

    if given.job:
        run(job(given.job[0], int(given.job[1])))
        return
    arms = FAMILIES[given.family].arms

    def carried_out(job: Job) -> None:
        words = [sys.executable, "-m", "benchmarks.families", job.family, "--steps", str(job.steps), "--tasks",
                 str(job.tasks), "--data-root", job.data_root, "--split", job.split, "--job", job.arm,
                 str(job.seed)]  # fmt: skip
        if not done(job):
            subprocess.run(words, check=True)
        found = done(job)
        assert found
        shares = ", ".join(f"{name} {100 * np.mean(row['own']):.1f}" for name, row in found["domains"].items())
        print(f"{job.arm} seed {job.seed}: {found['seconds']:.0f} s; {shares}", flush=True)

    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(carried_out, [job(arm, seed) for seed in range(given.seeds) for arm in given.arms or arms]))
    rows = [row for seed in range(given.seeds) for arm in arms if (row := done(job(arm, seed)))]
    page = table(rows)
    print(page)
    if given.publish:
        write_atomically(RESULTS / f"families-{given.family}.json", (json.dumps(published(rows)) + "\n").encode())
        write_atomically(RESULTS / f"families-{given.family}.md", f"{page}\n".encode())
        draw(rows, PICTURES / f"families-{given.family}.png")


if __name__ == "__main__":
    main()
