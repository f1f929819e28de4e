"""Meta-steps a second by threads and by how OpenMP's threads wait, on a quiet machine and beside busy loops.

    python -m benchmarks.threads --busy 0 2

A step is one of the preset "quick": of the supernet that it begins with, and of one cell, which it ends with. Every row
is a process of its own; rows take turns. "spin": GOMP_SPINCOUNT, how often a thread that waits looks before it sleeps.
Rows go to benchmarks/results/threads.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.rows import RESULTS, Row, append, percentiles, said

WAITS: dict[str, dict[str, str]] = {
    "torch's own": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    **{f"spin {count}": {"GOMP_SPINCOUNT": str(count)} for count in (1_000, 10_000, 100_000, 1_000_000)},
}
SECONDS = 3.0


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Beside so many processes that never rest."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def measure(network: str, threads: int) -> list[float]:
    """Seconds of each step, in this process."""
    import torch

    from metadarts.core.rng import Key
    from metadarts.meta import meta_step
    from metadarts.spaces import random_genotype
    from metadarts.training import Config, preset, with_settings
    from metadarts.training.build import build

    torch.set_num_threads(threads)
    settings = {**preset("quick"), "tasks.source": "glyphs", "commit.cell": 1.0}
    config = with_settings(Config(), settings)
    if network == "cell":
        cell = random_genotype(config.search_space(), Key.from_seed(0))
        config = with_settings(config, {"model.network": "cell", "model.genotype": str(cell)})
    experiment = build(config.check())
    state = experiment.fresh_state()
    seconds: list[float] = []
    end = time.monotonic() + 3 * SECONDS
    while time.monotonic() < end and sum(seconds[2:]) < SECONDS:
        batch = experiment.training_batch(state.step)
        begun = time.perf_counter()
        meta_step(experiment.learner, state, batch, config.inner, progress=0.0)
        seconds.append(time.perf_counter() - begun)
    return seconds[2:]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=__doc__.splitlines()[0])
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 2], help="busy loops beside it")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--step", nargs=2, help="network and threads: measure in this process")
    options = parser.parse_args()
    if options.step:
        print(json.dumps(measure(options.step[0], int(options.step[1]))))
        return
    cases = [(2, wait) for wait in WAITS] + [(1, "torch's own")]
    found: dict[tuple[int, str, int, str], list[float]] = {}
    for loops in options.busy:
        with busy(loops):
            for _ in range(options.repetitions):
                for network in ("supernet", "cell"):
                    for threads, wait in cases:
                        words = [sys.executable, "-m", "benchmarks.threads", "--step", network, str(threads)]
                        done = subprocess.run(
                            words, env=os.environ | WAITS[wait], capture_output=True, text=True, check=True
                        )
                        own = json.loads(done.stdout.splitlines()[-1])
                        found.setdefault((loops, network, threads, wait), []).extend(own)
                        rate = 1 / percentiles(own)[1]
                        print(f"{loops} loops, {network}, {threads} threads, {wait}: {rate:.2f} steps a second")
    rows = [
        Row("quick", said(network=network, loops=loops), wait, "second", None, own, None, threads)
        for (loops, network, threads, wait), own in found.items()
    ]
    append(RESULTS / "threads.csv", rows)


if __name__ == "__main__":
    main()
