"""One mixed edge bundle to second order, against plain torch: ``python -m benchmarks.mixed_op``.

The bundles are those of workload W1's cells: all seven running candidates of DARTS for 4 tasks of 25 images, on 1 edge
and on 4, at the shapes of the normal cell, of the reduction cell and of its nodes. The contestants (`contestants.py`)
are our operators; torch's with tasks and edges folded into channels, channels last; torch's in a loop over tasks and
edges, in both layouts. Plain torch's second derivatives are torch's own.

Before any timing our operators must pass a few cases of their conformance suite, and outputs, all first and all second
gradients of all contestants must agree in float64 on these very bundles. Contestants take turns, each turn in a process
of its own, and every turn repeats the three passes after warm-ups; the passes are timed within the whole.

About 10 minutes at 2 threads with 4 turns of 5 repetitions; 1 minute of it is checks.

With ``--device cuda`` there are bundles of 64 channels and 16 tasks besides, and every contestant also runs recorded
and replayed ("-replayed"), since at these sizes a GPU mostly waits for Python; several replays in a row are timed as
one. A process then goes through all bundles. For the wide bundles the share of the roofline is told: the least bytes
(`counts.py`) over the card's copy bandwidth, measured in the same run.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import counts, rehearsal
from benchmarks.conformance import conforms
from benchmarks.contestants import (
    BUNDLES,
    CANDIDATES,
    CONTESTANTS,
    OURS,
    OURS_FOLDED,
    SMALL,
    WIDE,
    Bundle,
    Passes,
)
from benchmarks.machine import recorded, seconds_of, wait
from benchmarks.peers.process import run_isolated
from benchmarks.rows import RESULTS, Row, append, percentiles
from metadarts.core.machine import allow_tf32

AGREEMENT = 1e-10
PASSES = ("forward", "backward", "second", "whole")
WARMUPS = 2
REPLAYED = "-replayed"
REPLAYS = 20
"""In a row, timed as one."""
Samples = dict[str, dict[str, list[float]]]
"""contestant -> pass -> seconds."""


def check(bundles: list[dict[str, Any]], device: str = "cpu") -> Callable[[], dict[str, float]]:
    """Workload: "contestant sizes" -> its largest disagreement with ours in float64, in outputs and derivatives."""

    def run() -> dict[str, float]:
        found = {}
        for bundle in (Bundle(**sizes) for sizes in bundles):
            truth = Passes.of(OURS, bundle, torch.float64, device).results()
            for name in CONTESTANTS:
                if name != OURS:
                    result = Passes.of(name, bundle, torch.float64, device).results()
                    found[f"{name} {bundle.name} {bundle.said()}"] = disagreement(result, truth)
        return found

    return run


def contestants_on(device: str) -> list[str]:
    """Our folded operators run where there is no kernel of ours: on a CPU there always is."""
    return [name for name in CONTESTANTS if name != OURS_FOLDED or device == "cuda"]


def disagreement(found: dict[str, dict[str, torch.Tensor]], truth: dict[str, dict[str, torch.Tensor]]) -> float:
    """The largest relative distance (Euclidean) of a tensor from its counterpart."""
    worst = 0.0
    for label, tensors in truth.items():
        if tensors.keys() != found[label].keys():
            raise ValueError(f"{label}: expected gradients of {sorted(tensors)}, got {sorted(found[label])}")
        for name, tensor in tensors.items():
            distance = float((found[label][name] - tensor).norm() / tensor.norm())
            worst = max(worst, distance if distance == distance else float("inf"))  # NaN is no agreement
    return worst


def turn(
    contestant: str, bundle: dict[str, Any], repetitions: int, device: str = "cpu"
) -> Callable[[], dict[str, list[float]]]:
    """Workload: pass -> seconds of each repetition, in float32, after warm-ups; replayed where the name says so."""
    allow_tf32(False)
    passes = Passes.of(contestant.removesuffix(REPLAYED), Bundle(**bundle), torch.float32, device)

    def run() -> dict[str, list[float]]:
        if contestant.endswith(REPLAYED):
            return replayed(passes, device, repetitions)
        for _ in range(WARMUPS):
            once(passes, device)
        rows = [once(passes, device) for _ in range(repetitions)]
        return {name: [row[name] for row in rows] for name in PASSES}

    return run


def once(passes: Passes, device: str = "cpu") -> dict[str, float]:
    """Seconds of one forward, backward and double backward, apart and as one; freeing their graphs counts as one's."""

    def mark() -> None:
        wait(device)
        marks.append(time.perf_counter())

    marks: list[float] = []
    mark()
    outputs = passes.forward()
    mark()
    first = passes.backward(outputs)
    mark()
    second = passes.second(first)
    mark()
    del outputs, first, second
    mark()
    apart = dict(zip(PASSES, (b - a for a, b in itertools.pairwise(marks)), strict=False))
    return apart | {"whole": marks[-1] - marks[0]}


def replayed(passes: Passes, device: str, repetitions: int) -> dict[str, list[float]]:
    """The same from three recordings, of one, two and all passes; the later passes by difference."""

    def two() -> Any:
        return passes.backward(passes.forward())

    upto = [
        seconds_of(recorded(run, device), device, repetitions, WARMUPS, REPLAYS if device == "cuda" else 1)
        for run in (passes.forward, two, lambda: passes.second(two()))
    ]
    apart = [upto[0], *([max(b - a, 1e-9) for a, b in zip(*pair, strict=True)] for pair in itertools.pairwise(upto))]
    return dict(zip(PASSES, [*apart, upto[-1]], strict=True))


def tour(
    contestant: str, bundles: list[dict[str, Any]], repetitions: int, device: str
) -> Callable[[], list[dict[str, Any]]]:
    """Workload: for each bundle what `turn` answers, and "peak_mb" allocated on the card."""

    def run() -> list[dict[str, Any]]:
        found = []
        for bundle in bundles:
            if device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            answer: dict[str, Any] = {"result": turn(contestant, bundle, repetitions, device)()}
            answer["peak_mb"] = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else 0.0
            found.append(answer)
        return found

    return run


def bandwidth(device: str, megabytes: int) -> Callable[[], float]:
    """Workload: bytes per second of a copy, read and written bytes both counted; the best of ten."""
    a, b = (torch.ones(megabytes * 1_000_000 // 4, device=device) for _ in range(2))
    return lambda: 2 * 4 * a.numel() / min(seconds_of(lambda: b.copy_(a), device, 10, WARMUPS, batch=5))


def roofline_seconds(bundle: Bundle, part: str, rate: float) -> float:
    """The least seconds of a pass by its bytes."""
    running = list(CANDIDATES)
    calls = counts.bundle(
        running, bundle.tasks, bundle.edges, bundle.images, bundle.size, bundle.channels, bundle.stride
    )
    parts = {"forward": ["forward"], "backward": ["gradient"], "second": ["second", "pulled"]}
    wanted = parts.get(part) or list(counts.PASSES)
    return counts.total(call.costs()[name] for call in calls for name in wanted).bytes / rate


def main(arguments: list[str] | None = None) -> int:
    """Check, measure, print, write."""
    options = _options(arguments)
    rehearsal.check_options(options)
    bundles = SMALL if options.rehearse else BUNDLES + WIDE if options.device == "cuda" else BUNDLES
    green = options.rehearse or options.conformed or conforms(options.device, options.threads)
    if not green or not _agree(bundles, options):
        return 1
    rate = _bandwidth(options) if options.gpu else None
    found = _toured(bundles, options) if options.gpu else (_measured(bundle, options) for bundle in bundles)
    rows: list[Row] = []
    for bundle, (samples, peaks) in zip(bundles, found, strict=True):
        report(bundle, samples, peaks, rate)
        rows += _rows(bundle, samples, peaks, options, rate)
    append(options.out, rows)
    print(f"rows: {options.out}")
    return 0


def _run(options: argparse.Namespace) -> Callable[..., dict[str, Any]]:
    return rehearsal.runner(options.rehearse, run_isolated)


def _bandwidth(options: argparse.Namespace) -> float:
    kwargs = {"device": options.device, "megabytes": 1 if options.rehearse else 1000}
    rate = float(_run(options)("benchmarks.mixed_op:bandwidth", kwargs, warmups=0, threads=options.threads)["result"])
    print(f"copy bandwidth {rate / 1e9:.0f} GB/s", flush=True)
    return rate


def _agree(bundles: tuple[Bundle, ...], options: argparse.Namespace) -> bool:
    kwargs: dict[str, Any] = {"bundles": [vars(bundle) for bundle in bundles]}
    kwargs |= {"device": "cuda"} if options.device == "cuda" else {}
    found = _run(options)("benchmarks.mixed_op:check", kwargs, warmups=0, threads=options.threads)["result"]
    for name, value in found.items():
        print(f"float64 agreement with {name}: {value:.1e}", flush=True)
    agree = bool(max(found.values()) <= AGREEMENT)
    if not agree:
        print(f"contestants disagree by more than {AGREEMENT}: nothing was timed", file=sys.stderr)
    return agree


def _measured(bundle: Bundle, options: argparse.Namespace) -> tuple[Samples, dict[str, float]]:
    names = contestants_on("cpu")
    samples: Samples = {name: {part: [] for part in PASSES} for name in names}
    peaks = dict.fromkeys(names, 0.0)
    for _ in range(options.turns):
        for name in names:
            kwargs = {"contestant": name, "bundle": vars(bundle), "repetitions": options.repetitions}
            answer = run_isolated("benchmarks.mixed_op:turn", kwargs, warmups=0, threads=options.threads)
            for part in PASSES:
                samples[name][part] += answer["result"][part]
            peaks[name] = max(peaks[name], answer["peak_mb"])
    return samples, peaks


def _toured(bundles: tuple[Bundle, ...], options: argparse.Namespace) -> list[tuple[Samples, dict[str, float]]]:
    """`_measured` for all bundles, a process for each contestant and turn."""
    names = [name + how for name in contestants_on("cuda") for how in ("", REPLAYED)]
    found: list[tuple[Samples, dict[str, float]]] = [
        ({name: {part: [] for part in PASSES} for name in names}, dict.fromkeys(names, 0.0)) for _ in bundles
    ]
    for _ in range(options.turns):
        for name in names:
            kwargs = {"contestant": name, "bundles": [vars(bundle) for bundle in bundles]}
            kwargs |= {"repetitions": options.repetitions, "device": options.device}
            answers = _run(options)("benchmarks.mixed_op:tour", kwargs, warmups=0, threads=options.threads)["result"]
            for (samples, peaks), answer in zip(found, answers, strict=True):
                for part in PASSES:
                    samples[name][part] += answer["result"][part]
                peaks[name] = max(peaks[name], answer["peak_mb"])
            print(f"{name}: all bundles done", flush=True)
    return found


def ratios(samples: Samples, part: str) -> dict[str, float]:
    """contestant -> how many times as long as it (by the median) the fastest other contestant takes.

    Replays are compared with replays, the rest with the rest; our folded operators are nobody's rival.
    """
    medians = {name: percentiles(parts[part])[1] for name, parts in samples.items()}
    found = {}
    for name, own in medians.items():
        rivals = [
            seconds
            for rival, seconds in medians.items()
            if rival != name
            and rival.endswith(REPLAYED) == name.endswith(REPLAYED)
            and not rival.startswith(OURS_FOLDED)
        ]
        found[name] = min(rivals) / own
    return found


def report(bundle: Bundle, samples: Samples, peaks: dict[str, float], rate: float | None = None) -> None:
    """A table of one bundle: milliseconds of every pass, and against the fastest other contestant.

    Args:
        rate: bytes per second of a copy, where the share of the roofline is to be told.
    """
    print(f"\n{bundle.name}: {bundle.said()}")
    print(f"{'contestant':30} pass          p20 / p50 / p80 ms   fastest other / own   peak MB   of the roofline")
    for name, parts in samples.items():
        for part in PASSES:
            times = " ".join(f"{1e3 * seconds:8.3f}" for seconds in percentiles(parts[part]))
            share = "" if rate is None else f"{_share(bundle, part, parts[part], rate):12.1f} %"
            against = f"{ratios(samples, part)[name]:14.2f}x {peaks[name]:15.0f}"
            print(f"{name:30} {part:9} {times} {against} {share}".rstrip(), flush=True)


def _share(bundle: Bundle, part: str, seconds: list[float], rate: float) -> float:
    """Percent of the roofline by bytes."""
    return 100 * roofline_seconds(bundle, part, rate) / percentiles(seconds)[1]


def _rows(
    bundle: Bundle, samples: Samples, peaks: dict[str, float], options: argparse.Namespace, rate: float | None
) -> list[Row]:
    def extra(name: str, part: str) -> dict[str, str | int | float | None]:
        found: dict[str, str | int | float | None] = {"fastest_other_over_own": round(ratios(samples, part)[name], 3)}
        if rate is not None:
            share = round(_share(bundle, part, samples[name][part], rate), 2)
            found |= {"gigabytes_per_s": round(rate / 1e9, 1), "percent_of_roofline": share}
        return found

    return [
        Row(
            what=f"{bundle.name} {part}",
            sizes=bundle.said(),
            engine=name,
            order="second",
            checkpoint=None,
            seconds=parts[part],
            peak_mb=peaks[name],
            threads=options.threads,
            device=options.device,
            extra=extra(name, part),
        )
        for name, parts in samples.items()
        for part in PASSES
    ]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mixed_op", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=None, help="the rows are added there")
    parser.add_argument("--turns", type=int, default=4, help="processes per contestant and bundle")
    parser.add_argument("--repetitions", type=int, default=5, help="of the three passes in each process")
    parser.add_argument("--threads", type=int, default=2)
    rehearsal.add_options(parser)
    options = parser.parse_args(arguments)
    options.gpu = options.device == "cuda" or options.rehearse
    options.out = options.out or (RESULTS / "gpu" if options.gpu else RESULTS) / "mixed_op.csv"
    return options


if __name__ == "__main__":
    raise SystemExit(main())
