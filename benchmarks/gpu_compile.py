"""The kernels of the GPU tests and benchmarks, compiled ahead on all cores: ``python -m benchmarks.gpu_compile``.

A process compiles its kernels one after another as it meets them: W1's exact meta-step alone has some 350, and each
precision has its own. While it does, the card waits. Here every workload is traced on meta tensors, each of many
processes compiles its share, and Triton's cache on disk has them when they are met (H200, 15 processes: 577 kernels in
53 s). What is missing afterwards is compiled when it is met, as ever.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import meta_step, rehearsal
from benchmarks.account import CAPABILITY, card, compiled, signature
from benchmarks.conformance import CASES
from benchmarks.gpu_search import NOTHING_TO_RUN
from benchmarks.machine import CHECKOUT
from benchmarks.peers.workloads import Episode, random_batch
from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch
from metadarts.inner import InnerLoop
from metadarts.meta import evaluate, mean_gradient
from metadarts.networks import Learner
from metadarts.ops import implementation
from metadarts.ops.choice import no_triton
from metadarts.ops.gpu.launch import Launch, launches
from metadarts.testing import OpCase, generic_params, random_tasks, tiny_learner

TYPES = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.float32}
"""Precision -> the type of the parameters under it."""


def workloads(small: bool = False) -> Iterator[tuple[str, Callable[[], object]]]:
    """(name, what to do on meta tensors); ``small``: one operator's."""
    names = ("mix",) if small else tuple(CASES)
    for name in names:
        for fast, _, case in CASES[name]:
            for dtype in (torch.float32,) if small else (torch.float32, torch.float64):
                yield f"{name}, {case.id}", partial(_derivatives, fast, case, dtype)
    if small:
        return
    for precision, dtype in TYPES.items():
        for order in ("second", "first"):
            for head, bn in (("shared", "transductive"), ("prototype", "support")):
                learner = tiny_learner(head=head, bn=bn, affine=True, precision=precision)
                params, tasks = generic_params(learner, Key.from_seed(1)), random_tasks(Key.from_seed(0), tasks=3)
                inner = InnerLoop(3, weight_rate=0.05, alpha_rate=2.0, order=order)
                yield f"tests, {head}, {order}, {precision}", _step(learner, params, tasks, inner, dtype)
            network, params, batch = meta_step.setting(device="meta")
            learner, inner = Learner(network, precision=precision), meta_step.inner_loop(order, 0)
            yield f"W1, {order}, {precision}", _step(learner, params, batch, inner, dtype)
    yield "a validation of the search", _validation


def _step(learner: Learner, params: Params, batch: TaskBatch, inner: InnerLoop, dtype: torch.dtype) -> Any:
    there = {name: tensor.to("meta", dtype) for name, tensor in params.items()}
    return lambda: mean_gradient(learner, there, batch.to("meta", dtype), inner)


def _validation() -> None:
    """Validation tasks of W1's network, ten at a time."""
    network, params, _ = meta_step.setting(device="meta")
    batch = random_batch(Episode(tasks=10)).to("meta")
    inner = replace(meta_step.inner_loop("first", 0), steps=1)
    evaluate(Learner(network), params, lambda first, last: batch, inner, tasks=batch.tasks, batch_size=batch.tasks)


def _derivatives(op: Callable[..., Tensor], case: OpCase, dtype: torch.dtype) -> None:
    """Value, first and second derivatives of one case."""
    given = {
        name: torch.empty(shape, dtype=dtype, device="meta", requires_grad=True) for name, shape in case.inputs.items()
    }
    constants = {name: tensor.to("meta", dtype) for name, tensor in case.constants.items()}
    y = op(**given, **constants, **case.options)
    upstream = torch.empty_like(y, requires_grad=True)
    first = torch.autograd.grad(y, list(given.values()), upstream, create_graph=True)
    sources, along = [*given.values(), upstream], [torch.empty_like(grad) for grad in first]
    for grads, pulls in [(list(first), along), *(([grad], [pull]) for grad, pull in zip(first, along, strict=True))]:
        torch.autograd.grad(grads, sources, pulls, retain_graph=True, allow_unused=True)


def traced(small: bool = False) -> tuple[dict[tuple[Any, ...], Launch], int]:
    """Every kernel to compile, once, and how many workloads could not be traced: which ones is said."""
    found: dict[tuple[Any, ...], Launch] = {}
    failed = 0
    for name, run in workloads(small):
        with launches() as ours, implementation("triton"):
            try:
                run()
            except Exception as error:
                failed += 1
                print(f"{name}: not traced ({type(error).__name__}: {error})", flush=True)
        found |= {signature(launch): launch for launch in ours}
    return found, failed


def share(number: int, of: int, capability: int, small: bool = False) -> tuple[int, int]:
    """Compile share ``number`` of ``of``; how many kernels, and how many of them or of the workloads failed."""
    every, failed = traced(small)
    mine = [launch for key, launch in every.items() if _place(key, of) == number]
    with card(capability):
        for launch in mine:
            try:
                compiled(launch)
            except Exception as error:
                failed += 1
                print(f"{launch.kernel.name} {launch.constants}: {type(error).__name__}: {error}"[:600], flush=True)
    return len(mine), failed


def _place(key: tuple[Any, ...], of: int) -> int:
    return int(hashlib.sha256(repr(key).encode()).hexdigest(), 16) % of


def main(arguments: list[str] | None = None) -> int:
    """All shares, each in a process of its own; 1 when a kernel does not compile."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_compile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--share", type=int, nargs=2, metavar=("I", "N"), help="one share of N, in this process")
    parser.add_argument("--capability", type=int, default=0, help="of the card, 90 for 9.0; default: this machine's")
    parser.add_argument("--out", type=Path, default=None, help="taken and not used: nothing is timed")
    rehearsal.add_options(parser)
    options = parser.parse_args(arguments)
    rehearsal.check_options(options)
    if reason := no_triton():
        print(f"compile: skipped, {reason}")
        return NOTHING_TO_RUN
    capability = options.capability or _capability()
    if options.share or options.rehearse:
        number, of = options.share or (0, 1)
        done, failed = share(number, of, capability, options.rehearse)
        print(f"{done} kernels, {failed} failed", flush=True)
        return 1 if failed else 0
    begun = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.gpu_compile", "--capability", str(capability), "--share"]
    every = range(options.processes)
    shares = [subprocess.Popen([*command, str(n), str(options.processes)], cwd=CHECKOUT) for n in every]
    codes = [process.wait() for process in shares]
    print(f"compiled in {time.monotonic() - begun:.0f} s by {options.processes} processes", flush=True)
    return 1 if any(codes) else 0


def _capability() -> int:
    """Of this machine's card; `CAPABILITY` where there is none."""
    if not torch.cuda.is_available():
        return CAPABILITY
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


if __name__ == "__main__":
    raise SystemExit(main())
