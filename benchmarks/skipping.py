"""Seconds of a meta-gradient of the mixture, of sampled paths (a path of its own for each task) and of one cell.

    python -m benchmarks.skipping --threads 1

W1: T-NAS's network, 4 tasks of 32x32x3, 5-way 5-shot, 15 queries, 5 inner steps, exact order. omniglot: the shapes of
the preset "omniglot-supernet", 2 tasks of 28x28, 20-way 1-shot, 3 queries, one inner step. Of each, the space of the
presets that commit ("pairs": a path draws two inputs for each node) and the plain one ("edges": a path has an
operation, or none, on all 14 edges). The three take turns in one process, each time with other paths and another cell;
before they are timed, a mixture whose weights are those of the paths, computed in full, has the gradients of the paths.
Rows go to benchmarks/results/skipping.csv.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

import torch

from benchmarks.peers.workloads import Episode, random_batch
from benchmarks.rows import RESULTS, Row, append, percentiles
from metadarts.core.rng import Key
from metadarts.inner import InnerLoop
from metadarts.meta import MetaGradient, meta_gradient
from metadarts.networks import Learner, Network, NetworkSpec, supernet
from metadarts.relaxations.paths import Paths
from metadarts.spaces import SearchSpace, darts, random_genotype

WORKLOADS = {
    "W1": (Episode(), InnerLoop(steps=5, weight_rate=0.01, alpha_rate=30.0), "shared"),
    "omniglot": (
        Episode(tasks=2, ways=20, shots=1, queries=3, channels=1, size=28),
        InnerLoop(steps=1, weight_rate=0.1, alpha_rate=10.0),
        "prototype",
    ),
}
SPACES = {"pairs": darts(inputs_by="pairs", none=False), "edges": darts()}
AGREEMENT = 1e-9
TIMED = ("mixture", "sampled paths", "one cell")


@dataclass(frozen=True)
class Thorough(Paths):
    """The same weights, none of which is passed over."""

    zeros_learn: ClassVar[bool] = True

    def weights(self, alpha, at, noise=None):  # type: ignore[no-untyped-def]
        """With a derivative of 0 in alpha, so that every candidate is asked for one."""
        return super().weights(alpha, at, noise) + 0.0 * alpha


def contestants(
    name: str, space: SearchSpace, dtype: torch.dtype, draw: int = 0
) -> dict[str, Callable[[], MetaGradient]]:
    """Who -> one meta-gradient, on the paths and the cell of this draw."""
    episode, inner, head = WORKLOADS[name]
    spec = NetworkSpec(in_channels=episode.channels, head=head)
    network = supernet(space, spec)
    key = Key.from_seed(draw)
    cell = network.discrete(random_genotype(space, key.child("cell")))
    networks = {
        "mixture": network,
        "sampled paths": replace(network, relaxation=Paths()),
        "one cell": cell,
        "paths in full": replace(network, relaxation=Thorough()),
    }

    def prepared(one: Network) -> Callable[[], MetaGradient]:
        learner = Learner(one, bn="transductive")
        params = {key: value.to(dtype) for key, value in one.init(Key.from_seed(1)).items()}
        noise = learner.noise(episode.tasks, inner.steps, key.child("paths"))
        batch = random_batch(episode).to("cpu", dtype).with_noise(noise)
        return lambda: meta_gradient(learner, params, batch, inner)

    return {who: prepared(one) for who, one in networks.items()}


def check(name: str, space: SearchSpace) -> None:
    """Raise AssertionError where skipping changes a gradient."""
    runs = contestants(name, space, torch.float64)
    found, expected = (runs[who]().gradients for who in ("sampled paths", "paths in full"))
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=AGREEMENT, atol=AGREEMENT)


def main() -> None:
    """Time all and print the ratios to the mixture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.skipping", description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name, (title, space) in product(options.workloads, SPACES.items()):
        check(name, space)
        seconds: dict[str, list[float]] = {who: [] for who in TIMED}
        for turn in range(options.repetitions + 1):
            runs = contestants(name, space, torch.float32, turn)
            for who in TIMED:
                begun = time.perf_counter()
                runs[who]()
                if turn:  # the first compiles, and fills caches
                    seconds[who].append(time.perf_counter() - begun)
        rows = []
        for who, own in seconds.items():
            ratios = percentiles([one / base for one, base in zip(own, seconds["mixture"], strict=True)])
            shares = dict(
                zip(("ratio_p20", "ratio_p50", "ratio_p80"), (f"{ratio:.4f}" for ratio in ratios), strict=True)
            )
            print(
                f"{name}, {title}: {who}: {percentiles(own)[1]:.3f} s, of the mixture's {' / '.join(shares.values())}"
            )
            rows.append(Row(name, f"space={title}", who, "second", None, own, None, options.threads, extra=shares))
        append(RESULTS / "skipping.csv", rows)


if __name__ == "__main__":
    main()
