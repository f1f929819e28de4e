"""Are the operators right? Asked in a process of its own before anything is timed: a fast wrong answer is no answer.

A few small cases of each operator against its plain torch reference, in value and in every derivative up to the second
(`metadarts.testing.check_op`); the whole suite is tests/ops. ``python -m benchmarks.conformance --device cuda`` asks it
by itself, and says which implementation it asked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import rehearsal
from benchmarks.peers.process import run_isolated
from metadarts import ops
from metadarts.ops.conv_block import reference as conv_block_reference
from metadarts.ops.mix import reference as mix_reference
from metadarts.ops.pool import reference as pool_reference
from metadarts.ops.separable import reference as separable_reference
from metadarts.ops.vector.launch import compile_seconds
from metadarts.testing import OpCase, check_op
from metadarts.testing.operators import check_derivatives

Op = Callable[..., Tensor]


def _rows(tasks: int, images: int) -> Tensor:
    """[T, N]: unlike shares, one of them zero, as padding has."""
    shares = torch.arange(float(tasks * images), dtype=torch.float64).view(tasks, images)
    return shares / shares.sum(1, keepdim=True)


def _named(op: Callable[..., tuple[Tensor, ...]]) -> Op:
    """check_op names its inputs and wants one output; mix has a list of either."""
    return lambda weights, **candidates: torch.stack(op(list(candidates.values()), weights), 1)


def _projection(op: Op) -> Op:
    return lambda x, pointwise: op(x, None, pointwise)


TAPS3, TAPS5 = (2, 2, 3, 3, 3), (2, 2, 3, 5, 5)
CASES: dict[str, tuple[tuple[Op, Op, OpCase], ...]] = {
    "separable": (
        (
            ops.separable,
            separable_reference.separable,
            OpCase(
                "5x5 of stride 2, shared input, weighted images",
                {"x": (2, 1, 3, 5, 4, 3), "depthwise": TAPS5, "pointwise": (2, 2, 3, 2)},
                {"rows": _rows(2, 3)},
                {"stride": 2},
            ),
        ),
        (
            ops.separable,
            separable_reference.separable,
            OpCase(
                "dilated 3x3, an input for each edge, more channels than lanes",
                {"x": (1, 2, 2, 4, 3, 17), "depthwise": (1, 2, 17, 3, 3), "pointwise": (1, 2, 17, 18)},
                options={"dilation": 2},
            ),
        ),
        (
            _projection(ops.separable),
            _projection(separable_reference.separable),
            OpCase("projection", {"x": (2, 1, 2, 3, 3, 4), "pointwise": (2, 2, 4, 3)}),
        ),
    ),
    "pool": tuple(
        (
            ops.pool,
            pool_reference.pool,
            OpCase(f"{kind} of stride {stride}", {"x": (2, 3, 5, 4, 3)}, options={"kind": kind, "stride": stride}),
        )
        for kind in ("max", "avg")
        for stride in (1, 2)
    ),
    "mix": (
        (
            _named(ops.mix),
            _named(mix_reference.mix),
            OpCase(
                "shared and own candidates",
                {"weights": (3, 2, 2), "y0": (2, 1, 2, 3, 2, 3), "y1": (2, 2, 2, 3, 2, 3), "y2": (2, 2, 2, 3, 2, 3)},
            ),
        ),
    ),
    "conv_block": (
        (
            ops.conv_block,
            conv_block_reference.conv_block,
            OpCase(
                "rectified, weighted images, more channels than lanes",
                {"x": (2, 3, 4, 5, 3), "weight": (2, 17, 3, 3, 3), "scale": (2, 17), "bias": (2, 17)},
                {"rows": _rows(2, 3)},
                {"rectify": True},
            ),
        ),
    ),
}
"""Operator -> (fast, reference, case); those of the DARTS search network."""


SMALL: dict[str, dict[str, tuple[int, ...]]] = {
    "separable": {"x": (1, 1, 2, 2, 1, 2), "depthwise": (1, 1, 2, 3, 3), "pointwise": (1, 1, 2, 2)},
    "pool": {"x": (1, 2, 2, 2, 1)},
    "mix": {"weights": (2, 1, 1), "y0": (1, 1, 2, 1, 2, 1), "y1": (1, 1, 2, 1, 2, 1)},
    "conv_block": {"x": (1, 2, 2, 2, 1), "weight": (1, 2, 1, 3, 3), "scale": (1, 2), "bias": (1, 2)},
}
"""Sizes for an interpreter, of the first case of each operator, its options aside."""


def _small(name: str) -> tuple[tuple[Op, Op, OpCase], ...]:
    fast, reference, case = CASES[name][0]
    options = {key: value for key, value in case.options.items() if key == "kind"}
    return ((fast, reference, OpCase("for an interpreter", SMALL[name], options=options)),)


def conformance(device: str = "cpu", small: bool = False) -> Callable[[], dict[str, Any]]:
    """Workload: "faults", operator -> what is wrong with it (empty when every case passes), "compile_seconds", and
    "chosen", operator -> the implementations that ran.

    The cases run every kernel in both precisions, so that what comes after this finds them compiled. ``small``: one
    case of each operator in float32, without finite differences, for an interpreter.
    """

    def run() -> dict[str, Any]:
        with ops.watched() as seen:
            faults = {name: _fault(_small(name) if small else cases, device, small) for name, cases in CASES.items()}
        chosen = {name: sorted({how for op, how in seen if op == name}) for name in CASES}
        return {"faults": faults, "chosen": chosen, "compile_seconds": compile_seconds()}

    return run


def _fault(cases: tuple[tuple[Op, Op, OpCase], ...], device: str, small: bool = False) -> str:
    for fast, reference, case in cases:
        try:
            if small:
                check_derivatives(fast, reference, case, device)
            else:
                check_op(fast, reference, [case], device)
        except Exception as error:  # a kernel that raises is as red as one that is wrong
            return f"{type(error).__name__}: {error}"
    return ""


def conforms(device: str, threads: int, rehearse: bool = False) -> bool:
    """Run `conformance` in a process of its own and print what it found; whether all operators passed."""
    kwargs: dict[str, Any] = {"device": device} | ({"small": True} if rehearse else {})
    run = rehearsal.runner(rehearse, run_isolated)
    result = run("benchmarks.conformance:conformance", kwargs, warmups=0, threads=threads)["result"]
    seconds, chosen = result["compile_seconds"], result.get("chosen", {})
    print(f"compiling kernels: {seconds:.1f} s (none where this machine's cache holds them), in no figure below")
    for name, fault in result["faults"].items():
        by = f" ({', '.join(chosen[name])})" if chosen.get(name) else ""
        print(f"conformance of {name}{by}: {'red' if fault else 'green'}", flush=True)
        if fault:
            print(f"{name} disagrees with its reference: nothing was timed\n{fault}", file=sys.stderr)
    return not any(result["faults"].values())


def main(arguments: list[str] | None = None) -> int:
    """Ask, print; 1 when an operator is red."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conformance", description=__doc__)
    rehearsal.add_options(parser)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None, help="taken and not used: nothing is timed")
    options = parser.parse_args(arguments)
    rehearsal.check_options(options)
    return 0 if conforms(options.device, options.threads, options.rehearse) else 1


if __name__ == "__main__":
    raise SystemExit(main())
