"""Our figures on the new tasks: before and after adaptation, the three finishes, random cells, pixels.

    python -m benchmarks.new_task.ours --draws FOLDER --out ROWS.jsonl --threads 2

FOLDER is what `benchmarks.new_task.draws` wrote. One line of JSON a draw; draws that have a line already are left out,
so a run that was cut off goes on. "seconds" is that of `FewShotClassifier.fit` alone, kernels compiled before: reading
the start, ten steps, freezing the statistics. Logistic regression's "best" is the best of several penalties, chosen on
the held-out images themselves, which nobody could do: an advantage that ours does not have.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metadarts.core.errors import ConfigError
from metadarts.core.machine import commit, device_name, version
from metadarts.core.rng import Key
from metadarts.fewshot import FewShotClassifier
from metadarts.fewshot.learn import (
    RETRAIN_STEPS,
    AdaptSettings,
    HeldOutImages,
    adapt_start,
    derive,
    inherited,
    retrained,
)
from metadarts.fewshot.measure import size_of
from metadarts.fewshot.pixels import logistic_regression, pixel_baselines
from metadarts.fewshot.start import open_start
from metadarts.fewshot.task import Solution, Support, hits, logits
from metadarts.spaces import random_genotype
from metadarts.store.files import append_line

from .peer import read_rows

STARTS = {"cifar100": "cifar-fs", "omniglot": "glyphs", "glyphs": "glyphs"}
PENALTIES = (0.01, 0.1, 1.0, 10.0)
RANDOM_CELLS = 2


def read(path: Path) -> dict[str, NDArray[Any]]:
    """A draw's arrays."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def order(name: str) -> tuple[int, str]:
    """Draws by number first, so that what is cut off has some of every setting."""
    return int(name.rsplit("-", 1)[1]), name


def measure(draw: Path, start: str, steps: int) -> dict[str, Any]:
    """One row."""
    arrays = read(draw)
    begun = time.perf_counter()
    classifier = FewShotClassifier(start, steps=steps).fit(arrays["support"], arrays["support_labels"])
    seconds = time.perf_counter() - begun
    support = classifier.task_.support
    pixels = classifier._pixels(arrays["held_out"])
    held = HeldOutImages(pixels, torch.from_numpy(arrays["held_out_labels"]))
    opened, adapted, plan = open_start(start), classifier.task_.solution("supernet"), AdaptSettings(steps)

    def score(solution: Solution, bn: str = "support") -> float:
        found = logits(support, solution.network, solution.with_axis(), held.pixels, bn)
        return float(hits(found, held.labels).mean())

    shipped = torch.from_numpy(classifier.logits(arrays["held_out"]))
    cell = inherited(opened, support, adapted, plan, held_out=held)
    anew = retrained(opened, support, derive(adapted), AdaptSettings(RETRAIN_STEPS))
    others = _random_cells(draw.stem, opened, support, adapted, plan)
    space = adapted.network.space
    no_alphas = adapt_start(opened, support, AdaptSettings(steps, alpha_rate=0.0))
    return {
        "draw": draw.stem,
        "start": start,
        "steps": steps,
        "seconds": seconds,
        "before": score(adapt_start(opened, support, AdaptSettings(0))),
        "after": float(hits(shipped, held.labels).mean()),
        "weights only": score(no_alphas),
        "transductive": score(adapted, "transductive"),
        "inherited, before its steps": cell.history[0].accuracy,
        "inherited": score(cell),
        "scratch": score(anew),
        "random cells, inherited": [score(other) for other in others],
        "random cells, scratch": [
            score(retrained(opened, support, random_genotype(space, _key(draw.stem, 0)), AdaptSettings(RETRAIN_STEPS)))
        ],
        **pixel_baselines(support, held),
        "logistic regression, best": max(logistic_regression(support, held, c) for c in PENALTIES),
        "genotype": str(derive(adapted)),
        "sizes": size_of(classifier.model_),
        "threads": torch.get_num_threads(),
        "device": device_name("cpu"),
        "torch": version("torch"),
        "commit": commit(),
    }


def _key(draw: str, number: int) -> Key:
    return Key.from_seed(0).child("random cell", draw, number)


def _random_cells(draw: str, start: Any, support: Support, adapted: Solution, plan: AdaptSettings) -> list[Solution]:
    """Random cells with the same treatment as the derived one: the adapted weights, as many steps."""
    genotypes = [random_genotype(adapted.network.space, _key(draw, number)) for number in range(RANDOM_CELLS)]
    return [inherited(start, support, adapted, plan, genotype) for genotype in genotypes]


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and measure every draw that has no row yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.new_task.ours", description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=Path, required=True, help="folder of .npz files")
    parser.add_argument("--out", type=Path, required=True, help="file of rows, added to")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start", action="append", default=[], help="DOMAIN=START in place of the bundled one")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    starts = STARTS | dict(pair.split("=", 1) for pair in options.start)
    before = read_rows(options.out)
    done = {row["draw"] for row in before}
    if odd := [row for row in before if (row["steps"], row["threads"]) != (options.steps, options.threads)]:
        raise ConfigError(
            f"{options.out}: {odd[0]['draw']} was measured with {odd[0]['steps']} steps on {odd[0]['threads']} "
            "thread(s); rows of one file are measured alike: give --out another name"
        )
    names = sorted((path.stem for path in options.draws.glob("*.npz") if path.stem not in done), key=order)
    for name in names:
        draw, start = options.draws / f"{name}.npz", starts[name.split("-")[0]]
        if name == names[0]:
            arrays = read(draw)
            FewShotClassifier(start, steps=1).fit(arrays["support"], arrays["support_labels"])  # compiles the kernels
        row = measure(draw, start, options.steps)
        append_line(options.out, json.dumps(row))
        print(f"{name}: {row['seconds']:.1f} s, before {row['before']:.1%}, after {row['after']:.1%}", flush=True)


if __name__ == "__main__":
    main()
