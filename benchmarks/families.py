"""Architectures of tasks where tasks differ: shared, amortised and per-domain alphas at equal steps.

    python -m benchmarks.families widths --seeds 3 --steps 600 --jobs 2
    python -m benchmarks.families mixture --data-root DATA --seeds 3 --steps 600 --jobs 2

A row is one search in a process of one thread, all with the same episodes and settings but for ``alphas.name``. Every
row is measured on the same tasks of each domain: with its alphas; with its alphas of another domain's tasks ("swapped";
a shared start has one set, so nothing changes); and with each task's cell cut out, its weights inherited. Rows lie in
runs/families, named after all that they depend on, so a study that stopped goes on; the table is
benchmarks/results/families-NAME.{json,md}. DATA holds omniglot_28_u8.npz and a folder cifar100.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch, alphas_of, batched, with_alphas
from metadarts.derive import derive_genotype
from metadarts.inner import adapt
from metadarts.networks import Learner
from metadarts.papers.gate.study import weights_of
from metadarts.spaces import Genotype
from metadarts.stats import Estimate, Table
from metadarts.stats.bootstrap import estimate, paired
from metadarts.store.files import write_atomically
from metadarts.tasks import EpisodeSampler, Source
from metadarts.training import Config, RunFolder, open_run, search, with_settings
from metadarts.training.build import Experiment, build
from metadarts.training.environment import describe
from metadarts.training.evaluation import evaluation_inner
from metadarts.training.open_run import data_settings

RESULTS = Path(__file__).resolve().parent / "results"
STARTS = ("shared", "amortised", "per-domain")
AT_ONCE = 10
COMMON: dict[str, Any] = {
    "tasks.shots": 5, "tasks.queries": 5, "tasks.train_ways": 8, "model.head": "prototype", "space.none": False,
    "relaxation.name": "annealed", "relaxation.begin": 0.15, "relaxation.finish": 0.6, "relaxation.end": 0.05,
    "inner.steps": 1, "inner.weight_rate": 0.05, "inner.alpha_rate": 0.0, "evaluate.steps": 1,
    "outer.alpha_rate": 0.03, "outer.alpha_warmup": 0.05, "outer.weight_rate": 3e-3, "outer.final": 0.02,
    "training.tasks": 6, "training.validations": 3, "training.validation_tasks": 60,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "widths": ("widths", {"macro.stem": [16], "macro.channels": 8, "space.nodes": 1}),
    "mixture": (
        "mixture:omniglot=.,cifar-fs=cifar100,glyphs",
        {"tasks.shots": 3, "space.nodes": 2, "macro.channels": 16, "training.tasks": 3},
    ),
}
"""Family -> the name of its source, and settings besides `COMMON`."""


@dataclass(frozen=True)
class Job:
    """One search.

    Args:
        family: a key of `FAMILIES`.
        start: of the alphas.
        seed: of the run.
        steps: meta-steps.
        tasks: tasks of each domain that it is measured on.
        data_root: where the data lie; empty for built-in ones.
    """

    family: str
    start: str
    seed: int
    steps: int
    tasks: int
    data_root: str = ""

    def config(self) -> Config:
        """Its configuration."""
        source, more = FAMILIES[self.family]
        root = Path(self.data_root) if self.data_root else None
        fixed = {"alphas.name": self.start, "training.meta_steps": self.steps, "training.seed": self.seed}
        return with_settings(Config(), COMMON | more | fixed | data_settings(source, root)).check()

    @property
    def place(self) -> Path:
        """The folder of its run."""
        source, more = FAMILIES[self.family]
        facts = {**asdict(self), "settings": {**COMMON, **more}, "source": source}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]
        return Path("runs/families") / f"{self.family}-{self.start}-{self.seed}-{digest}"


def run(job: Job) -> dict[str, Any]:
    """Search, or go on with the search, and measure."""
    row = job.place / "row.json"
    if row.is_file():
        found: dict[str, Any] = json.loads(row.read_text())
        return found
    torch.set_num_threads(1)
    experiment, begun = build(job.config()), time.monotonic()
    folder = RunFolder(job.place)
    if not (job.place / "config.yaml").is_file():
        folder = RunFolder.create(job.place, experiment.config, {"environment": describe("cpu")})
    search(experiment, folder)
    seconds = time.monotonic() - begun
    opened = open_run(job.place, checkpoint="last")
    measured = measure(experiment, opened.checkpoint.params, job.tasks)
    found = {"job": asdict(job), "seconds": seconds, "environment": describe("cpu"), "domains": measured}
    write_atomically(row, json.dumps(found).encode())
    return found


def measure(experiment: Experiment, params: Params, tasks: int) -> dict[str, dict[str, Any]]:
    """domain -> accuracies of its test tasks, by what their alphas were; and the most frequent operations."""
    source = experiment.source
    assert isinstance(source, Source)
    config = experiment.config
    told = config.alphas.name != "per-domain"  # an oracle knows the domains that it was trained in
    domains = [name for name in source.domain_classes("test") if told or name in source.domain_classes("train")]
    found: dict[str, dict[str, Any]] = {name: {"own": [], "swapped": [], "cell": [], "cells": []} for name in domains}
    for first in range(0, tasks, AT_ONCE):
        batches, starts = {}, {}
        for name in domains:
            sampler = EpisodeSampler(
                source, "test", config.tasks.ways, config.tasks.shots, config.evaluate.queries, name
            )
            batches[name] = sampler.sample(Key.from_seed(0).child("families", name), AT_ONCE, first)
            with torch.no_grad():
                starts[name] = experiment.learner.start(batched(params, AT_ONCE), batches[name])
        for place, name in enumerate(domains):
            batch, other = batches[name], domains[(place + 1) % len(domains)]
            row = found[name]
            row["own"] += _adapted(experiment, experiment.learner, batch, params, alphas_of(starts[name]))
            row["swapped"] += _adapted(experiment, experiment.learner, batch, params, alphas_of(starts[other]))
            cells = _cells(experiment, alphas_of(starts[name]))
            fixed = replace(experiment.learner, weights=weights_of(experiment.network.space, cells))
            row["cell"] += _adapted(experiment, fixed, batch, params, alphas_of(starts[name]))
            row["cells"] += [str(cell) for cell in cells]
    return found


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


def table(rows: list[dict[str, Any]]) -> str:
    """Accuracies by domain and start, and the differences that matter, with intervals over seeds and tasks."""
    found: dict[str, dict[str, list[list[float]]]] = {}
    names: list[str] = []
    for row in rows:
        for domain, values in row["domains"].items():
            names += [domain] if domain not in names else []
            for kind in ("own", "swapped", "cell"):
                found.setdefault(f"{row['job']['start']} {kind}", {}).setdefault(domain, []).append(values[kind])
    key = Key.from_seed(0).child("families")
    lines = []
    for name, by_domain in found.items():
        if name == "shared swapped":
            continue
        lines.append((name, *(_percent(estimate(_array(by_domain[d]), key)) if d in by_domain else "" for d in names)))
    for first, second in (
        ("amortised own", "shared own"), ("per-domain own", "shared own"), ("amortised swapped", "amortised own"),
        ("amortised cell", "amortised own"), ("amortised cell", "shared cell"),
    ):  # fmt: skip
        if first in found and second in found:
            cells = []
            for domain in names:
                pair = found[first].get(domain), found[second].get(domain)
                cells.append("" if None in pair else _percent(paired(_array(pair[0]), _array(pair[1]), key), "+"))
            lines.append((f"{first} - {second}", *cells))
    return Table(("accuracy, % (95 % interval)", *names), lines).markdown()


def _array(values: Any) -> Any:
    return torch.tensor(values, dtype=torch.float64).numpy()


def _percent(found: Estimate, sign: str = "") -> str:
    return found.scaled(100).text(1, sign)


def main() -> None:
    """One job (--job), or a study whose jobs are processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--tasks", type=int, default=100, help="test tasks of each domain")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--data-root", default="")
    parser.add_argument("--job", nargs=2, metavar=("START", "SEED"))
    given = parser.parse_args()
    root = str(Path(given.data_root).resolve()) if given.data_root else ""
    if given.job:
        run(Job(given.family, given.job[0], int(given.job[1]), given.steps, given.tasks, root))
        return
    jobs = [Job(given.family, start, seed, given.steps, given.tasks, root) for seed in range(given.seeds)
            for start in STARTS]  # fmt: skip

    def carried_out(job: Job) -> None:
        words = [sys.executable, "-m", "benchmarks.families", job.family, "--steps", str(job.steps), "--tasks",
                 str(job.tasks), "--data-root", job.data_root, "--job", job.start, str(job.seed)]  # fmt: skip
        subprocess.run(words, check=True)
        print(f"{job.start} seed {job.seed}: {run(job)['seconds']:.0f} s", flush=True)

    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(carried_out, jobs))
    rows = [run(job) for job in jobs]
    page = table(rows)
    write_atomically(RESULTS / f"families-{given.family}.json", (json.dumps(rows) + "\n").encode())
    write_atomically(RESULTS / f"families-{given.family}.md", f"{page}\n".encode())
    print(page)


if __name__ == "__main__":
    main()
