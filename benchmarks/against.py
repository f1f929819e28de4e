"""This checkout beside another one, in turns: ``python -m benchmarks.against CHECKOUT``.

Timed are one meta-gradient on workload W1 (exact and first order), ``import metadarts``, and ``metadarts --help``. Each
repetition is a process of its own in each checkout, so that a slow minute of the machine hits both. Both run with this
interpreter and its packages. The losses of W1 must agree before anything is reported. Nothing is written.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.peers.process import ROOT, environment, run_isolated
from benchmarks.rows import percentiles
from metadarts.core.machine import device_name, version

AGREEMENT = 1e-5
"""Largest relative difference of the losses of W1, which are float32."""
ORDERS = ("second", "first")
IMPORT = "import metadarts"
HELP = "import sys; sys.argv[1:] = ['--help']; from metadarts.cli import main; main()"
Timed = Callable[[Path], float]
"""checkout -> seconds."""


def meta_gradient(root: Path, losses: dict[tuple[str, Path], float], order: str, threads: int) -> float:
    """Seconds of one meta-gradient on W1; its mean query loss is kept in ``losses``."""
    given = {"order": order, "checkpoint": 0, "device": "cpu"}
    answer = run_isolated("benchmarks.meta_step:ours", given, threads=threads, root=root)
    losses[order, root] = answer["result"]
    return float(answer["seconds"][0])


def script(root: Path, code: str) -> float:
    """Seconds of a Python process that runs ``code``."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=root, env=environment(1), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def in_turns(timed: Timed, roots: Sequence[Path], repetitions: int) -> list[list[float]]:
    """The seconds of each of ``roots``, who take turns."""
    rounds = [[timed(root) for root in roots] for _ in range(repetitions)]
    return [list(seconds) for seconds in zip(*rounds, strict=True)]


def line(what: str, ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Percentiles of both, and of our time over theirs, repetition by repetition."""
    ratios = [own / other for own, other in zip(ours, theirs, strict=True)]
    columns = (" / ".join(f"{value:.4g}" for value in percentiles(values)) for values in (ours, theirs, ratios))
    return " | ".join((f"{what:20}", *(f"{column:24}" for column in columns)))


def main(arguments: list[str] | None = None) -> int:
    """The command; 1 where the two do not compute the same."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.against", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, help="the root of the other checkout")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of W1")
    options = parser.parse_args(arguments)
    roots = (ROOT, options.checkout.resolve())
    losses: dict[tuple[str, Path], float] = {}
    work: dict[str, Timed] = {IMPORT: partial(script, code=IMPORT), "metadarts --help": partial(script, code=HELP)}
    for order in ORDERS:
        work[f"W1, {order} order"] = partial(meta_gradient, losses=losses, order=order, threads=options.threads)
    print(f"{device_name('cpu')}, torch {version('torch')}, {options.threads} threads; p20 / p50 / p80 in seconds")
    print(" | ".join((f"{'':20}", f"{'this checkout':24}", f"{'the other':24}", "ratio")))
    for what, timed in work.items():
        print(line(what, *in_turns(timed, roots, options.repetitions)), flush=True)
    far = [order for order in ORDERS if not _agree(*(losses[order, root] for root in roots))]
    if far:
        print(f"losses of W1 differ by more than {AGREEMENT} ({', '.join(far)}): compare nothing", file=sys.stderr)
    return bool(far)


def _agree(ours: float, theirs: float) -> bool:
    return abs(ours - theirs) <= AGREEMENT * abs(theirs)


if __name__ == "__main__":
    sys.exit(main())
