"""One meta-gradient on workload W1, our engine beside its peers: ``python -m benchmarks.meta_step``.

W1: the T-NAS supernet (201,181 weights, 224 alphas), 4 tasks, 32x32x3, 5-way 5-shot, 15 queries per class, 5 inner SGD
steps on weights and alphas, gradient of the mean query loss with respect to all of them (no outer update); fp32. Peers
run an idiomatic plain PyTorch network with the same weights on the same tasks, in both memory layouts. Before any
timing, our operators must pass a few cases of their conformance suite, and losses and meta-gradients of all engines are
compared in float64 on W1 itself; a fault or a disagreement ends the benchmark. Every repetition of every engine runs in
a process of its own, and the engines take turns, so that a slow minute of the machine hits them all.

About 45 minutes at 2 threads with both orders, all three peers and 5 repetitions: 8 for each, 4 for the checks. Nearly
all of it is the peers in second order; the first run on a machine compiles kernels for a minute or two besides.

With ``--device cuda`` our engine runs in four ways: recorded once and replayed, in float32 and in bfloat16, and kernel
by kernel, with our operators and with torch's ("folded"). A replay ends with the outer update and with reading its
report, which nobody else does: that makes it slower, never faster. Outer rates are zero, so that all time the same
step. Every process times several calls after warm-ups and waits for the card before and after each. TensorFloat-32 is
off for everyone, or on for everyone (``--tf32``). How far each precision's meta-gradient is from float64's stands in
its row. ``--tasks 4 64``: our replay with so many tasks too, and what they take beside 4.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import rehearsal
from benchmarks.conformance import conforms
from benchmarks.machine import StandIn, recorder, wait
from benchmarks.mapping import pull_back, to_plain
from benchmarks.peers.loops import LOOPS, MetaStep
from benchmarks.peers.network import SearchNetwork
from benchmarks.peers.process import run_isolated
from benchmarks.peers.workloads import Episode, random_batch
from benchmarks.rows import RESULTS, Row, append, percentiles, said
from metadarts.core.machine import allow_tf32, version
from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch
from metadarts.inner import InnerLoop
from metadarts.meta import CapturedStep, MetaGradient, MetaState, OuterLoop, meta_gradient
from metadarts.networks import Learner, Network, NetworkSpec, supernet
from metadarts.ops import implementation
from metadarts.spaces import darts

STEPS = 5
WEIGHT_RATE, ALPHA_RATE = 0.01, 30.0
AGREEMENT = 1e-9
OURS = "batched"
REPLAYED, BF16, FOLDED = "batched-replayed", "batched-replayed-bf16", "batched-folded"
OURS_ON_A_GPU = (REPLAYED, BF16, OURS, FOLDED)
PEERS = ("higher", "functional_call", "learn2learn")
CHANNELS_LAST = "-channels_last"
"""Peers run in torch's default layout, as their users write them, and with this suffix in the layout that is faster."""
CHECKPOINTS = {"second": (0, 2, 4, STEPS), "first": (0,)}


SMALL = Episode(tasks=1, shots=1, queries=1, size=16)
TINY = Episode(tasks=1, ways=2, shots=1, queries=1, size=8)


class Case(NamedTuple):
    """Who runs, to which order, with how many inner steps recomputed, on how many tasks."""

    engine: str
    order: str
    checkpoint: int = 0
    tasks: int = Episode.tasks


Samples = dict[Case, list[dict[str, Any]]]
"""What `run_isolated` answered, in the order of the repetitions."""


def setting(
    dtype: torch.dtype = torch.float32, device: str = "cpu", tasks: int = Episode.tasks, small: bool = False
) -> tuple[Network, Params, TaskBatch]:
    """Network, shared parameters and tasks of W1, the same in every process; ``small``: one tiny task for it."""
    network = supernet(darts(), NetworkSpec(in_channels=3))
    params = {name: tensor.to(device, dtype) for name, tensor in network.init(Key.from_seed(0)).items()}
    episode = replace(SMALL if small else Episode(), tasks=tasks)
    return network, params, random_batch(episode).to(device, dtype)


def tiny_setting() -> tuple[Network, Params, TaskBatch]:
    """For a rehearsal of our own engines: a network of one node, two channels and 8x8 images."""
    network = supernet(darts(nodes=1), NetworkSpec(in_channels=3, stem=(2, 4), channels=2))
    return network, network.init(Key.from_seed(0)), random_batch(TINY)


def inner_loop(order: str, checkpoint: int, small: bool = False) -> InnerLoop:
    """The inner loop of W1; ``small``: of one step."""
    return InnerLoop(1 if small else STEPS, "sgd", WEIGHT_RATE, ALPHA_RATE, order=order, checkpoint=checkpoint)


def ours(
    order: str,
    checkpoint: int,
    device: str,
    engine: str = OURS,
    tasks: int = Episode.tasks,
    tf32: bool = False,
    small: bool = False,
) -> Callable[[], float]:
    """Workload: one meta-gradient by our engine, replayed with the update that ends it where the engine's name says so;
    returns the mean query loss.
    """
    allow_tf32(tf32)
    network, params, batch = tiny_setting() if small else setting(device=device, tasks=tasks)
    learner = Learner(network, precision="bf16" if engine == BF16 else "fp32")
    inner = inner_loop(order, checkpoint, small)
    if engine in (REPLAYED, BF16):
        return _replayed(learner, params, batch, inner, device)

    def run() -> float:
        with by_operators(engine):
            loss = float(meta_gradient(learner, params, batch, inner).losses.mean())
        wait(device)
        return loss

    return run


@contextmanager
def by_operators(engine: str) -> Iterator[None]:
    """Within the block operators run as the engine's name says."""
    if engine == FOLDED:
        with implementation("folded"):
            yield
    else:
        yield


def _replayed(learner: Learner, params: Params, batch: TaskBatch, inner: InnerLoop, device: str) -> Callable[[], float]:
    """The whole step as `metadarts search` takes it; the first call warms up, the second records."""
    state = MetaState.create(params, [], inner, OuterLoop(weight_rate=0.0, alpha_rate=0.0), on_device=True)
    how, calls = recorder(device), 0
    step = CapturedStep(learner, state, inner, recorder=how)

    def run() -> float:
        nonlocal calls
        calls += 1
        found, _ = step(batch)
        wait(device)
        if calls > 1 and not step.is_recorded:
            raise RuntimeError("the meta-step could not be recorded; what was logged above says why")
        if isinstance(how, StandIn) and calls == 2:
            print(f"{len(how.operations)} operations would be recorded", flush=True)
            if how.host:
                raise RuntimeError(f"these cannot be recorded: {', '.join(sorted(set(how.host)))}")
        return float(found.losses.mean())

    return run


def peer(name: str, order: str, device: str, tf32: bool = False, small: bool = False) -> Callable[[], float]:
    """Workload: one meta-gradient by a peer; returns the mean query loss."""
    allow_tf32(tf32)
    network, params, batch = setting(device=device, **_small(small))
    plain = plain_network(network, params, batch.ways)
    if name.endswith(CHANNELS_LAST):
        plain, batch = plain.to(memory_format=torch.channels_last), channels_last(batch)

    def run() -> float:
        loss = peer_step(name.removesuffix(CHANNELS_LAST), plain, batch, order, small).loss
        wait(device)
        return loss

    return run


def _small(small: bool) -> dict[str, Any]:
    return {"small": True, "tasks": SMALL.tasks} if small else {}


def channels_last(batch: TaskBatch) -> TaskBatch:
    """The same tasks, each task's images in channels-last memory."""

    def laid_out(images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)

    support, query = laid_out(batch.support_images), laid_out(batch.query_images)
    return replace(batch, support_images=support, query_images=query)


def peer_step(name: str, plain: SearchNetwork, batch: TaskBatch, order: str, small: bool = False) -> MetaStep:
    """One meta-gradient of W1 by peer ``name``."""
    steps, exact = 1 if small else STEPS, order == "second"
    return LOOPS[name](plain, batch, steps=steps, weight_rate=WEIGHT_RATE, alpha_rate=ALPHA_RATE, exact=exact)


def plain_network(network: Network, params: Params, ways: int) -> SearchNetwork:
    """The plain network holding our weights."""
    plain = SearchNetwork(network.spec.in_channels, ways)
    tensor = next(iter(params.values()))
    plain.to(tensor.device, tensor.dtype)
    plain.load_state_dict(to_plain(network, params, ways))
    return plain


def check(peers: list[str], orders: list[str], device: str, small: bool = False) -> Callable[[], dict[str, float]]:
    """Workload: the largest disagreement of each peer with our engine, float64, on W1 itself.

    Returns:
        "peer order" -> the larger of the losses' relative difference and the gradients' relative distance (Euclidean,
        over all parameters).
    """
    network, params, batch = setting(torch.float64, device, **_small(small))
    learner = Learner(network, precision="fp64")

    def run() -> dict[str, float]:
        found = {}
        for order in orders:
            with by_operators(FOLDED if small else OURS):  # the interpreter would take minutes
                inners = [inner_loop(order, k, small) for k in CHECKPOINTS[order][: 1 if small else None]]
                results = [meta_gradient(learner, params, batch, inner) for inner in inners]
            for name in peers:
                found[f"{name} {order}"] = max(_disagreements(network, params, batch, results, name, order, small))
        return found

    return run


def _disagreements(
    network: Network,
    params: Params,
    batch: TaskBatch,
    results: list[MetaGradient],
    name: str,
    order: str,
    small: bool,
) -> list[float]:
    step = peer_step(name, plain_network(network, params, batch.ways), batch, order, small)
    theirs = pull_back(network, params, batch.ways, step.gradients)
    return [_distance(result, step.loss, theirs) for result in results]


def _distance(result: MetaGradient, loss: float, gradients: Params) -> float:
    ours = float(result.losses.mean())
    square = sum(float((gradients[n] - g).square().sum()) for n, g in result.gradients.items())
    norm = sum(float(g.square().sum()) for g in result.gradients.values())
    return float(max(abs(loss - ours) / abs(ours), (square / norm) ** 0.5))


PRECISIONS = {"fp32": ("fp32", False), "tf32": ("fp32", True), "bf16": ("bf16", False)}
"""Name in a row -> the learner's precision, and whether TensorFloat-32 is on."""


def accuracy(orders: list[str], device: str, small: bool = False) -> Callable[[], dict[str, float]]:
    """Workload: "precision order" -> relative distance (Euclidean, over all parameters) of our meta-gradient of W1 in
    that precision from that in float64.
    """

    def gradients(order: str, precision: str, tf32: bool) -> Params:
        allow_tf32(tf32)
        network, params, batch = tiny_setting() if small else setting(device=device)
        dtype = torch.float64 if precision == "fp64" else torch.float32
        there = {name: tensor.to(dtype) for name, tensor in params.items()}
        learner, inner = Learner(network, precision=precision), inner_loop(order, 0, small)
        return meta_gradient(learner, there, batch.to(device, dtype), inner).gradients

    def run() -> dict[str, float]:
        found = {}
        for order in orders:
            truth = gradients(order, "fp64", False)
            norm = sum(float(g.square().sum()) for g in truth.values())
            for name, (precision, tf32) in PRECISIONS.items():
                near = gradients(order, precision, tf32)
                square = sum(float((near[n].double() - g).square().sum()) for n, g in truth.items())
                found[f"{name} {order}"] = (square / norm) ** 0.5
        return found

    return run


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """One repetition: a fresh process, some calls to warm up, one timed call on a CPU and several on a card."""
    kwargs: dict[str, Any] = {"order": case.order, "device": options.device}
    kwargs |= {"tf32": True} if options.tf32 else {}
    kwargs |= {"small": True} if options.rehearse else {}
    own = case.engine.startswith(OURS)
    if own:
        kwargs |= {"checkpoint": case.checkpoint, "engine": case.engine, "tasks": case.tasks}
    else:
        kwargs |= {"name": case.engine}
    counts = {"repetitions": 1, "warmups": 1}
    if options.device == "cuda":
        counts = {"repetitions": 20 if own else 3, "warmups": 4 if own else 2}
    elif options.rehearse:
        counts = {"repetitions": 1, "warmups": 2 if own else 0}
    run = rehearsal.runner(options.rehearse, run_isolated)
    return run(f"benchmarks.meta_step:{'ours' if own else 'peer'}", kwargs, threads=options.threads, **counts)


def main(arguments: list[str] | None = None) -> int:
    """Check, measure, print, write."""
    options = _options(arguments)
    rehearsal.check_options(options)
    peers = [name for name in options.peers if version(name) or name == "functional_call"]
    for name in sorted(set(options.peers) - set(peers)):
        print(f"{name}: skipped, not installed")
    asked = options.rehearse or options.conformed
    if not asked and not conforms(options.device, options.threads):
        return 1
    if options.check and peers and not _agree(peers, options):
        return 1
    distances = _distances(options) if options.gpu and options.check else {}
    samples = _sampled(_cases(peers, options), options)
    report(samples, options.device)
    append(options.out, [_row(case, measured, options, distances) for case, measured in samples.items()])
    print(f"rows: {options.out}")
    return 0


def _distances(options: argparse.Namespace) -> dict[str, float]:
    """What each precision costs in accuracy, printed."""
    kwargs: dict[str, Any] = {"orders": options.orders, "device": options.device}
    kwargs |= {"small": True} if options.rehearse else {}
    run = rehearsal.runner(options.rehearse, run_isolated)
    found: dict[str, float] = run("benchmarks.meta_step:accuracy", kwargs, warmups=0, threads=options.threads)["result"]
    for name, value in found.items():
        print(f"distance of the meta-gradient from float64's, {name}: {value:.1e}", flush=True)
    return found


def _agree(peers: list[str], options: argparse.Namespace) -> bool:
    """Compare all engines in float64 and print the disagreements; whether all are small."""
    kwargs = {"peers": peers, "orders": options.orders, "device": options.device}
    kwargs |= {"small": True} if options.rehearse else {}
    run = rehearsal.runner(options.rehearse, run_isolated)
    found = run("benchmarks.meta_step:check", kwargs, warmups=0, threads=options.threads)["result"]
    for name, value in found.items():
        print(f"float64 agreement with {name}: {value:.1e}", flush=True)
    agree = bool(max(found.values()) <= AGREEMENT)  # not so of NaN
    if not agree:
        print(f"engines disagree by more than {AGREEMENT}: nothing was timed", file=sys.stderr)
    return agree


def _cases(peers: list[str], options: argparse.Namespace) -> list[Case]:
    layouts = [name + suffix for name in peers for suffix in ("", CHANNELS_LAST)]
    if options.gpu:
        more = [tasks for tasks in options.tasks if tasks != Episode.tasks]
        ours = [Case(engine, order) for order in options.orders for engine in OURS_ON_A_GPU]
        ours += [Case(REPLAYED, order, 0, tasks) for order in options.orders for tasks in more]
    else:
        ours = [Case(OURS, order, k) for order in options.orders for k in CHECKPOINTS[order]]
    return ours + [Case(name, order) for order in options.orders for name in layouts]


def _sampled(cases: list[Case], options: argparse.Namespace) -> Samples:
    """Every case once, then every case once more, and so on, as far as ``--seconds`` allow whole rounds."""
    samples: Samples = {case: [] for case in cases}
    start = time.monotonic()
    for repetition in range(options.repetitions):
        spent = time.monotonic() - start
        if repetition and options.seconds and spent * (repetition + 1) / repetition > options.seconds:
            print(f"another round would pass --seconds {options.seconds:.0f}: {repetition} were run", flush=True)
            break
        for case in cases:
            samples[case].append(measure(case, options))
            middle = _seconds(samples[case][-1])
            print(f"{repetition + 1}/{options.repetitions} {tuple(case)}: {middle:.4g} s", flush=True)
    return samples


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.meta_step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=None, help="the rows are added there")
    parser.add_argument("--repetitions", type=int, default=5, help="processes per engine")
    parser.add_argument("--seconds", type=float, default=0.0, help="start no further round of all engines after these")
    parser.add_argument("--threads", type=int, default=2)
    rehearsal.add_options(parser)
    parser.add_argument("--orders", nargs="+", choices=("second", "first"), default=["second", "first"])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--tasks", nargs="+", type=int, default=[Episode.tasks], help="on a GPU; ours only beyond 4")
    parser.add_argument("--tf32", action="store_true", help="TensorFloat-32 for everyone, on a GPU")
    parser.add_argument(
        "--no-check", dest="check", action="store_false", help="skip the float64 comparison (debugging)"
    )
    options = parser.parse_args(arguments)
    options.gpu = options.device == "cuda" or options.rehearse
    options.out = options.out or (RESULTS / "gpu" if options.gpu else RESULTS) / "meta_step.csv"
    return options


def _row(
    case: Case, samples: list[dict[str, Any]], options: argparse.Namespace, distances: dict[str, float] | None = None
) -> Row:
    weights = supernet(darts(), NetworkSpec(in_channels=3)).count(Episode().ways)[0]
    return Row(
        what="W1",
        sizes=said(**vars(Episode(tasks=case.tasks)), steps=STEPS, weights=weights, bn="transductive"),
        engine=case.engine,
        order=case.order,
        checkpoint=case.checkpoint,
        seconds=[value for sample in samples for value in sample["seconds"]],
        peak_mb=_peak(samples, options.device),
        threads=options.threads,
        device=options.device,
        extra={
            "memory": "allocated on the card" if options.device == "cuda" else "resident, whole process",
            "loss": samples[-1]["result"],
            **(_gpu_columns(case, options.tf32, distances or {}) if options.gpu else {}),
        },
    )


def _gpu_columns(case: Case, tf32: bool, distances: dict[str, float]) -> dict[str, str | float | None]:
    """Precision, what is timed, and how far our meta-gradient is from float64's."""
    precision = "bf16" if case.engine == BF16 else "tf32" if tf32 else "fp32"
    own = case.engine.startswith(OURS)
    distance = distances.get(f"{precision} {case.order}") if own and case.tasks == Episode.tasks else None
    return {
        "precision": precision,
        "timed": "gradient, update and report" if case.engine in (REPLAYED, BF16) else "gradient",
        "gradient_distance": None if distance is None else float(f"{distance:.3g}"),
    }


def _seconds(sample: dict[str, Any]) -> float:
    """The median of a process's calls."""
    return percentiles(sample["seconds"])[1]


def _peak(samples: list[dict[str, Any]], device: str) -> float:
    """On a card without a figure (nothing was allocated), the process's."""
    field = "cuda_peak_mb" if device == "cuda" else "peak_mb"
    return float(max(sample.get(field) or sample["peak_mb"] for sample in samples))


def report(samples: Samples, device: str) -> None:
    """Two tables: seconds and memory of every case, then how our engine compares with every peer.

    Memory is compared with `higher` in its default layout. Speed is compared with each peer's faster layout (by its
    median), repetition by repetition, since the two of a repetition ran within the same minute.
    """
    print(f"{'engine':30} order  recomputed tasks  p20 / p50 / p80 s        peak MB  memory vs higher")
    for case, measured in samples.items():
        times = "{:6.4g} {:6.4g} {:6.4g}".format(*percentiles([_seconds(sample) for sample in measured]))
        peak, oracle = _peak(measured, device), samples.get(Case("higher", case.order))
        memory = f"{peak / _peak(oracle, device):16.2f}x" if oracle and case.tasks == Episode.tasks else ""
        row = f"{case.engine:30} {case.order:6} {case.checkpoint:10} {case.tasks:5} {times:>22} {peak:14.0f} {memory}"
        print(row.rstrip())
    print("\ntimes faster than each peer's faster layout, repetition by repetition: p20 / p50 / p80")
    for own in (case for case in samples if case.engine.startswith(OURS) and case.tasks == Episode.tasks):
        for name in PEERS:
            layouts = [case for case in samples if case.engine in (name, name + CHANNELS_LAST) and case[1] == own[1]]
            if layouts:
                fastest = min(layouts, key=lambda case: percentiles([_seconds(s) for s in samples[case]])[1])
                ratios = "{:.2f}x {:.2f}x {:.2f}x".format(*speed(samples[own], samples[fastest]))
                whose = "" if own.engine == OURS else f"{own.engine}, "
                print(f"  {whose}{own.order}, {own.checkpoint} recomputed, vs {fastest.engine}: {ratios}")
    for many in (case for case in samples if case.tasks != Episode.tasks):
        few = many._replace(tasks=Episode.tasks)
        ratios = "{:.2f}x {:.2f}x {:.2f}x".format(*speed(samples[few], samples[many]))
        print(f"{many.engine}, {many.order}: {many.tasks} tasks take {ratios} the time of {few.tasks}")


def speed(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> tuple[float, float, float]:
    """p20, p50 and p80 of their seconds over ours, repetition by repetition."""
    return percentiles([_seconds(b) / _seconds(a) for a, b in zip(ours, theirs, strict=True)])


if __name__ == "__main__":
    raise SystemExit(main())
