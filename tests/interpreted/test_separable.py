"""The separable convolution's Triton kernels, interpreted, against its reference to second order."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradgradcheck

from metadarts.core.rng import Key
from metadarts.ops import separable
from metadarts.ops.separable.reference import separable as reference
from metadarts.testing import check_close
from metadarts.testing.operators import check_derivatives
from tests.opcases import separable_case as case

STAGES = ("forward", "normalise", "sums", "backward", "input_gradient", "second", "finish")


CASES = [
    case("one program, part of a tile", (1, 3, 5)),
    case("two programs, three tiles, 5 channels to 2", (2, 5, 4), (5, 2)),
    case("5x5 at stride 2, odd sizes", (2, 5, 3), (2, 3), kernel=5, stride=2),
    case("3x3 at dilation 2, an input that 2 edges share", (1, 5, 4), edges=2, shared=True, dilation=2),
    case("5x5 at stride and dilation 2", (2, 4, 5), (3, 2), kernel=5, stride=2, dilation=2),
    case("stride 2, 2 tasks, 2 edges of their own, a large eps", (2, 2, 3), tasks=2, edges=2, stride=2, eps=0.7),
    case("weighted, an image counts zero", (3, 3, 2), tasks=2, rows=[[0.25, 0.75, 0.0], [0.0, 0.5, 0.5]]),
    case("needed: 1 of 2 edges that share, of one task nothing", (2, 3, 3), tasks=2, edges=2, shared=True,
         needed=[[0, 1], [0, 0]]),
    case("needed: 1 of 2 edges of their own", (2, 3, 3), edges=2, needed=[[1, 0]]),
    case("projection of a shared input, 17 channels to 9", (2, 3, 3), (17, 9), kernel=0, edges=2, shared=True),
    case("projection, weighted", (2, 2, 3), (2, 3), kernel=0, rows=[[0.25, 0.75]]),
    case("channels in two blocks", (1, 2, 9), (3, 65), kernel=1),
    case("channels in two blocks, the other way round", (1, 2, 9), (65, 3), kernel=1),
]  # fmt: skip


def triton_separable(x, pointwise, depthwise=None, **options):
    return separable(x, depthwise, pointwise, implementation="triton", **options)


def expected(x, pointwise, depthwise=None, **options):
    return reference(x, depthwise, pointwise, **options)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_separable_equals_its_law_to_second_order(case, ran):
    check_derivatives(triton_separable, expected, case)
    assert ran.only("separable", *STAGES)


def test_float64_keeps_its_precision(ran):
    check_derivatives(triton_separable, expected, case("float64", (2, 3, 3), (3, 2)), dtype=torch.float64)
    assert ran.only("separable", *STAGES)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=Key(("separable", str(shape))).torch())


@pytest.mark.parametrize("stride", [1, 2])
def test_float64_against_finite_differences(stride, ran):
    leaves = [tensor.requires_grad_() for tensor in (draw(1, 1, 2, 3, 3, 2), draw(1, 1, 2, 3, 3), draw(1, 1, 2, 3))]

    def op(x, depthwise, pointwise):
        return separable(x, depthwise, pointwise, stride=stride, implementation="triton")

    assert gradgradcheck(op, leaves, fast_mode=True)
    assert ran.only("separable", *STAGES)


def test_bfloat16_in_value_and_first_derivatives(ran):
    names = ("x", "depthwise", "pointwise")
    halves = [tensor.bfloat16() for tensor in (draw(1, 2, 2, 3, 4, 5), draw(1, 2, 5, 3, 3), draw(1, 2, 5, 3))]
    upstream = draw(1, 2, 2, 3, 4, 3).bfloat16()
    leaves = [tensor.clone().requires_grad_() for tensor in halves]
    truths = [tensor.double().requires_grad_() for tensor in halves]
    y, truth = separable(*leaves, implementation="triton"), reference(*truths)
    assert y.dtype == torch.bfloat16
    check_close("y", y, truth, 2e-2)
    found = torch.autograd.grad(y, leaves, upstream)
    for name, grad, expected in zip(names, found, torch.autograd.grad(truth, truths, upstream.double()), strict=True):
        assert grad.dtype == torch.bfloat16
        check_close(f"d {name}", grad, expected, 2e-2)
    assert ran.only("separable", "forward", "normalise", "sums", "backward", "input_gradient")


def test_a_third_derivative_raises():
    leaves = [tensor.requires_grad_() for tensor in (draw(1, 1, 1, 2, 2, 2), draw(1, 1, 2, 3, 3), draw(1, 1, 2, 2))]
    y = separable(*leaves, implementation="triton")
    (first,) = torch.autograd.grad(y.square().sum(), leaves[1], create_graph=True)
    with pytest.raises(RuntimeError, match="separable: no third derivative"):
        torch.autograd.grad(first.square().sum(), leaves[0], create_graph=True)
