"""What committing to a cell is worth: presets, mechanisms and random cells, each search in the same minutes.

    python -m benchmarks.commitment presets --data-root DATA --minutes 10 --jobs 2
    python -m benchmarks.commitment mechanisms --data-root DATA --minutes 8 --jobs 2
    python -m benchmarks.commitment random --data-root DATA --minutes 5 --jobs 2 --seeds 3

presets: the preset that commits beside the one that stays a supernet ("mixture"). They differ in all that committing
takes: space, relaxation, rate and warm-up of alphas. For glyphs ("quick") head, ways, tasks and steps differ too.
mechanisms: what makes alphas choose, on CIFAR-FS, with the settings of the preset "cifar" in all else.
random: the cell of the preset, searched with each seed, beside twelve random cells that are meta-trained alike, for as
long, from their own beginning; random cell k is trained with seed k modulo the number of seeds.

A row is one search in a process of one thread, measured on the same 600 test tasks as all other rows: the supernet, its
cut-out cell with inherited weights, random cells cut out alike (on the first 150 of the tasks); of a run that committed
the cell that it ships. A cell chosen by a rule on validation tasks took the seconds shown besides those of its search.
Rows lie in runs/commitment, named after all that they depend on, so a study that stopped goes on; its tables are
benchmarks/results/commitment-STUDY.{json,md}. DATA holds omniglot_28_u8.npz and a folder cifar100.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.cells_compared import compare, stacked
from benchmarks.mixtures import mixture
from metadarts.core.rng import Key
from metadarts.core.types import alphas_of
from metadarts.derive import alpha_entropy, derive_genotype
from metadarts.spaces import darts, random_genotype
from metadarts.stats import Table, interval95
from metadarts.store.files import write_atomically
from metadarts.training import Config, RunFolder, discretised, evaluate_run, open_run, preset, search, with_settings
from metadarts.training.build import Experiment, build
from metadarts.training.checkpoints import Checkpoint
from metadarts.training.environment import describe
from metadarts.training.open_run import data_settings
from metadarts.training.selection import choose, selection_rule

RESULTS = Path(__file__).resolve().parent / "results"
TASKS = 600
RANDOM_CELLS = 12
CUT_CELLS, CUT_TASKS = 4, 150
"""Random cells that are cut out of each supernet, and the most tasks that each of them is measured on."""
JUDGED_TASKS = 20

DATA = {"omniglot": (1, ""), "cifar-fs": (5, "cifar100"), "fc100": (5, "cifar100"), "glyphs": (1, None)}
"""Source -> shots, and where its data lie below the root."""
PRESET_OF = {"omniglot": "omniglot", "cifar-fs": "cifar", "fc100": "cifar", "glyphs": "quick"}
PAIRS = {"space.inputs_by": "pairs", "space.none": False}
FAST = {"outer.alpha_warmup": 0.02, "outer.alpha_rate": 0.06}
"""As the preset has it: a rate of alphas that lets them choose within minutes."""
ANNEALED = {
    **PAIRS, **FAST, "relaxation.name": "annealed", "relaxation.begin": 0.02, "relaxation.finish": 0.9,
    "relaxation.end": 0.03,
}  # fmt: skip
WITHIN = {
    **PAIRS, **FAST, "relaxation.name": "annealed", "relaxation.end": 1.0, "relaxation.inner_end": 0.1,
}  # fmt: skip
GAEA = {
    **PAIRS, "inner.alpha_rule": "exponentiated", "outer.alpha_rule": "exponentiated", "outer.alpha_rate": 0.1,
    "inner.alpha_rate": 3.75,
}  # fmt: skip
ARGMAX = ("argmax",)
MECHANISMS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "softmax, L2 on alphas": ({"outer.alpha_decay": 1e-3}, ("argmax", "perturbation")),
    "softmax": ({}, ARGMAX),
    "softmax, pairs": (PAIRS, ARGMAX),
    "softmax, pairs, fast alphas": ({**PAIRS, **FAST}, ARGMAX),
    "annealed": (ANNEALED, ARGMAX),
    "soft pruning within the task": (WITHIN, ARGMAX),
    "hard query pass": ({**PAIRS, **FAST, "relaxation.name": "hard", "relaxation.passes": "query"}, ARGMAX),
    "GDAS": ({**PAIRS, **FAST, "relaxation.name": "gdas"}, ARGMAX),
    "sampled paths": ({**PAIRS, "relaxation.name": "paths"}, ("sampled",)),
    "GAEA": (GAEA, ARGMAX),
    "committed": ({}, ()),
}
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
    rules: tuple[str, ...] = ARGMAX
    seed: int = 0

    def file(self, minutes: float, tasks: int) -> str:
        """Its name on disk, with a digest of all that decides its result but the code."""
        text = "".join(letter if letter.isalnum() else "-" for letter in self.name)
        told = json.dumps([dict(self.settings), self.rules, minutes, tasks], sort_keys=True)
        return f"{self.source}-{text}-seed{self.seed}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


@dataclass
class Measured:
    """One network.

    Args:
        accuracies: on the test tasks.
        weights: as a linear layer for the task's classes counts.
        genotype: of a cell.
        seconds: that choosing it took besides the search.
    """

    accuracies: list[float]
    weights: int
    genotype: str | None = None
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """Mean and interval over tasks."""
        values = _values(self)
        return f"{float(values.mean()):.2%} ± {interval95(values):.2%}"


def _values(one: Measured) -> torch.Tensor:
    return torch.tensor(one.accuracies, dtype=torch.float64)


@dataclass
class Found:
    """What a row came to: the search's steps and seconds, its best validation, the entropies of its alphas."""

    row: str
    source: str
    seed: int
    minutes: float
    steps: int
    seconds: float
    validation: float | None
    entropy: dict[str, float]
    environment: dict[str, Any]
    settings: dict[str, Any]
    measured: dict[str, Measured] = field(default_factory=dict)


def rows_of(study: str, seeds: int) -> Iterator[Row]:
    """The rows of ``study``."""
    if study == "presets":
        for source, name in PRESET_OF.items():
            yield Row("mixture", source, mixture(name))
            yield Row("committed", source, preset(name), ())
    elif study == "mechanisms":
        for name, (changes, rules) in MECHANISMS.items():
            base = preset("cifar") if name == "committed" else mixture("cifar")
            yield Row(name, "cifar-fs", {**base, **changes}, rules)
    else:
        space = darts(inputs_by="pairs", none=False)
        for source in ("cifar-fs", "fc100"):
            for seed in range(seeds):
                yield Row("committed", source, preset("cifar"), (), seed)
            for number in range(RANDOM_CELLS):
                cell = random_genotype(space, Key.from_seed(0).child("random cells", number))
                own = {**mixture("cifar"), **PAIRS, "model.network": "cell", "model.genotype": str(cell)}
                yield Row(f"random {number}", source, own, (), number % seeds)


def config_of(row: Row, root: Path, minutes: float) -> Config:
    """The configuration of ``row``."""
    shots, below = DATA[row.source]
    place = data_settings(row.source, None if below is None else root / below)
    own = {"tasks.shots": shots, "training.seed": row.seed, "training.minutes": minutes, "training.meta_steps": 0}
    return with_settings(Config(), {**row.settings, **place, **own}).check()


def run_row(row: Row, root: Path, minutes: float, path: Path, tasks: int) -> Found:
    """Search into ``path``, or go on there, and measure."""
    begun = (path / "config.yaml").is_file()
    folder = RunFolder.open(path) if begun else RunFolder.create(path, config_of(row, root, minutes), describe("cpu"))
    experiment = build(folder.config())
    if not folder.is_finished:
        search(experiment, folder)
    opened = open_run(path)
    last, best = folder.load("last").facts, opened.checkpoint
    alphas = alphas_of((folder.load("supernet") if folder.has("supernet") else best).params)
    found = Found(
        row.name, row.source, row.seed, minutes, last["step"], last["seconds"], best.facts.get("validation_accuracy"),
        alpha_entropy(alphas, experiment.network.relaxation), describe("cpu"), dict(row.settings),
    )  # fmt: skip
    for name, (one, checkpoint, seconds) in networks_of(row, path, opened.experiment(experiment.source), best):
        own = min(tasks, CUT_TASKS) if name.startswith("random") else tasks
        accuracies = evaluate_run(one, checkpoint, "test", own).evaluation.accuracies.tolist()
        weights, genotype = one.network.count(one.config.tasks.ways)[0], one.network.genotype
        found.measured[name] = Measured(accuracies, weights, None if genotype is None else str(genotype), seconds)
    return found


Networks = Iterator[tuple[str, tuple[Experiment, Checkpoint, float]]]


def networks_of(row: Row, path: Path, experiment: Experiment, best: Checkpoint) -> Networks:
    """What is measured of a run: name, the network, its parameters, and the seconds that choosing it took."""
    if not experiment.network.mixes:
        yield "cell", (experiment, best, 0.0)
        if RunFolder.open(path).has("supernet"):
            before = open_run(path, checkpoint="supernet")
            yield "supernet at the cut", (before.experiment(experiment.source), before.checkpoint, 0.0)
        return
    space = experiment.network.space
    yield "supernet", (experiment, best, 0.0)
    for name in row.rules:
        begun, key = time.monotonic(), Key.from_seed(row.seed).child("derive", name)
        if name == "argmax":
            cell = derive_genotype(alphas_of(best.params), space, experiment.network.relaxation)
        else:
            cell = choose(experiment, best, selection_rule(name, {}), tasks=JUDGED_TASKS, key=key).selection.genotype
        yield f"cell by {name}", (*discretised(experiment, best, cell), time.monotonic() - begun)
    for number in range(CUT_CELLS if row.rules else 0):
        cell = random_genotype(space, Key.from_seed(0).child("cut cells", number))
        yield f"random cell {number}", (*discretised(experiment, best, cell), 0.0)


def read(path: Path) -> Found:
    """What a row's process wrote."""
    told = json.loads(path.read_text(encoding="utf-8"))
    return Found(**told | {"measured": {name: Measured(**one) for name, one in told["measured"].items()}})


def table_of(found: list[Found]) -> str:
    """Markdown: one line for each network of each row; differences are paired by task with the cell of "committed"."""
    columns = [
        "source", "row", "seed", "minutes", "steps", "s a step", "mean entropy", "network", "weights", "tasks",
        "test accuracy", "less committed", "validation", "s to choose",
    ]  # fmt: skip
    lines, ours = [], {(row.source, row.seed): row.measured["cell"] for row in found if row.row == "committed"}
    for row in found:
        against = ours.get((row.source, row.seed))
        entropy = f"{sum(row.entropy.values()) / len(row.entropy):.2f}" if row.entropy else ""
        for name, one in row.measured.items():
            apart = None if against in (None, one) else _values(one) - _values(against)[: len(one.accuracies)]
            lines.append([
                row.source, row.row, f"{row.seed}", f"{row.minutes:g}", f"{row.steps}",
                f"{row.seconds / max(1, row.steps):.2f}", entropy, name, f"{one.weights:,}",
                f"{len(one.accuracies)}", one.text,
                "" if apart is None else f"{float(apart.mean()):+.2%} ± {interval95(apart):.2%}",
                "" if row.validation is None else f"{row.validation:.2%}", f"{one.seconds:.0f}",
            ])  # fmt: skip
    return Table(columns, lines).markdown() + "\n"


def summary_of(found: list[Found], seeds: int) -> str:
    """Markdown of the study "random": searched cells against random ones, for each source whose rows are there."""
    columns = [
        "source", "minutes", "searched: test accuracy", "weights", "random: test accuracy", "weights",
        "difference, points", "rank", "less the best of them by validation", "at equal weights",
    ]  # fmt: skip
    lines = []
    for source in dict.fromkeys(row.source for row in found):
        rows: dict[bool, list[tuple[list[float], float | None, int]]] = {True: [], False: []}  # whether searched
        for row in found:
            cell = row.measured["cell"]
            if row.source == source:
                rows[row.row == "committed"].append((cell.accuracies, row.validation, cell.weights))
        if len(rows[True]) < seeds or len(rows[False]) < RANDOM_CELLS:
            continue
        ours, theirs = stacked(rows[True]), stacked(rows[False])
        told = [text for one in (ours, theirs) for text in (_spread(one.accuracies.mean(1)), _range(one.weights))]
        minutes = f"{found[0].minutes:g}"
        lines.append([source, minutes, *told, *compare(ours, theirs).cells(len(theirs.weights))])
    return Table(columns, lines).markdown() + "\n"


def _spread(means: Any) -> str:
    return f"{100 * means.mean():.1f} % ({100 * means.min():.1f} to {100 * means.max():.1f})"


def _range(weights: Any) -> str:
    return f"{int(weights.min()):,} to {int(weights.max()):,}"


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
    parser.add_argument("--so-far", action="store_true", help="run nothing: write the table of what there is")
    parser.add_argument("--row", help="one row, in this process")
    options = parser.parse_args(arguments)
    runs = options.runs / options.study
    runs.mkdir(parents=True, exist_ok=True)
    rows = {row.file(options.minutes, options.tasks): row for row in rows_of(options.study, options.seeds)}
    rows = {file: row for file, row in rows.items() if options.only in file}
    if options.row:
        torch.set_num_threads(1)
        found = run_row(rows[options.row], options.data_root, options.minutes, runs / options.row, options.tasks)
        write_atomically(runs / f"{options.row}.json", (json.dumps(asdict(found)) + "\n").encode())
        return
    words = [sys.executable, "-m", "benchmarks.commitment", options.study, "--data-root", str(options.data_root)]
    words += ["--minutes", str(options.minutes), "--seeds", str(options.seeds), "--tasks", str(options.tasks)]
    words += ["--runs", str(options.runs), "--row"]
    missing = [file for file in rows if not (runs / f"{file}.json").is_file()]
    failed = [] if options.so_far else _run_missing(missing, words, runs, options.jobs)
    found_rows = [read(runs / f"{file}.json") for file in rows if (runs / f"{file}.json").is_file()]
    text = table_of(found_rows)
    if options.study == "random":
        text = f"{summary_of(found_rows, options.seeds)}\n{text}"
    print(text)
    if options.only:
        return
    path = RESULTS / f"commitment-{options.study}"
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps([asdict(row) for row in found_rows]) + "\n", encoding="utf-8")
    if failed:
        sys.exit(f"{len(failed)} of {len(rows)} rows failed: {', '.join(failed)}; see their logs in {runs}")


def _run_missing(files: list[str], words: list[str], runs: Path, jobs: int) -> list[str]:
    """Run the rows of ``files``, ``jobs`` at once; those that failed."""
    begun, failed = time.monotonic(), []

    def one(file: str) -> None:
        with (runs / f"{file}.log").open("w") as log:
            code = subprocess.run([*words, file], stdout=log, stderr=log, check=False).returncode
        if code:
            failed.append(file)
        print(f"{time.monotonic() - begun:7.0f} s  {file}: {'FAILED' if code else 'done'}", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, files))
    return failed


if __name__ == "__main__":
    main()
