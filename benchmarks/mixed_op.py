"""One mixed edge bundle to second order, against plain torch: ``python -m benchmarks.mixed_op``.

The bundles are those of workload W1's cells: all seven running candidates of DARTS for 4 tasks of 25 images, on 1 edge
and on 4, at the shapes of the normal cell, of the reduction cell and of its nodes. The contestants (`contestants.py`)
are our operators; torch's with tasks and edges folded into channels, channels last; torch's in a loop over tasks and
edges, in both layouts. Plain torch's second derivatives are torch's own.

Before any timing our operators must pass a few cases of their conformance suite, and outputs, all first and all second
gradients of all contestants must agree in float64 on these very bundles. Contestants take turns, each turn in a process
of its own, and every turn repeats the three passes after warm-ups; the passes are timed within the whole.

About 10 minutes at 2 threads with 4 turns of 5 repetitions; 1 minute of it is checks.
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

from benchmarks.conformance import conforms
from benchmarks.contestants import BUNDLES, CONTESTANTS, OURS, Bundle, Passes
from benchmarks.peers.process import run_isolated
from benchmarks.rows import RESULTS, Row, append, percentiles

AGREEMENT = 1e-10
PASSES = ("forward", "backward", "second", "whole")
WARMUPS = 2
Samples = dict[str, dict[str, list[float]]]
"""contestant -> pass -> seconds."""


def check(bundles: list[dict[str, Any]]) -> Callable[[], dict[str, float]]:
    """Workload: "contestant sizes" -> its largest disagreement with ours in float64, in outputs and derivatives."""

    def run() -> dict[str, float]:
        found = {}
        for bundle in (Bundle(**sizes) for sizes in bundles):
            truth = Passes.of(OURS, bundle, torch.float64).results()
            for name in CONTESTANTS:
                if name != OURS:
                    result = Passes.of(name, bundle, torch.float64).results()
                    found[f"{name} {bundle.name} {bundle.said()}"] = disagreement(result, truth)
        return found

    return run


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


def turn(contestant: str, bundle: dict[str, Any], repetitions: int) -> Callable[[], dict[str, list[float]]]:
    """Workload: pass -> seconds of each repetition, in float32, after warm-ups."""
    passes = Passes.of(contestant, Bundle(**bundle), torch.float32)

    def run() -> dict[str, list[float]]:
        for _ in range(WARMUPS):
            once(passes)
        rows = [once(passes) for _ in range(repetitions)]
        return {name: [row[name] for row in rows] for name in PASSES}

    return run


def once(passes: Passes) -> dict[str, float]:
    """Seconds of one forward, backward and double backward, apart and as one; freeing their graphs counts as one's."""
    marks = [time.perf_counter()]
    outputs = passes.forward()
    marks.append(time.perf_counter())
    first = passes.backward(outputs)
    marks.append(time.perf_counter())
    second = passes.second(first)
    marks.append(time.perf_counter())
    del outputs, first, second
    marks.append(time.perf_counter())
    apart = dict(zip(PASSES, (b - a for a, b in itertools.pairwise(marks)), strict=False))
    return apart | {"whole": marks[-1] - marks[0]}


def main(arguments: list[str] | None = None) -> int:
    """Check, measure, print, write."""
    options = _options(arguments)
    if not conforms("cpu", options.threads) or not _agree(options.threads):
        return 1
    rows: list[Row] = []
    for bundle in BUNDLES:
        samples, peaks = _measured(bundle, options)
        report(bundle, samples, peaks)
        rows += _rows(bundle, samples, peaks, options.threads)
    append(options.out, rows)
    print(f"rows: {options.out}")
    return 0


def _agree(threads: int) -> bool:
    kwargs = {"bundles": [vars(bundle) for bundle in BUNDLES]}
    found = run_isolated("benchmarks.mixed_op:check", kwargs, warmups=0, threads=threads)["result"]
    for name, value in found.items():
        print(f"float64 agreement with {name}: {value:.1e}", flush=True)
    agree = bool(max(found.values()) <= AGREEMENT)
    if not agree:
        print(f"contestants disagree by more than {AGREEMENT}: nothing was timed", file=sys.stderr)
    return agree


def _measured(bundle: Bundle, options: argparse.Namespace) -> tuple[Samples, dict[str, float]]:
    samples: Samples = {name: {part: [] for part in PASSES} for name in CONTESTANTS}
    peaks = dict.fromkeys(CONTESTANTS, 0.0)
    for _ in range(options.turns):
        for name in CONTESTANTS:
            kwargs = {"contestant": name, "bundle": vars(bundle), "repetitions": options.repetitions}
            answer = run_isolated("benchmarks.mixed_op:turn", kwargs, warmups=0, threads=options.threads)
            for part in PASSES:
                samples[name][part] += answer["result"][part]
            peaks[name] = max(peaks[name], answer["peak_mb"])
    return samples, peaks


def ratios(samples: Samples, part: str) -> dict[str, float]:
    """contestant -> how many times as long as it (by the median) the fastest other contestant takes."""
    medians = {name: percentiles(parts[part])[1] for name, parts in samples.items()}
    return {
        name: min(other for rival, other in medians.items() if rival != name) / own for name, own in medians.items()
    }


def report(bundle: Bundle, samples: Samples, peaks: dict[str, float]) -> None:
    """A table of one bundle: milliseconds of every pass, and against the fastest other contestant."""
    print(f"\n{bundle.name}: {bundle.said()}")
    print(f"{'contestant':22} pass          p20 / p50 / p80 ms   fastest other / own   peak MB")
    for name, parts in samples.items():
        for part in PASSES:
            times = " ".join(f"{1e3 * seconds:8.2f}" for seconds in percentiles(parts[part]))
            print(f"{name:22} {part:9} {times} {ratios(samples, part)[name]:14.2f}x {peaks[name]:15.0f}", flush=True)


def _rows(bundle: Bundle, samples: Samples, peaks: dict[str, float], threads: int) -> list[Row]:
    return [
        Row(
            what=f"{bundle.name} {part}",
            sizes=bundle.said(),
            engine=name,
            order="second",
            checkpoint=None,
            seconds=parts[part],
            peak_mb=peaks[name],
            threads=threads,
            extra={"fastest_other_over_own": round(ratios(samples, part)[name], 3)},
        )
        for name, parts in samples.items()
        for part in PASSES
    ]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mixed_op", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "mixed_op.csv", help="the rows are added there")
    parser.add_argument("--turns", type=int, default=4, help="processes per contestant and bundle")
    parser.add_argument("--repetitions", type=int, default=5, help="of the three passes in each process")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
