"""What committing to a cell is worth: presets, mechanisms and random cells, each in the same minutes.

    python -m benchmarks.commitment presets --data-root DATA --minutes 10 --jobs 2
    python -m benchmarks.commitment mechanisms --data-root DATA --minutes 8 --jobs 2
    python -m benchmarks.commitment random --data-root DATA --minutes 5 --jobs 2 --seeds 3

A row is one search, in a process of one thread; it is then measured on the same 600 test tasks as all other rows: the
supernet, its cut-out cell with the weights that it inherits, random cells cut out alike, and of a run that committed
the cell that it ships. Rows that are there already are kept, so a study that stopped goes on. The tables are
benchmarks/results/commitment-STUDY.json and .md; DATA holds omniglot_28_u8.npz and a folder cifar100.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.mixtures import MIXTURES
from metadarts.core.rng import Key
from metadarts.core.types import alphas_of
from metadarts.derive import alpha_entropy, derive_genotype
from metadarts.spaces import darts, random_genotype
from metadarts.stats import Table, interval95
from metadarts.training import Config, RunFolder, discretised, evaluate_run, open_run, preset, search, with_settings
from metadarts.training.build import Experiment, build
from metadarts.training.checkpoints import Checkpoint
from metadarts.training.environment import describe
from metadarts.training.open_run import data_settings
from metadarts.training.selection import choose, selection_rule

RESULTS = Path(__file__).resolve().parent / "results"
TASKS = 600
SMOKE_TASKS = 10
RANDOM_CELLS = 12
CUT_CELLS = 4
"""Random cells that are cut out of each supernet."""
JUDGED_TASKS = 20

DATA = {"omniglot": (1, ""), "cifar-fs": (5, "cifar100"), "fc100": (5, "cifar100"), "glyphs": (1, None)}
"""Source -> shots, and where its data lie below the root."""
PRESET_OF = {"omniglot": "omniglot", "cifar-fs": "cifar", "fc100": "cifar", "glyphs": "quick"}
PAIRS = {"space.inputs_by": "pairs", "space.none": False}
NO_COMMIT = {"commit.drop_below": 0.0, "commit.operations": 1.0, "commit.cell": 1.0}
ANNEALED = {
    **PAIRS,
    "relaxation.name": "annealed",
    "relaxation.begin": 0.1,
    "relaxation.finish": 0.9,
    "relaxation.end": 0.03,
    "outer.alpha_warmup": 0.05,
    "outer.alpha_rate": 0.03,
}
WITHIN = {"relaxation.start": 1.0, "relaxation.end": 1.0, "relaxation.begin": 0.0, "relaxation.finish": 1.0}
MECHANISMS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "softmax, T = 1, L2": ({"outer.alpha_decay": 1e-3}, ("argmax", "perturbation")),
    "softmax, T = 1": ({}, ("argmax",)),
    "annealed": (ANNEALED, ("argmax",)),
    "soft pruning within the task": (
        {**PAIRS, "relaxation.name": "annealed", **WITHIN, "relaxation.inner_end": 0.1, "outer.alpha_warmup": 0.3},
        ("argmax",),
    ),
    "hard query pass": ({**PAIRS, "relaxation.name": "hard", "relaxation.passes": "query"}, ("argmax",)),
    "GDAS": ({**PAIRS, "relaxation.name": "gdas", "outer.alpha_rate": 0.03}, ("argmax",)),
    "sampled paths": ({**PAIRS, "relaxation.name": "paths"}, ("sampled",)),
    "GAEA": (
        {**PAIRS, "inner.alpha_rule": "exponentiated", "outer.alpha_rule": "exponentiated", "outer.alpha_rate": 0.1,
         "inner.alpha_rate": 3.75},
        ("argmax",),
    ),
    "committed": ({}, ()),
}  # fmt: skip
"""Name -> what differs from the mixture's settings, and the rules by which its cell is derived."""


@dataclass(frozen=True)
class Row:
    """One search and what is measured of it.

    Args:
        name: of the row.
        source: of its tasks.
        settings: all that are not defaults.
        rules: by which cells are derived of a supernet.
        seed: of the training.
    """

    name: str
    source: str
    settings: Mapping[str, Any]
    rules: tuple[str, ...] = ("argmax",)
    seed: int = 0

    @property
    def file(self) -> str:
        text = "".join(letter if letter.isalnum() else "-" for letter in self.name)
        return f"{self.source}-{text}-seed{self.seed}"


@dataclass
class Measured:
    """Accuracies of one network, task by task, and its weights."""

    accuracies: list[float]
    weights: int
    genotype: str | None = None

    @property
    def text(self) -> str:
        values = torch.tensor(self.accuracies, dtype=torch.float64)
        return f"{float(values.mean()):.2%} ± {interval95(values):.2%}"


@dataclass
class Found:
    """What a row came to."""

    row: str
    source: str
    seed: int
    steps: int
    seconds: float
    validation: float | None
    entropy: dict[str, float]
    environment: dict[str, Any]
    settings: dict[str, Any]
    measured: dict[str, Measured] = field(default_factory=dict)


def rows_of(study: str, seeds: int, smoke: bool = False) -> Iterator[Row]:
    """The rows of ``study``."""
    if study == "presets":
        for source, name in PRESET_OF.items():
            yield Row("mixture", source, MIXTURES[name])
            yield Row("committed", source, preset(name), ())
    elif study == "mechanisms":
        for name, (changes, rules) in MECHANISMS.items():
            base = preset("cifar") if name == "committed" else MIXTURES["cifar"]
            yield Row(name, "cifar-fs", {**base, **changes}, rules)
    else:
        space = darts(inputs_by="pairs", none=False)
        for source in ("cifar-fs", "fc100"):
            for seed in range(seeds):
                yield Row("committed", source, preset("cifar"), (), seed)
                for number in range(RANDOM_CELLS if not smoke else 2):
                    cell = random_genotype(space, Key.from_seed(0).child("random cells", number))
                    own = {**MIXTURES["cifar"], **PAIRS, "model.network": "cell", "model.genotype": str(cell)}
                    yield Row(f"random {number}", source, own, (), seed)


def config_of(row: Row, root: Path, minutes: float) -> Config:
    """The configuration of ``row``."""
    shots, below = DATA[row.source]
    place = data_settings(row.source, None if below is None else root / below)
    own = {"tasks.shots": shots, "training.seed": row.seed, "training.minutes": minutes, "training.meta_steps": 0}
    return with_settings(Config(), {**row.settings, **place, **own}).check()


def run_row(row: Row, root: Path, minutes: float, runs: Path, tasks: int) -> Found:
    """Search and measure."""
    path = runs / row.file
    folder = RunFolder.open(path) if (path / "config.yaml").is_file() else None
    config = config_of(row, root, minutes) if folder is None else folder.config()
    experiment = build(config)
    folder = folder or RunFolder.create(path, config, describe("cpu"))
    if not folder.is_finished:
        search(experiment, folder)
    opened = open_run(path)
    last, best = folder.load("last").facts, opened.checkpoint
    found = Found(
        row.name, row.source, row.seed, last["step"], last["seconds"], best.facts.get("validation_accuracy"),
        alpha_entropy(alphas_of(best.params), experiment.network.relaxation), describe("cpu"),
        dict(row.settings),
    )  # fmt: skip
    for name, (one, checkpoint) in networks_of(row, path, opened.experiment(experiment.source), best).items():
        result = evaluate_run(one, checkpoint, "test", tasks).evaluation.accuracies
        genotype = one.network.genotype
        weights = one.network.count(one.config.tasks.ways)[0]
        found.measured[name] = Measured(result.tolist(), weights, None if genotype is None else str(genotype))
    return found


def networks_of(
    row: Row, path: Path, experiment: Experiment, best: Checkpoint
) -> dict[str, tuple[Experiment, Checkpoint]]:
    """What is measured of a run, by name."""
    if not experiment.network.mixes:
        found = {"cell": (experiment, best)}
        if RunFolder.open(path).has("supernet"):
            before = open_run(path, checkpoint="supernet")
            found["supernet at the cut"] = before.experiment(experiment.source), before.checkpoint
        return found
    space = experiment.network.space
    found = {"supernet": (experiment, best)}
    for name in row.rules:
        if name == "argmax":
            cell = derive_genotype(alphas_of(best.params), space, experiment.network.relaxation)
        else:
            key = Key.from_seed(row.seed).child("derive", name)
            cell = choose(experiment, best, selection_rule(name, {}), tasks=JUDGED_TASKS, key=key).selection.genotype
        found[f"cell by {name}"] = discretised(experiment, best, cell)
    for number in range(CUT_CELLS if row.rules else 0):
        cell = random_genotype(space, Key.from_seed(0).child("cut cells", number))
        found[f"random cell {number}"] = discretised(experiment, best, cell)
    return found


def write(found: Found, path: Path) -> None:
    """One row, accuracies rounded to what 75 queries can tell."""
    told = found.__dict__ | {
        "measured": {
            name: one.__dict__ | {"accuracies": [round(value, 5) for value in one.accuracies]}
            for name, one in found.measured.items()
        }
    }
    path.write_text(json.dumps(told) + "\n", encoding="utf-8")


def read(path: Path) -> Found:
    """What `write` wrote."""
    told = json.loads(path.read_text(encoding="utf-8"))
    return Found(**told | {"measured": {name: Measured(**one) for name, one in told["measured"].items()}})


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing of a study, then write its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commitment", description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=("presets", "mechanisms", "random"))
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--jobs", type=int, default=2, help="searches at once, each of one thread")
    parser.add_argument("--runs", type=Path, default=Path("runs/commitment"))
    parser.add_argument("--only", default="", help="rows whose file name contains this")
    parser.add_argument("--row", help="one row, in this process")
    options = parser.parse_args(arguments)
    runs = options.runs / options.study
    runs.mkdir(parents=True, exist_ok=True)
    rows = [row for row in rows_of(options.study, options.seeds) if options.only in row.file]
    if options.row:
        torch.set_num_threads(1)
        (row,) = [row for row in rows if row.file == options.row]
        write(run_row(row, options.data_root, options.minutes, runs, options.tasks), runs / f"{row.file}.json")
        return
    missing = [row for row in rows if not (runs / f"{row.file}.json").is_file()]
    words = [sys.executable, "-m", "benchmarks.commitment", options.study, "--data-root", str(options.data_root)]
    words += ["--minutes", str(options.minutes), "--seeds", str(options.seeds), "--tasks", str(options.tasks)]
    words += ["--runs", str(options.runs)]
    begun = time.monotonic()

    def one(row: Row) -> None:
        log = (runs / f"{row.file}.log").open("w")
        code = subprocess.run([*words, "--row", row.file], stdout=log, stderr=log, check=False).returncode
        print(
            f"{time.monotonic() - begun:7.0f} s  {row.file}: {'done' if code == 0 else 'FAILED, see its log'}",
            flush=True,
        )

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(one, missing))
    found = [read(runs / f"{row.file}.json") for row in rows if (runs / f"{row.file}.json").is_file()]
    (RESULTS / f"commitment-{options.study}.md").write_text(table_of(found), encoding="utf-8")
    (RESULTS / f"commitment-{options.study}.json").write_text(
        json.dumps([json.loads((runs / f"{row.file}.json").read_text()) for row in rows
                    if (runs / f"{row.file}.json").is_file()]) + "\n", encoding="utf-8")  # fmt: skip


def table_of(found: list[Found]) -> str:
    """Markdown: one line for each network of each row."""
    columns = ["source", "row", "seed", "steps", "s a step", "network", "weights", "test accuracy"]
    lines = [
        [row.source, row.row, f"{row.seed}", f"{row.steps}", f"{row.seconds / max(1, row.steps):.2f}", name,
         f"{one.weights:,}", one.text]
        for row in found
        for name, one in row.measured.items()
    ]  # fmt: skip
    return Table(columns, lines).markdown() + "\n"


if __name__ == "__main__":
    main()
