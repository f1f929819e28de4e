"""One meta-gradient on workload W1, our engine beside its peers: ``python -m benchmarks.meta_step``.

W1: the T-NAS supernet (201,181 weights, 224 alphas), 4 tasks, 32x32x3, 5-way 5-shot, 15 queries per class, 5 inner SGD
steps on weights and alphas, gradient of the mean query loss with respect to all of them (no outer update); fp32. Peers
run an idiomatic plain PyTorch network with the same weights on the same tasks, in both memory layouts. Before any
timing, our operators must pass a few cases of their conformance suite, and losses and meta-gradients of all engines are
compared in float64 on W1 itself; a fault or a disagreement ends the benchmark. Every repetition of every engine runs in
a process of its own, and the engines take turns, so that a slow minute of the machine hits them all.

About 45 minutes at 2 threads with both orders, all three peers and 5 repetitions: 8 for each, 4 for the checks. Nearly
all of it is the peers in second order; the first run on a machine compiles kernels for a minute or two besides.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.conformance import conforms
from benchmarks.mapping import pull_back, to_plain
from benchmarks.peers.loops import LOOPS, MetaStep
from benchmarks.peers.network import SearchNetwork
from benchmarks.peers.process import run_isolated
from benchmarks.peers.workloads import Episode, random_batch
from benchmarks.rows import RESULTS, Row, append, percentiles, said
from metadarts.adapt import InnerLoop
from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch
from metadarts.experiments.environment import version
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
CHECKPOINTS = {"second": (0, 2, 4, STEPS), "first": (0,)}


Case = tuple[str, str, int]
"""(engine, order, inner steps recomputed)."""
Samples = dict[Case, list[dict[str, Any]]]
"""What `run_isolated` answered, in the order of the repetitions."""


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
    if not conforms(options.device, options.threads):
        return 1
    if options.check and not _agree(peers, options):
        return 1
    samples = _sampled(_cases(peers, options.orders), options)
    report(samples, options.device)
    append(options.out, [_row(case, measured, options) for case, measured in samples.items()])
    print(f"rows: {options.out}")
    return 0


def _agree(peers: list[str], options: argparse.Namespace) -> bool:
    """Compare all engines in float64 and print the disagreements; whether all are small."""
    kwargs = {"peers": peers, "orders": options.orders, "device": options.device}
    found = run_isolated("benchmarks.meta_step:check", kwargs, warmups=0, threads=options.threads)["result"]
    for name, value in found.items():
        print(f"float64 agreement with {name}: {value:.1e}", flush=True)
    agree = bool(max(found.values()) <= AGREEMENT)  # not so of NaN
    if not agree:
        print(f"engines disagree by more than {AGREEMENT}: nothing was timed", file=sys.stderr)
    return agree


def _cases(peers: list[str], orders: list[str]) -> list[Case]:
    layouts = [name + suffix for name in peers for suffix in ("", CHANNELS_LAST)]
    ours = [(OURS, order, k) for order in orders for k in CHECKPOINTS[order]]
    return ours + [(name, order, 0) for order in orders for name in layouts]


def _sampled(cases: list[Case], options: argparse.Namespace) -> Samples:
    """Every case once, then every case once more, and so on."""
    samples: Samples = {case: [] for case in cases}
    for repetition in range(options.repetitions):
        for case in cases:
            samples[case].append(measure(*case, options.threads, options.device))
            last = samples[case][-1]
            print(f"{repetition + 1}/{options.repetitions} {case}: {last['seconds'][0]:.2f} s", flush=True)
    return samples


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.meta_step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "meta_step.csv", help="the rows are added there")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--orders", nargs="+", choices=("second", "first"), default=["second", "first"])
    parser.add_argument(
        "--no-check", dest="check", action="store_false", help="skip the float64 comparison (debugging)"
    )
    return parser.parse_args(arguments)


def _row(case: Case, samples: list[dict[str, Any]], options: argparse.Namespace) -> Row:
    engine, order, checkpoint = case
    weights = supernet(darts(), NetworkSpec(in_channels=3)).count(Episode().ways)[0]
    return Row(
        what="W1",
        sizes=said(**vars(Episode()), steps=STEPS, weights=weights, bn="transductive"),
        engine=engine,
        order=order,
        checkpoint=checkpoint,
        seconds=[_seconds(sample) for sample in samples],
        peak_mb=_peak(samples, options.device),
        threads=options.threads,
        device=options.device,
        extra={
            "memory": "allocated on the card" if options.device == "cuda" else "resident, whole process",
            "loss": samples[-1]["result"],
        },
    )


def _seconds(sample: dict[str, Any]) -> float:
    return float(sample["seconds"][0])


def _peak(samples: list[dict[str, Any]], device: str) -> float:
    return float(max(sample["cuda_peak_mb" if device == "cuda" else "peak_mb"] for sample in samples))


def report(samples: Samples, device: str) -> None:
    """Two tables: seconds and memory of every case, then how our engine compares with every peer.

    Memory is compared with `higher` in its default layout. Speed is compared with each peer's faster layout (by its
    median), repetition by repetition, since the two of a repetition ran within the same minute.
    """
    print(f"{'engine':30} order  recomputed  p20 / p50 / p80 s        peak MB  memory vs higher")
    for (engine, order, checkpoint), measured in samples.items():
        times = "{:6.2f} {:6.2f} {:6.2f}".format(*percentiles([_seconds(sample) for sample in measured]))
        peak, oracle = _peak(measured, device), samples.get(("higher", order, 0))
        memory = f"{peak / _peak(oracle, device):16.2f}x" if oracle else ""
        print(f"{engine:30} {order:6} {checkpoint:10} {times:>19} {peak:14.0f} {memory}")
    print("\ntimes faster than each peer's faster layout, repetition by repetition: p20 / p50 / p80")
    for own in (case for case in samples if case[0] == OURS):
        for name in PEERS:
            layouts = [case for case in samples if case[0] in (name, name + CHANNELS_LAST) and case[1] == own[1]]
            if layouts:
                fastest = min(layouts, key=lambda case: percentiles([_seconds(s) for s in samples[case]])[1])
                ratios = "{:.2f}x {:.2f}x {:.2f}x".format(*speed(samples[own], samples[fastest]))
                print(f"  {own[1]}, {own[2]} recomputed, vs {fastest[0]}: {ratios}")


def speed(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> tuple[float, float, float]:
    """p20, p50 and p80 of their seconds over ours, repetition by repetition."""
    return percentiles([_seconds(b) / _seconds(a) for a, b in zip(ours, theirs, strict=True)])


if __name__ == "__main__":
    raise SystemExit(main())
