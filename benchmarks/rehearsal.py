"""A benchmark gone through on this machine with tiny sizes, so that its logic is exercised where there is no GPU.

Workloads run in this process instead of one of their own, operators by Triton's interpreter where all have a kernel,
and a stand-in takes the place of CUDA graphs. No figure of a rehearsal means anything.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.machine import rehearsed_kernels
from benchmarks.peers import worker
from benchmarks.peers.process import run_isolated

WORDS = "a rehearsal: tiny sizes on this machine's CPU; no figure of it means anything"


def in_process(
    function: str,
    kwargs: Mapping[str, Any],
    *,
    repetitions: int = 1,
    warmups: int = 1,
    threads: int = 1,
    timeout: float | None = None,
) -> dict[str, Any]:
    """`run_isolated` without the process."""
    request = {"function": function, "kwargs": dict(kwargs), "repetitions": repetitions, "warmups": warmups}
    with rehearsed_kernels():
        return {**worker.answer(request), "threads": threads}


def runner(rehearse: bool, otherwise: Callable[..., dict[str, Any]] = run_isolated) -> Callable[..., dict[str, Any]]:
    """How workloads are run."""
    return in_process if rehearse else otherwise


def add_options(parser: argparse.ArgumentParser) -> None:
    """--device, --rehearse and --conformed, which every benchmark of `make gpu` takes."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rehearse", action="store_true", help=WORDS)
    parser.add_argument(
        "--conformed", action="store_true", help="the operators passed their conformance just now: do not ask again"
    )


def check_options(options: argparse.Namespace) -> None:
    """A rehearsal is of the GPU's cases, on a CPU; it says what it is."""
    if options.rehearse:
        print(WORDS, flush=True)
