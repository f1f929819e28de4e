"""One meta-gradient on workload W1, our engine beside its peers: ``python -m benchmarks.meta_step --json FILE``.

W1: the T-NAS supernet (201,181 weights, 224 alphas), 4 tasks, 32x32x3, 5-way 5-shot, 15 queries per class, 5 inner SGD
steps on weights and alphas, gradient of the mean query loss with respect to all of them (no outer update); fp32. Peers
run an idiomatic plain PyTorch network with the same weights on the same tasks, in both memory layouts. Before any
timing, losses and meta-gradients of all engines are compared in float64 on W1 itself; a disagreement ends the
benchmark. Every repetition of every engine runs in a process of its own, and the engines take turns, so that a slow
minute of the machine hits them all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.mapping import pull_back, to_plain
from benchmarks.peers.loops import LOOPS, MetaStep
from benchmarks.peers.network import SearchNetwork
from benchmarks.peers.process import run_isolated
from benchmarks.peers.workloads import Episode, random_batch
from metadarts.adapt import InnerLoop
from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch
from metadarts.experiments.environment import commit, device_name, version
from metadarts.meta import MetaGradient, meta_gradient
from metadarts.nn import Learner, Network, NetworkSpec, supernet
from metadarts.spaces import darts

STEPS = 5
WEIGHT_RATE, ALPHA_RATE = 0.01, 30.0
AGREEMENT = 1e-9
OURS = "task_axis"
PEERS = ("higher", "functional_call", "learn2learn")
CHANNELS_LAST = "-channels_last"
"""Peers run in torch's default layout, as their users write them, and with this suffix in the layout that is faster."""
CHECKPOINTS = {"second": (0, 3, STEPS), "first": (0,)}


@dataclass(frozen=True)
class Row:
    """One engine on one workload."""

    workload: str
    engine: str
    order: str
    checkpoint: int
    seconds_p20: float
    seconds_p50: float
    seconds_p80: float
    repetitions: int
    peak_mb: float
    memory: str
    weights: int
    bn: str
    loss: float
    threads: int
    device: str
    versions: dict[str, str | None]
    commit: str | None


def setting(dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Network, Params, TaskBatch]:
    """Network, shared parameters and tasks of W1, the same in every process."""
    network = supernet(darts(), NetworkSpec(in_channels=3))
    params = {name: tensor.to(device, dtype) for name, tensor in network.init(Key.from_seed(0)).items()}
    return network, params, random_batch(Episode()).to(device, dtype)


def inner_loop(order: str, checkpoint: int) -> InnerLoop:
    """The inner loop of W1."""
    return InnerLoop(STEPS, "sgd", WEIGHT_RATE, ALPHA_RATE, order=order, checkpoint=checkpoint)


def ours(order: str, checkpoint: int, device: str) -> Callable[[], float]:
    """Workload: one meta-gradient by our engine; returns the mean query loss."""
    network, params, batch = setting(device=device)
    learner, inner = Learner(network), inner_loop(order, checkpoint)

    def run() -> float:
        return float(meta_gradient(learner, params, batch, inner).losses.mean())

    return run


def peer(name: str, order: str, device: str) -> Callable[[], float]:
    """Workload: one meta-gradient by a peer; returns the mean query loss."""
    network, params, batch = setting(device=device)
    plain = plain_network(network, params)
    if name.endswith(CHANNELS_LAST):
        plain, batch = plain.to(memory_format=torch.channels_last), channels_last(batch)

    def run() -> float:
        return peer_step(name.removesuffix(CHANNELS_LAST), plain, batch, order).loss

    return run


def channels_last(batch: TaskBatch) -> TaskBatch:
    """The same tasks, each task's images in channels-last memory."""

    def laid_out(images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)

    support, query = laid_out(batch.support_images), laid_out(batch.query_images)
    return TaskBatch(
        support, batch.support_labels, batch.support_mask, query, batch.query_labels, batch.query_mask, batch.ways
    )


def peer_step(name: str, plain: SearchNetwork, batch: TaskBatch, order: str) -> MetaStep:
    """One meta-gradient of W1 by peer ``name``."""
    exact = order == "second"
    return LOOPS[name](plain, batch, steps=STEPS, weight_rate=WEIGHT_RATE, alpha_rate=ALPHA_RATE, exact=exact)


def plain_network(network: Network, params: Params) -> SearchNetwork:
    """The plain network holding our weights."""
    plain = SearchNetwork(network.spec.in_channels, Episode().ways)
    tensor = next(iter(params.values()))
    plain.to(tensor.device, tensor.dtype)
    plain.load_state_dict(to_plain(network, params, Episode().ways))
    return plain


def check(peers: list[str], orders: list[str], device: str) -> Callable[[], dict[str, float]]:
    """Workload: the largest disagreement of each peer with our engine, float64, on W1 itself.

    Returns:
        "peer order" -> the larger of the losses' relative difference and the gradients' relative distance (Euclidean,
        over all parameters).
    """
    network, params, batch = setting(torch.float64, device)
    learner = Learner(network, precision="fp64")

    def run() -> dict[str, float]:
        found = {}
        for order in orders:
            results = [meta_gradient(learner, params, batch, inner_loop(order, k)) for k in CHECKPOINTS[order]]
            for name in peers:
                found[f"{name} {order}"] = max(_disagreements(network, params, batch, results, name, order))
        return found

    return run


def _disagreements(
    network: Network, params: Params, batch: TaskBatch, results: list[MetaGradient], name: str, order: str
) -> list[float]:
    step = peer_step(name, plain_network(network, params), batch, order)
    theirs = pull_back(network, params, batch.ways, step.gradients)
    return [_distance(result, step.loss, theirs) for result in results]


def _distance(result: MetaGradient, loss: float, gradients: Params) -> float:
    ours = float(result.losses.mean())
    square = sum(float((gradients[n] - g).square().sum()) for n, g in result.gradients.items())
    norm = sum(float(g.square().sum()) for g in result.gradients.values())
    return float(max(abs(loss - ours) / abs(ours), (square / norm) ** 0.5))


def measure(engine: str, order: str, checkpoint: int, threads: int, device: str) -> dict[str, Any]:
    """One repetition in a fresh process, after one warm-up call."""
    if engine == OURS:
        kwargs: dict[str, Any] = {"order": order, "checkpoint": checkpoint, "device": device}
        return run_isolated("benchmarks.meta_step:ours", kwargs, threads=threads)
    return run_isolated(
        "benchmarks.meta_step:peer", {"name": engine, "order": order, "device": device}, threads=threads
    )


def main(arguments: list[str] | None = None) -> int:
    """Check, measure, print, write."""
    options = _options(arguments)
    peers = [name for name in PEERS if version(name) or name == "functional_call"]
    for name in sorted(set(PEERS) - set(peers)):
        print(f"{name}: skipped, not installed")
    if options.check:
        kwargs = {"peers": peers, "orders": options.orders, "device": options.device}
        found = run_isolated("benchmarks.meta_step:check", kwargs, warmups=0, threads=options.threads)["result"]
        for name, value in found.items():
            print(f"float64 agreement with {name}: {value:.1e}", flush=True)
        if max(found.values()) > AGREEMENT:
            print(f"engines disagree by more than {AGREEMENT}: nothing was timed", file=sys.stderr)
            return 1
    cases = [(OURS, order, k) for order in options.orders for k in CHECKPOINTS[order]]
    layouts = [name + suffix for name in peers for suffix in ("", CHANNELS_LAST)]
    cases += [(name, order, 0) for order in options.orders for name in layouts]
    samples: dict[tuple[str, str, int], list[dict[str, Any]]] = {case: [] for case in cases}
    for repetition in range(options.repetitions):
        for case in cases:
            samples[case].append(measure(*case, options.threads, options.device))
            last = samples[case][-1]
            print(f"{repetition + 1}/{options.repetitions} {case}: {last['seconds'][0]:.2f} s", flush=True)
    rows = [_row(case, measured, options) for case, measured in samples.items()]
    report(rows)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.meta_step", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--orders", nargs="+", choices=("second", "first"), default=["second", "first"])
    parser.add_argument(
        "--no-check", dest="check", action="store_false", help="skip the float64 comparison (debugging)"
    )
    return parser.parse_args(arguments)


def _row(case: tuple[str, str, int], samples: list[dict[str, Any]], options: argparse.Namespace) -> Row:
    engine, order, checkpoint = case
    seconds = sorted(sample["seconds"][0] for sample in samples)
    cuts = statistics.quantiles(seconds, n=10, method="inclusive") if len(seconds) > 1 else seconds * 9
    network = supernet(darts(), NetworkSpec(in_channels=3))
    memory = "cuda_peak_mb" if options.device == "cuda" else "peak_mb"
    return Row(
        workload="W1",
        engine=engine,
        order=order,
        checkpoint=checkpoint,
        seconds_p20=round(cuts[1], 4),
        seconds_p50=round(cuts[4], 4),
        seconds_p80=round(cuts[7], 4),
        repetitions=len(seconds),
        peak_mb=round(max(sample[memory] for sample in samples), 1),
        memory="allocated on the card" if memory == "cuda_peak_mb" else "resident, whole process",
        bn="transductive",
        weights=network.count(Episode().ways)[0],
        loss=samples[-1]["result"],
        threads=options.threads,
        device=device_name(options.device),
        versions={name: version(name) for name in ("torch", "higher", "learn2learn", "numpy")},
        commit=commit(),
    )


def report(rows: list[Row]) -> None:
    """A table with ratios to `higher`: speed against its faster layout, memory against its default one."""
    print(f"{'engine':29} order   checkpointed  p20 / p50 / p80 s       peak MB   speed vs higher  memory vs higher")
    for row in rows:
        same = [r for r in rows if r.engine.startswith("higher") and r.order == row.order]
        fastest = min((r.seconds_p50 for r in same), default=row.seconds_p50)
        ratio = f"{fastest / row.seconds_p50:6.2f}x  {row.peak_mb / same[0].peak_mb:14.2f}x" if same else ""
        times = f"{row.seconds_p20:6.2f} {row.seconds_p50:6.2f} {row.seconds_p80:6.2f}"
        print(f"{row.engine:29} {row.order:7} {row.checkpoint:12} {times:>24} {row.peak_mb:10.0f} {ratio:>20}")


if __name__ == "__main__":
    raise SystemExit(main())
