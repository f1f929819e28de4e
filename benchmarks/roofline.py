"""How near our operators come to what this machine can do, and where a meta-step spends its time:
``python -m benchmarks.roofline``.

The roofline of a pass is the larger of its least arithmetic over the machine's matrix rate and its least bytes over the
machine's copy bandwidth (`counts.py`; Williams et al., CACM 2009); both rates are measured here, at the same threads.
Then every distinct call that workload W1's support pass makes of an operator is timed by itself, and the whole
meta-step is profiled: seconds by operator and pass, and the rest in groups. In a cache that is warm a pass can beat the
bandwidth of memory, so that more than 100 % is no mistake.

About 3 minutes at 2 threads with 5 repetitions.

With ``--device cuda`` the operators' passes are recorded and replayed, several in a row timed as one, so that Python's
part in them does not count; the meta-step is timed both ways. The matrix rate is also measured in TensorFloat-32 and
bfloat16; the rooflines are of float32 proper. Its profile, by kernel, is `gpu_profile.py`.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks import counts, meta_step, rehearsal
from benchmarks.conformance import conforms
from benchmarks.counts import Call, ConvBlock, Cost, Mix, Pool
from benchmarks.machine import recorded, seconds_of
from benchmarks.peers.process import run_isolated
from benchmarks.peers.workloads import Episode, random_batch
from benchmarks.rows import RESULTS, Row, append, percentiles, said
from metadarts import ops
from metadarts.core.machine import allow_tf32
from metadarts.inner import InnerLoop
from metadarts.meta import meta_gradient
from metadarts.networks import Learner, Network, NetworkSpec, supernet
from metadarts.optim import Rule
from metadarts.spaces import darts

GIGA = 1e9
ALONE = ("forward", "gradient", "second")
REPLAYS = 10
"""On a card so many calls in a row are timed as one."""
OVERHEAD = "Python and autograd"
UPDATE = "optimiser update"


class Rates(NamedTuple):
    """What the machine does at best: flops and bytes per second."""

    matrix: float
    copy: float

    def roofline(self, cost: Cost) -> float:
        """The least seconds that ``cost`` can take."""
        return max(cost.flops / self.matrix, cost.bytes / self.copy)


# ------------------------------------------------------------------------------------------------------------ machine


RATES_OF_A_CARD = {"fp32": (torch.float32, False), "tf32": (torch.float32, True), "bf16": (torch.bfloat16, False)}
"""Name -> type, and whether TensorFloat-32 is on."""


def matrix_seconds(
    size: int, repetitions: int, device: str = "cpu", precision: str = "fp32"
) -> Callable[[], list[float]]:
    """Workload: seconds of each product of two matrices [size, size], after some to warm up."""
    dtype, tf32 = RATES_OF_A_CARD[precision]
    allow_tf32(tf32)
    a, b, out = (torch.randn(size, size, device=device).to(dtype) for _ in range(3))
    return lambda: _each(lambda: torch.mm(a, b, out=out), repetitions, device)


def copy_seconds(megabytes: int, repetitions: int, device: str = "cpu") -> Callable[[], list[float]]:
    """Workload: seconds of each copy of that many MB, after some to warm up."""
    a, b = (torch.ones(megabytes * 1_000_000 // 4, device=device) for _ in range(2))
    return lambda: _each(lambda: b.copy_(a), repetitions, device)


def _each(call: Callable[[], Any], repetitions: int, device: str) -> list[float]:
    return seconds_of(call, device, repetitions, batch=REPLAYS if device == "cuda" else 1)


# ---------------------------------------------------------------------------------------------------------- operators


def w1_network() -> Network:
    """W1's search network."""
    return supernet(darts(), NetworkSpec(in_channels=Episode.channels))


def w1_calls() -> Counter[Call]:
    """Every distinct operator call of W1's support pass, and how often it is made."""
    episode, network = Episode(), w1_network()
    return Counter(counts.calls(network, episode.tasks, episode.ways * episode.shots, episode.size))


def prepared(call: Call, device: str = "cpu") -> tuple[list[Tensor], Callable[[list[Tensor]], Sequence[Tensor]]]:
    """Gaussian inputs of ``call``, requiring gradients where W1 asks for them, and the operator on them."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, requires_grad=True)

    if isinstance(call, Mix):
        image = (call.images, call.size, call.size, call.channels)
        shared = [draw(call.tasks, 1, *image) for _ in range(call.shared)]
        own = [draw(call.tasks, call.edges, *image) for _ in range(call.candidates - call.shared)]
        return [draw(call.candidates, call.tasks, call.edges), *shared, *own], lambda t: ops.mix(t[1:], t[0])
    image = (call.images, call.size, call.size, call.channels)
    if isinstance(call, Pool):
        return [draw(call.tasks, *image)], lambda t: [ops.pool(t[0], call.kind, call.stride)]
    if isinstance(call, ConvBlock):
        x, few = draw(call.tasks, *image).requires_grad_(not call.first), (call.tasks, call.outer)
        weight = draw(*few, call.channels, call.kernel, call.kernel)
        return [x, weight, draw(*few), draw(*few)], lambda t: [
            ops.conv_block(t[0], t[1], t[2], t[3], rectify=not call.first)
        ]
    x, groups = draw(call.tasks, call.own, *image), (call.tasks, call.edges)
    mixing = draw(*groups, call.channels, call.outer)
    if not call.kernel:
        return [x, mixing], lambda t: [ops.separable(t[0], None, t[1])]
    taps, geometry = draw(*groups, call.channels, call.kernel, call.kernel), (call.stride, call.dilation)
    return [x, taps, mixing], lambda t: [ops.separable(t[0], t[1], t[2], None, *geometry)]


def operator_seconds(
    repetitions: int, first: int | None = None, device: str = "cpu", replay: bool = False
) -> Callable[[], list[dict[str, list[float]]]]:
    """Workload: for each of W1's distinct calls (the ``first`` ones), pass -> seconds of each repetition.

    "second" is here the derivative of the gradient all the way to the inputs: `counts.PASSES`' second and pulled.
    """
    calls = list(w1_calls())[:first]
    allow_tf32(False)
    if replay:
        return lambda: [seconds_replayed(call, repetitions, device) for call in calls]
    return lambda: [seconds_alone(call, repetitions) for call in calls]


def seconds_replayed(call: Call, repetitions: int, device: str) -> dict[str, list[float]]:
    """One call by itself from three recordings, of one, two and all passes; the later passes by difference."""
    inputs, run = prepared(call, device)
    moving = [tensor for tensor in inputs if tensor.requires_grad]
    along = [torch.randn_like(tensor) for tensor in moving]
    upstream = [torch.randn_like(y).requires_grad_() for y in run(inputs)]

    def two() -> Sequence[Tensor]:
        return torch.autograd.grad(list(run(inputs)), moving, upstream, create_graph=True)

    def three() -> Sequence[Tensor | None]:
        return torch.autograd.grad(two(), [*moving, *upstream], along, allow_unused=True)

    passes: tuple[Callable[[], Any], ...] = (lambda: run(inputs), two, three)
    upto = [_each(recorded(each, device), repetitions, device) for each in passes]
    later = [[max(b - a, 1e-9) for a, b in zip(*pair, strict=True)] for pair in itertools.pairwise(upto)]
    return dict(zip(ALONE, [upto[0], *later], strict=True))


def seconds_alone(call: Call, repetitions: int) -> dict[str, list[float]]:
    """One call by itself, after two repetitions to warm up."""
    inputs, run = prepared(call)
    moving = [tensor for tensor in inputs if tensor.requires_grad]
    along = [torch.randn_like(tensor) for tensor in moving]
    upstream = [torch.randn_like(y).requires_grad_() for y in run(inputs)]
    seconds = defaultdict(list)
    for repetition in range(repetitions + 2):
        marks = [time.perf_counter()]
        outputs = run(inputs)
        marks.append(time.perf_counter())
        first = torch.autograd.grad(list(outputs), moving, upstream, create_graph=True)
        marks.append(time.perf_counter())
        torch.autograd.grad(first, [*moving, *upstream], along, allow_unused=True)
        marks.append(time.perf_counter())
        for part, (start, end) in zip(ALONE, itertools.pairwise(marks), strict=True):
            if repetition >= 2:
                seconds[part].append(end - start)
    return dict(seconds)


def cost_alone(call: Call, part: str) -> Cost:
    """The cost of a pass as `operator_seconds` runs it."""
    costs = call.costs()
    return counts.total([costs["second"], costs["pulled"]]) if part == "second" else costs[part]


# ------------------------------------------------------------------------------------------------------------ profile

FUNCTIONS = {"_Separable": "separable", "_Pool": "pool", "_Mix": "mix", "_Block": "conv_block"}
SUFFIXES = {"": "forward", "Gradient": "gradient", "GradientBackward": "second", "Backward": "pulled"}
BY_NAME = {function + suffix: f"{op} {part}" for function, op in FUNCTIONS.items() for suffix, part in SUFFIXES.items()}
"""Name of an autograd Function, or of its backward, in a profile -> operator and pass."""
GROUPS = {
    "head and loss": ("mm", "bmm", "addmm", "baddbmm", "matmul", "softmax", "nll", "cross_entropy", "mean", "argmax"),
    "copies and new memory": ("copy", "clone", "contiguous", "cat", "stack", "zero", "fill", "empty", "pad", "ones"),
    OVERHEAD: (
        "view",
        "permute",
        "expand",
        "select",
        "slice",
        "unbind",
        "split",
        "squeeze",
        "transpose",
        "detach",
        "alias",
    ),
}
"""Group -> a part of the names of torch's operators in it; what is in none is elementwise."""


class Marked(InnerLoop):
    """An inner loop whose updates stand under a name of their own in a profile."""

    def make_rule(self) -> Rule:
        rule = super().make_rule()

        def update(*arguments: Any) -> Any:
            with record_function(UPDATE):
                return rule.update(*arguments)

        return rule._replace(update=update)


def group_of(name: str, above: Iterable[str]) -> str:
    """The group of an event of a profile, given the names of the events around it, the nearest first.

    The update's own derivative stands elsewhere: autograd gives no name to where a node was made.
    """
    if name in BY_NAME:
        return BY_NAME[name]
    if name == UPDATE or UPDATE in above:
        return UPDATE
    if not name.startswith("aten::"):
        return OVERHEAD
    plain = name.removeprefix("aten::").strip("_")
    return next((group for group, parts in GROUPS.items() if any(part in plain for part in parts)), "elementwise")


def profiled(repetitions: int, small: bool = False) -> Callable[[], dict[str, Any]]:
    """Workload: "plain" and "profiled" seconds of each repetition of W1's meta-step, and "groups": group -> seconds.

    Args:
        repetitions: each is run once with the profiler and once without.
        small: one task of ten 16x16 images and one inner step, for tests.
    """
    network, params, batch = meta_step.setting()
    steps = 1 if small else meta_step.STEPS
    if small:
        batch = random_batch(Episode(tasks=1, shots=1, queries=1, size=16))
    inner = Marked(steps, "sgd", meta_step.WEIGHT_RATE, meta_step.ALPHA_RATE)
    learner = Learner(network)

    def step() -> float:
        start = time.perf_counter()
        meta_gradient(learner, params, batch, inner)
        return time.perf_counter() - start

    def run() -> dict[str, Any]:
        step()
        plain, under, groups = [], [], defaultdict(list)
        for _ in range(repetitions):
            plain.append(step())
            with profile(activities=[ProfilerActivity.CPU]) as recorded:
                under.append(step())
            for group, seconds in grouped(recorded.events(), under[-1]).items():
                groups[group].append(seconds)
        return {"plain": plain, "profiled": under, "groups": dict(groups)}

    return run


def grouped(events: Iterable[Any], wall: float) -> dict[str, float]:
    """Group -> seconds by events' own time; what is left of ``wall`` is Python's and autograd's."""
    found: dict[str, float] = dict.fromkeys([*BY_NAME.values(), *GROUPS, "elementwise", UPDATE], 0.0)
    for event in events:
        found[group_of(event.name, _above(event))] += event.self_cpu_time_total / 1e6
    found[OVERHEAD] = 0.0
    return found | {OVERHEAD: wall - sum(found.values())}


def _above(event: Any) -> list[str]:
    names = []
    while event.cpu_parent is not None:
        event = event.cpu_parent
        names.append(event.name)
    return names


# --------------------------------------------------------------------------------------------------------------- rows


def row(
    what: str,
    sizes: str,
    engine: str,
    seconds: Sequence[float],
    cost: Cost | None,
    rates: Rates,
    threads: int,
    device: str = "cpu",
) -> Row:
    """One line: a pass, its seconds, and how they compare with its roofline; ``cost`` None where nothing is counted."""
    extra: dict[str, float | None] = dict.fromkeys(
        ("gflop", "gigabytes", "gflop_per_s", "gigabytes_per_s", "roofline_s", "percent_of_roofline")
    )
    middle = percentiles(seconds)[1]
    if cost is not None and cost.bytes:
        least = rates.roofline(cost)
        figures = (cost.flops / GIGA, cost.bytes / GIGA, cost.flops / GIGA / middle, cost.bytes / GIGA / middle, least)
        values = [float(f"{value:.5g}") for value in (*figures, 100 * least / middle)]
        extra = dict(zip(extra, values, strict=True))
    return Row(what, sizes, engine, "second", None, seconds, None, threads, device, extra)


def show(row: Row) -> None:
    """One printed line."""
    middle, extra = row.percentiles[1], row.extra
    line = f"{row.what:28} {1e3 * middle:10.3f} ms"
    if extra["gflop"] is not None:
        line += f" {extra['gflop_per_s']:9.2f} GFLOP/s {extra['gigabytes_per_s']:8.2f} GB/s"
        line += f" {1e3 * float(extra['roofline_s'] or 0):9.3f} ms roofline {extra['percent_of_roofline']:6.1f} %"
    print(f"{line}  {row.sizes}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Measure the machine, every operator, the whole meta-step; print and write."""
    options = _options(arguments)
    rehearsal.check_options(options)
    asked = options.rehearse or options.conformed
    if not asked and not conforms(options.device, options.threads):
        return 1
    rates, rows = _machine(options)
    kwargs: dict[str, Any] = {"repetitions": options.repetitions}
    if options.gpu:
        first = {"first": 1} if options.rehearse else {}
        found = _isolated("operator_seconds", kwargs | first | {"device": options.device, "replay": True}, options)
        calls = Counter(dict(list(w1_calls().items())[: len(found)]))
        rows += operator_rows(calls, found, rates, options.threads, options.device)
        rows += _meta_step_on_a_card(rates, options)
    else:
        found = _isolated("operator_seconds", kwargs, options)
        rows += operator_rows(w1_calls(), found, rates, options.threads)
        rows += _meta_step(_isolated("profiled", kwargs, options), rates, options.threads)
    for each in rows:
        show(each)
    append(options.out, rows)
    print(f"rows: {options.out}")
    return 0


def operator_rows(
    calls: Counter[Call], found: list[dict[str, list[float]]], rates: Rates, threads: int, device: str = "cpu"
) -> list[Row]:
    """A line for each distinct call and pass, then one for all calls of an operator together, as W1 makes them."""
    rows, together = [], defaultdict(list)
    for (call, count), passes in zip(calls.items(), found, strict=True):
        sizes = said(**{key: value for key, value in vars(call).items() if key != "name"}, calls=count)
        for part, seconds in passes.items():
            cost = cost_alone(call, part)
            rows.append(row(f"{call.name} {part}", sizes, "ours", seconds, cost, rates, threads, device))
            together[call.name, part].append(([count * value for value in seconds], cost.times(count)))
    for (name, part), each in together.items():
        seconds = [sum(values) for values in zip(*(values for values, _ in each), strict=True)]
        cost = counts.total(cost for _, cost in each)
        sizes = said(calls=sum(count for call, count in calls.items() if call.name == name))
        rows.append(row(f"all {name} {part}", sizes, "ours", seconds, cost, rates, threads, device))
    return rows


def _isolated(workload: str, kwargs: dict[str, Any], options: argparse.Namespace) -> Any:
    run = rehearsal.runner(options.rehearse, run_isolated)
    return run(f"benchmarks.roofline:{workload}", kwargs, warmups=0, threads=options.threads)["result"]


def _machine(options: argparse.Namespace) -> tuple[Rates, list[Row]]:
    """Best of several, since anything slower was the fault of something else."""
    own = {"repetitions": options.repetitions + 3} | ({"device": options.device} if options.gpu else {})
    names = ("fp32", *(name for name in RATES_OF_A_CARD if name != "fp32" and options.gpu))
    products = {}
    for name in names:
        other = {} if name == "fp32" else {"precision": name}
        products[name] = _isolated("matrix_seconds", {"size": options.matrix} | own | other, options)
    copies = _isolated("copy_seconds", {"megabytes": options.megabytes} | own, options)
    # rows and columns; every byte is read and written
    costs = Cost(2 * options.matrix**3, 3 * 4 * options.matrix**2), Cost(0, 2 * options.megabytes * 1_000_000)
    rates = Rates(costs[0].flops / min(products["fp32"]), costs[1].bytes / min(copies))
    print(
        f"matrix rate {rates.matrix / GIGA:.1f} GFLOP/s, copy {rates.copy / GIGA:.1f} GB/s, {options.threads} threads"
    )
    sizes, threads = (said(size=options.matrix), said(megabytes=options.megabytes)), options.threads
    rows = []
    for name in names:
        suffix = "" if name == "fp32" else f" {name}"
        cost = Cost(costs[0].flops, costs[0].bytes // (2 if name == "bf16" else 1))
        best = Rates(cost.flops / min(products[name]), rates.copy)
        what = f"machine: matrix product{suffix}"
        rows.append(row(what, sizes[0], "torch.mm", products[name], cost, best, threads, options.device))
        print(f"matrix rate{suffix}: {best.matrix / GIGA:.1f} GFLOP/s", flush=True)
    return rates, [
        *rows,
        row("machine: copy", sizes[1], "torch.copy_", copies, costs[1], rates, threads, options.device),
    ]


def _w1_cost() -> dict[str, Cost]:
    """ "operator pass" -> cost of all of W1's meta-gradient."""
    episode = Episode()
    shots, queries = episode.ways * episode.shots, episode.ways * episode.queries
    by_pass = counts.meta_step(w1_network(), episode.tasks, shots, queries, episode.size, meta_step.STEPS)
    return {" ".join(key): cost for key, cost in by_pass.items()}


def _meta_step_on_a_card(rates: Rates, options: argparse.Namespace) -> list[Row]:
    """The whole, kernel by kernel and replayed."""
    sizes, whole = said(**vars(Episode()), steps=meta_step.STEPS), counts.total(_w1_cost().values())
    rows = []
    for engine in (meta_step.OURS, meta_step.REPLAYED):
        answer = meta_step.measure(meta_step.Case(engine, "second"), options)
        rows.append(row("W1", sizes, engine, answer["seconds"], whole, rates, options.threads, options.device))
    return rows


def _meta_step(found: dict[str, Any], rates: Rates, threads: int) -> list[Row]:
    """The whole, with and without the profiler, then group by group, the longest first."""
    named = _w1_cost()
    sizes, whole = said(**vars(Episode()), steps=meta_step.STEPS), counts.total(named.values())
    rows = [
        row("W1", sizes, "ours", found["plain"], whole, rates, threads),
        row("W1 under the profiler", sizes, "ours", found["profiled"], whole, rates, threads),
    ]
    longest = sorted(found["groups"].items(), key=lambda group: -percentiles(group[1])[1])
    return rows + [
        row(f"W1 {name}", sizes, "ours", seconds, named.get(name), rates, threads) for name, seconds in longest
    ]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.roofline", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=None, help="the rows are added there")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--matrix", type=int, default=0, help="rows of the square matrix (2048; on a GPU 8192)")
    parser.add_argument("--megabytes", type=int, default=0, help="size of the copied tensor (256; on a GPU 2000)")
    rehearsal.add_options(parser)
    options = parser.parse_args(arguments)
    options.gpu, options.tf32 = options.device == "cuda" or options.rehearse, False
    options.out = options.out or (RESULTS / "gpu" if options.gpu else RESULTS) / "roofline.csv"
    sizes = (8192, 2000) if options.device == "cuda" else (64, 1) if options.rehearse else (2048, 256)
    options.matrix, options.megabytes = options.matrix or sizes[0], options.megabytes or sizes[1]
    return options


if __name__ == "__main__":
    raise SystemExit(main())
