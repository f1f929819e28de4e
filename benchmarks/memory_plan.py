"""Predicted against measured peak memory of a meta-gradient: ``python -m benchmarks.memory_plan``.

Each configuration runs in a process of its own, with one thread: it predicts first, as a search does, then takes two
meta-gradients; the system says what the process's resident memory peaked at. Rows go to results/memory_plan.csv. Exit
code 1 when a prediction is off by more than 20 %, or when 20 inner steps, all recomputed, take more than 1.5 times
what 5 take.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers.process import run_isolated
from benchmarks.peers.workloads import Episode, random_batch
from metadarts.core.machine import commit, device_name, version
from metadarts.core.rng import Key
from metadarts.inner import InnerLoop
from metadarts.meta import meta_gradient
from metadarts.networks import Learner, NetworkSpec, supernet
from metadarts.spaces import darts
from metadarts.training.footprint import footprint

RESULTS = Path(__file__).resolve().parent / "results" / "memory_plan.csv"
COLUMNS = ("configuration", "predicted_mb", "measured_mb", "error_percent", "device", "versions", "commit", "date")
MOST_ERROR = 20.0
MOST_GROWTH = 1.5
MB = 1e6

CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {"tasks": 1, "steps": 1},
    {"tasks": 4, "steps": 5},
    {"tasks": 4, "steps": 5, "recomputed": 3},
    {"tasks": 4, "steps": 5, "recomputed": 5},
    {"tasks": 4, "steps": 20, "recomputed": 20},
    {"tasks": 4, "steps": 5, "order": "first"},
    {"tasks": 16, "steps": 3, "channels": 8},
    {"tasks": 2, "steps": 3, "channels": 32, "recomputed": 1},
    {"tasks": 8, "steps": 2, "micro_batch": 3},
    {"tasks": 16, "steps": 10, "order": "first", "size": 28, "image_channels": 1},
)
GROWTH = (CONFIGURATIONS[3], CONFIGURATIONS[4])


def meta_step(
    tasks: int,
    steps: int,
    order: str = "second",
    recomputed: int = 0,
    channels: int = 16,
    micro_batch: int = 0,
    size: int = 32,
    image_channels: int = 3,
) -> Callable[[], dict[str, float]]:
    """Workload: one meta-gradient on random 5-way 5-shot tasks; returns the peak that was predicted before, in MB."""
    learner = Learner(supernet(darts(), NetworkSpec(in_channels=image_channels, channels=channels)))
    params = learner.network.init(Key.from_seed(0))
    inner = InnerLoop(steps, "sgd", 0.01, 30.0, order=order, checkpoint=recomputed)
    first = random_batch(Episode(tasks=1, channels=image_channels, size=size))
    begun = time.perf_counter()
    found = footprint(learner, params, first, inner, recompute=recomputed > 0)
    seconds = time.perf_counter() - begun
    predicted = found.peak(tasks, micro_batch or tasks, steps, recomputed)
    batch = random_batch(Episode(tasks=tasks, channels=image_channels, size=size))

    def run() -> dict[str, float]:
        meta_gradient(learner, params, batch, inner, micro_batch=micro_batch or None)
        return {"predicted_mb": predicted / MB, "base_mb": found.base / MB, "seconds": seconds}

    return run


def measure(configuration: dict[str, Any]) -> dict[str, Any]:
    """One row."""
    found = run_isolated("benchmarks.memory_plan:meta_step", configuration, warmups=1, repetitions=1, threads=1)
    predicted, measured = found["result"]["predicted_mb"], found["peak_mb"]
    error = 100.0 * (predicted - measured) / measured
    name = " ".join(f"{key}={value}" for key, value in configuration.items())
    print(
        f"{name:60} predicted {predicted:7.0f} MB  measured {measured:7.0f} MB  {error:+6.1f} %  "
        f"(base {found['result']['base_mb']:.0f} MB, probe {found['result']['seconds']:.1f} s)",
        flush=True,
    )
    versions = " ".join(f"{package}={version(package)}" for package in ("torch", "numpy", "numba"))
    facts = (device_name("cpu"), versions, commit(), time.strftime("%Y-%m-%d"))
    row = (name, round(predicted, 1), round(measured, 1), round(error, 1), *facts)
    return dict(zip(COLUMNS, row, strict=True))


def append(row: dict[str, Any], path: Path) -> None:
    """Add ``row`` to the table, with its head when it is new."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, append, judge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory_plan", description=__doc__)
    parser.add_argument("--csv", type=Path, default=RESULTS, help="append the rows there")
    options = parser.parse_args(arguments)
    rows = []
    for configuration in CONFIGURATIONS:
        rows.append(measure(configuration))
        append(rows[-1], options.csv)
    few, many = (rows[CONFIGURATIONS.index(configuration)]["measured_mb"] for configuration in GROWTH)
    worst = max(abs(row["error_percent"]) for row in rows)
    print(f"largest error: {worst:.1f} % (limit {MOST_ERROR:.0f} %)")
    print(f"20 inner steps take {many / few:.2f} times the memory of 5, all recomputed (limit {MOST_GROWTH})")
    return 0 if worst <= MOST_ERROR and many / few <= MOST_GROWTH else 1


if __name__ == "__main__":
    raise SystemExit(main())
