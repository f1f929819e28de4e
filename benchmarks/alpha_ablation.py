"""Does the architecture matter? One run, five ways to use it, paired on the same test tasks.

    python -m benchmarks.alpha_ablation RUN --tasks 600 --json FILE

Full adaptation; inner alpha steps off; alphas uniform (every candidate weighs the same, always); the derived cell's
operations at the weights they had in the mixture; the derived cell, and random cells, as discrete networks with
inherited weights. All take the same number of inner steps from the same checkpoint
on the same episodes, so differences are paired task by task.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metadarts.core.rng import Key
from metadarts.core.types import Params, alphas_of
from metadarts.derive import derive_genotype, genotype_weights
from metadarts.inner import InnerLoop
from metadarts.meta import evaluate
from metadarts.networks import Learner
from metadarts.spaces import Genotype, random_genotype
from metadarts.stats import interval95
from metadarts.training import Experiment, discretised, open_run
from metadarts.training.build import held_out
from metadarts.training.checkpoints import Checkpoint
from metadarts.training.environment import choose_device, describe
from metadarts.training.evaluation import CURVE_TASKS, evaluation_inner, on_device


class Measured(NamedTuple):
    """Query accuracies of every task, and the mean accuracy after 0..K steps on the first `CURVE_TASKS` of them."""

    accuracies: list[float]
    curve: list[float]


@dataclass(frozen=True)
class Variant:
    """One way to use the checkpoint."""

    name: str
    learner: Learner
    params: Params
    inner: InnerLoop
    genotype: Genotype | None = None


def variants(experiment: Experiment, checkpoint: Checkpoint, random_cells: int) -> Iterator[Variant]:
    """All variants, the full adaptation first."""
    learner, params, inner = experiment.learner, checkpoint.params, evaluation_inner(experiment.config)
    still = replace(inner, alpha_rate=0.0)
    space = experiment.network.space
    uniform = {kind: torch.full(space.alpha_shape, 1.0 / space.alpha_shape[1]) for kind in space.cell_types}
    yield Variant("full adaptation", learner, params, inner)
    yield Variant("inner alpha steps off", learner, params, still)
    yield Variant("alphas uniform", replace(learner, weights=uniform), params, still)
    network = experiment.network
    derived = derive_genotype(alphas_of(params), space, network.relaxation)
    chosen, mixed = genotype_weights(derived, space), network.weights_of(params)
    soft = {kind: chosen[kind] * mixed[kind] for kind in chosen}
    yield Variant("derived cell at its mixing weights", replace(learner, weights=soft), params, still, derived)
    yield _discrete("derived cell, inherited weights", experiment, checkpoint, still, derived)
    for number in range(random_cells):
        genotype = random_genotype(space, Key.from_seed(0).child("ablation", number))
        yield _discrete(f"random cell {number}, inherited weights", experiment, checkpoint, still, genotype)


def _discrete(
    name: str, experiment: Experiment, checkpoint: Checkpoint, inner: InnerLoop, genotype: Genotype
) -> Variant:
    own, params = discretised(experiment, checkpoint, genotype)
    return Variant(name, own.learner, params.params, inner, genotype)


def measure(experiment: Experiment, checkpoint: Checkpoint, variant: Variant, tasks: int) -> Measured:
    """``variant`` on the test tasks."""
    result = evaluate(
        variant.learner,
        on_device(experiment, variant.params) or {},
        held_out(experiment, "test").batch,
        variant.inner,
        tasks=tasks,
        rates=on_device(experiment, checkpoint.rates),
        batch_size=experiment.config.evaluate.batch,
        curve_tasks=CURVE_TASKS,
    )
    return Measured(result.accuracies.tolist(), result.curve.mean(1).tolist())


def run(
    experiment: Experiment,
    checkpoint: Checkpoint,
    tasks: int,
    random_cells: int,
    measured: Callable[[list[Variant]], Iterable[Measured]] | None = None,
) -> list[dict[str, Any]]:
    """One row per variant, each with its paired difference from the full adaptation.

    Args:
        measured: the results of a list of variants, in order; by default one after another in this process.
    """
    chosen = list(variants(experiment, checkpoint, random_cells))
    found = measured(chosen) if measured else (measure(experiment, checkpoint, v, tasks) for v in chosen)
    rows: list[dict[str, Any]] = []
    full: Tensor | None = None
    for variant, result in zip(chosen, found, strict=True):
        accuracies = torch.tensor(result.accuracies)
        full = accuracies if full is None else full
        difference = accuracies - full
        rows.append(
            {
                "variant": variant.name,
                "accuracy": float(accuracies.mean()),
                "interval95": interval95(accuracies),
                "paired_difference": float(difference.mean()),
                "paired_interval95": interval95(difference),
                "curve": result.curve,
                "weights": variant.learner.network.count(experiment.config.tasks.ways)[0],
                "genotype": None if variant.genotype is None else str(variant.genotype),
            }
        )
        print(_line(rows[-1]), flush=True)
    return rows


def _opened(options: argparse.Namespace) -> tuple[Experiment, Checkpoint]:
    torch.set_num_threads(options.threads)
    device, settings = choose_device(options.device), {"evaluate.steps": options.steps}
    opened = open_run(options.run, device=device, settings=settings, finished=True)
    return opened.experiment(), opened.checkpoint


def _in_worker(options: argparse.Namespace, number: int) -> Measured:
    """Variant ``number``, in a process of its own."""
    experiment, checkpoint = _opened(options)
    variant = list(variants(experiment, checkpoint, options.random_cells))[number]
    return measure(experiment, checkpoint, variant, options.tasks)


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['variant']:34} {row['accuracy']:7.2%} ± {row['interval95']:.2%}   "
        f"0 steps {row['curve'][0]:.1%}   "
        f"paired {row['paired_difference']:+.2%} ± {row['paired_interval95']:.2%}   {row['weights']:,} weights"
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alpha_ablation", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--random-cells", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--workers", type=int, default=1, help="processes that share the variants")
    options = parser.parse_args(arguments)
    experiment, checkpoint = _opened(options)
    if options.workers == 1:
        rows = run(experiment, checkpoint, options.tasks, options.random_cells)
    else:
        with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:

            def measured(chosen: list[Variant]) -> Iterable[Measured]:
                return pool.map(partial(_in_worker, options), range(len(chosen)))

            rows = run(experiment, checkpoint, options.tasks, options.random_cells, measured)
    facts = {
        "run": options.run.name,
        "tasks": options.tasks,
        "steps": options.steps,
        "bn": experiment.config.model.bn,
        "episodes_sha256": held_out(experiment, "test").sha256(options.tasks),
        "checkpoint_step": checkpoint.facts["step"],
        "environment": describe(experiment.device.type),
        "rows": rows,
    }
    if options.json:
        options.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
