"""What bfloat16 costs in accuracy: ``python -m benchmarks.half_width``.

With precision "bf16" activations and products are bfloat16, and parameters, batch statistics, mixing weights, the outer
gradient and its update float32. Two measurements:

- the meta-gradient of workload W1 in each precision, its relative distance from float64's and the cosine between them
  (Euclidean, over all parameters, and over the alphas alone), for several meta-batches;
- the same short search on the built-in glyphs in each precision, from one seed; held-out accuracy on the same tasks,
  with the paired difference from float32.

Nothing is timed. About 15 minutes on one CPU thread, where bfloat16 runs torch's own operators.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.meta_step import inner_loop, setting
from benchmarks.peers.workloads import Episode, random_batch
from benchmarks.rows import RESULTS, percentiles
from metadarts.core.types import Params, is_alpha
from metadarts.meta import evaluate, meta_gradient, meta_step
from metadarts.networks import Learner
from metadarts.stats import interval95
from metadarts.store.files import write_atomically
from metadarts.training import Config, preset, with_settings
from metadarts.training.build import build, held_out
from metadarts.training.environment import describe
from metadarts.training.evaluation import evaluation_inner

NARROW = ("fp32", "bf16")


def gradient(precision: str, seed: int, device: str) -> Params:
    """W1's exact meta-gradient in ``precision``, as float64 on the CPU."""
    dtype = torch.float64 if precision == "fp64" else torch.float32
    network, params, _ = setting(dtype, device)
    batch = random_batch(Episode(), seed).to(device, dtype)
    found = meta_gradient(Learner(network, precision=precision), params, batch, inner_loop("second", 0))
    return {name: tensor.double().cpu() for name, tensor in found.gradients.items()}


def distance(found: Params, truth: Params, alphas: bool) -> tuple[float, float]:
    """(relative distance, cosine) over all parameters, or the alphas alone."""
    names = [name for name in truth if is_alpha(name) or not alphas]
    a, b = (torch.cat([params[name].flatten() for name in names]) for params in (found, truth))
    return float((a - b).norm() / b.norm()), float(a @ b / (a.norm() * b.norm()))


def gradients(batches: int, device: str) -> list[dict[str, Any]]:
    """A line per precision: distances and cosines over ``batches`` meta-batches, p20, p50 and p80."""
    samples: dict[str, list[tuple[tuple[float, float], tuple[float, float]]]] = {name: [] for name in NARROW}
    for seed in range(batches):
        truth = gradient("fp64", seed, device)
        for name in NARROW:
            found = gradient(name, seed, device)
            samples[name].append((distance(found, truth, False), distance(found, truth, True)))
            print(f"meta-batch {seed}, {name}: (distance, cosine) of all, of alphas: {samples[name][-1]}", flush=True)
    return [
        {
            "precision": name,
            **{
                f"{figure}_{part}": percentiles([sample[i][j] for sample in found])
                for i, part in enumerate(("all", "alphas"))
                for j, figure in enumerate(("distance", "cosine"))
            },
        }
        for name, found in samples.items()
    ]


def accuracies(precision: str, steps: int, tasks: int, device: str) -> torch.Tensor:
    """[tasks]: accuracies on held-out validation tasks after a search of ``steps`` meta-steps on the glyphs."""
    settings = {"training.minutes": 0.0, "training.meta_steps": steps, "model.precision": precision}
    config = with_settings(Config(), preset("quick-supernet") | settings).check()
    experiment = build(config, device)
    state = experiment.fresh_state()
    for step in range(steps):
        meta_step(experiment.learner, state, experiment.training_batch(step), config.inner, progress=step / steps)
        if (step + 1) % max(1, steps // 10) == 0:
            print(f"{precision}: {step + 1}/{steps} meta-steps", flush=True)
    # Measured in float32 throughout: what differs is how it was learned.
    learner = replace(experiment.learner, precision="fp32")
    source = held_out(experiment, "val")
    found = evaluate(learner, state.params, source.batch, evaluation_inner(config), tasks=tasks, rates=state.rates)
    return found.accuracies.cpu()


def searches(steps: int, tasks: int, device: str) -> list[dict[str, Any]]:
    """A line per precision, with the paired difference from the first."""
    lines, first = [], None
    for name in NARROW:
        values = accuracies(name, steps, tasks, device)
        first = values if first is None else first
        lines.append(
            {
                "precision": name,
                "accuracy": float(values.mean()),
                "interval95": interval95(values),
                "difference": float((values - first).mean()),
                "difference_interval95": interval95(values - first),
            }
        )
        print(lines[-1], flush=True)
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.half_width",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "half_width.json", help="written anew")
    parser.add_argument("--batches", type=int, default=5, help="meta-batches of the first measurement")
    parser.add_argument("--steps", type=int, default=150, help="meta-steps of each search")
    parser.add_argument("--tasks", type=int, default=600, help="held-out tasks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    found = {
        "asked": {name: value for name, value in vars(options).items() if name != "out"},
        "gradients": gradients(options.batches, options.device),
        "searches": searches(options.steps, options.tasks, options.device),
        "environment": describe(options.device),
    }
    write_atomically(options.out, (json.dumps(found, indent=2) + "\n").encode())
    print(f"figures: {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
