"""On the GPU: every operator by its Triton kernels equals its reference, in value and derivatives up to the second; so
does "folded", which is torch's own operators there.

In float64 to rounding, in float32 and bfloat16 as stated; on small odd shapes in every way that `check_op` knows, and
on the shapes of workload W1, where many programs share the work.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.conformance import CASES
from metadarts.ops import bare_pool, conv_block, implementation, mix, pool, separable, watched
from metadarts.ops.conv_block.reference import conv_block as plain_conv_block
from metadarts.ops.mix.reference import mix as plain_mix
from metadarts.ops.pool.op import KINDS
from metadarts.ops.pool.reference import pool as plain_pool
from metadarts.ops.separable.reference import separable as plain_separable
from metadarts.testing import OpCase, check_op
from metadarts.testing.operators import check_derivatives, derivatives

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("by", ["triton", "folded"])
@pytest.mark.parametrize("name", list(CASES))
def test_small_odd_shapes_in_every_way(device, name, by):
    for fast, reference, case in CASES[name]:
        with implementation(by), watched() as seen:
            check_op(fast, reference, [case], device)
        assert set(seen) == {(name, by)}


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stride", [1, 2])
def test_pool_without_batch_norm_is_torchs_and_right(device, kind, stride, channels):
    """Cells of tables have such pools. Torch's own gradients of averages are wrong over channels-last images."""
    case = OpCase("a pool alone", {"x": (2, 3, 5, 4, channels)})
    check_derivatives(
        lambda x: bare_pool(x, kind, stride), lambda x: bare_pool(x, kind, stride), case, device, torch.float64
    )


def stacked(op):
    return lambda weights, **candidates: torch.stack(op(list(candidates.values()), weights), 1)


def projection(op):
    return lambda x, pointwise: op(x, None, pointwise)


OPERATORS = {
    "separable": (separable, plain_separable),
    "projection": (projection(separable), projection(plain_separable)),
    "pool": (pool, plain_pool),
    "mix": (stacked(mix), stacked(plain_mix)),
    "conv_block": (conv_block, plain_conv_block),
}
T, E, N = 4, 3, 25


def taps(kernel, channels):
    return {"depthwise": (T, E, channels, kernel, kernel), "pointwise": (T, E, channels, channels)}


W1 = [
    ("separable", OpCase("5x5", {"x": (T, 1, N, 8, 8, 16), **taps(5, 16)})),
    ("separable", OpCase("3x3, dilated", {"x": (T, E, N, 4, 4, 32), **taps(3, 32)}, {}, {"dilation": 2})),
    ("separable", OpCase("5x5, stride 2", {"x": (T, 1, N, 8, 8, 32), **taps(5, 32)}, {}, {"stride": 2})),
    ("projection", OpCase("48 to 16 channels", {"x": (T, 1, N, 8, 8, 48), "pointwise": (T, 1, 48, 16)})),
    ("pool", OpCase("max", {"x": (T, N, 8, 8, 32)}, {}, {"kind": "max", "stride": 2})),
    ("pool", OpCase("avg", {"x": (T, N, 8, 8, 16)}, {}, {"kind": "avg", "stride": 1})),
    ("mix", OpCase("three candidates", {
        "weights": (3, T, E), "y0": (T, 1, N, 8, 8, 16), "y1": (T, E, N, 8, 8, 16), "y2": (T, E, N, 8, 8, 16),
    })),
    ("conv_block", OpCase("24 to 48 channels", {
        "x": (T, N, 8, 8, 24), "weight": (T, 48, 24, 3, 3), "scale": (T, 48), "bias": (T, 48),
    }, {}, {"rectify": True})),
]  # fmt: skip


@pytest.mark.parametrize(("name", "case"), W1)
def test_shapes_of_w1_in_float64(device, name, case):
    fast, reference = OPERATORS[name]
    with implementation("triton"):
        check_derivatives(fast, reference, case, device, torch.float64)


@pytest.mark.parametrize(("name", "case"), [row for row in W1 if row[0] != "conv_block"])
def test_shapes_of_w1_in_float32(device, name, case):
    """Not the block: among its many windows some have two pixels so near that float32 may take the other one."""
    fast, reference = OPERATORS[name]
    with implementation("triton"):
        check_derivatives(fast, reference, case, device, torch.float32)


VALUE, FIRST, SECOND = 1e-2, 3e-2, 6e-2
"""Relative Euclidean distance in bfloat16, whose numbers have 8 bits: a value is rounded once or twice, a derivative is
a sum of products of such."""
PICKED = 0.3
"""Where a maximum picks a pixel after rounding it may be a neighbour's equal; its derivative then goes elsewhere."""


@pytest.mark.parametrize(("name", "case"), W1)
def test_bfloat16_is_right_to_its_width(device, name, case):
    fast, reference = OPERATORS[name]
    given = {label: case.draw(label, shape).bfloat16() for label, shape in case.inputs.items()}
    with torch.no_grad():
        like = reference(**{label: t.double() for label, t in given.items()}, **case.options)
    upstream = case.draw("upstream", like.shape).bfloat16()

    def run(op, where, dtype):
        leaves = {label: t.to(where, dtype).requires_grad_() for label, t in given.items()}
        return derivatives(op, case, leaves, upstream.to(where, dtype).requires_grad_())

    truth = run(reference, "cpu", torch.float64)
    with implementation("triton"), watched() as seen:
        found = run(fast, device, torch.bfloat16)
    assert {how for _, how in seen} == {"triton"}
    for label, expected in truth.items():
        norm = float(expected.norm())
        limit = VALUE if label == "y" else FIRST if label.count("d ") == 1 else SECOND
        limit = max(limit, PICKED) if name == "conv_block" and label != "y" else limit
        distance = float((found[label].double().cpu() - expected).norm())
        assert distance <= limit * max(norm, 1e-6), f"{label}: {distance / max(norm, 1e-6):.3g} of its norm"
