"""The convolutional block's Triton kernels, interpreted, against its reference to second order."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from torch.autograd import gradgradcheck

from metadarts.core.rng import Key
from metadarts.ops import conv_block
from metadarts.ops.conv_block.reference import conv_block as reference
from metadarts.testing import check_close
from metadarts.testing.operators import check_derivatives
from tests.opcases import conv_block_case as case

VALUE = ("forward", "finish")
FIRST = (*VALUE, "sums", "pullback", "weight_gradient")
SECOND = (*FIRST, "input_gradient", "second", "second_finish")


ONE_PROGRAM = [
    case("one program, part of a tile, an odd last line and column", (1, 3, 5)),
    case("2x2, the smallest", (2, 2, 2), (1, 1)),
    case("5x5 on images smaller than the kernel", (2, 3, 2), kernel=5),
    case("1x1, 17 channels to 3, rectified", (2, 2, 3), (17, 3), kernel=1, rectify=True),
    case("17 channels out, in two blocks", (1, 3, 4), (3, 17), kernel=1),
]
TWO_PROGRAMS = [
    case("two programs, two tiles", (2, 5, 3)),
    case("three tiles, rectified", (2, 4, 5), (3, 2), rectify=True),
    case("a step of one tap: 16 channels to 16", (2, 3, 3), (16, 16), rectify=True),
    case("weighted, an image counts zero", (3, 3, 2), tasks=2, rows=[[0.25, 0.75, 0.0], [0.0, 0.5, 0.5]]),
    case("two tasks, rectified, a large eps", (2, 3, 3), tasks=2, rectify=True, eps=0.7),
]


def triton_block(*given, **named):
    return conv_block(*given, **named, implementation="triton")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("case", ONE_PROGRAM, ids=lambda case: case.id)
def test_conv_block_equals_its_law_to_second_order(case, ran):
    check_derivatives(triton_block, reference, case)
    assert ran.only("conv_block", *SECOND)


@pytest.mark.parametrize("case", TWO_PROGRAMS, ids=lambda case: case.id)
def test_programs_that_share_a_task_join_their_parts(case, ran):
    check_derivatives(triton_block, reference, case)
    assert ran.only("conv_block", *SECOND, "join")


def test_packed_filters_are_the_same_filters(ran, monkeypatch):
    """They are packed from 4096 numbers on, which is long to interpret."""
    kernels = import_module("metadarts.ops.conv_block.triton_kernels")  # the package's name is the operator's too
    monkeypatch.setattr(kernels, "SMALL", 0)
    check_derivatives(triton_block, reference, case("packed", (1, 3, 4), (3, 2), rectify=True))
    assert ran.only("conv_block", *SECOND)


@pytest.mark.parametrize("shape", [((1, 3, 3), (2, 3)), ((2, 3, 3), (3, 2))], ids=["one program", "two programs"])
def test_float64_keeps_its_precision(shape, ran):
    check_derivatives(triton_block, reference, case("float64", *shape, rectify=True), dtype=torch.float64)
    assert ran.only("conv_block", *SECOND, *(["join"] if shape[0][0] == 2 else []))


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=Key(("conv_block", str(shape))).torch())


def test_float64_against_finite_differences(ran):
    leaves = [
        tensor.requires_grad_() for tensor in (draw(1, 2, 2, 3, 2), draw(1, 3, 2, 3, 3), draw(1, 3), draw(3, 1).T)
    ]
    assert gradgradcheck(triton_block, leaves, fast_mode=True)
    assert ran.only("conv_block", *SECOND)


def test_an_input_that_is_data_gets_no_gradient_and_the_rest_keep_theirs(ran):
    x, upstream, found = draw(1, 3, 3, 4, 3), draw(1, 3, 1, 2, 2), []
    for op, dtype in ((triton_block, torch.float32), (reference, torch.float64)):
        leaves = [leaf.to(dtype).requires_grad_() for leaf in (draw(1, 2, 3, 3, 3), draw(1, 2), draw(2, 1).T)]
        first = torch.autograd.grad(op(x.to(dtype), *leaves), leaves, upstream.to(dtype), create_graph=True)
        norm = sum(gradient.square().sum() for gradient in first)
        found.append([*first, *torch.autograd.grad(norm, leaves[:2])])
    for what, actual, expected in zip(("dw", "ds", "db", "dw again", "ds again"), *found, strict=True):
        check_close(what, actual, expected, 2e-5)
    assert ran.only("conv_block", *FIRST, "join", "second", "second_finish")


def test_bfloat16_in_value_and_first_derivatives(ran):
    names = ("x", "weight", "scale", "bias")
    halves = [tensor.bfloat16() for tensor in (draw(1, 2, 3, 4, 5), draw(1, 3, 5, 3, 3), draw(1, 3), draw(3, 1).T)]
    upstream = draw(1, 2, 1, 2, 3).bfloat16()
    leaves = [tensor.clone().requires_grad_() for tensor in halves]
    truths = [tensor.double().requires_grad_() for tensor in halves]
    y, truth = conv_block(*leaves, rectify=True, implementation="triton"), reference(*truths, rectify=True)
    assert y.dtype == torch.bfloat16
    check_close("y", y, truth, 2e-2)
    found = torch.autograd.grad(y, leaves, upstream)
    for name, grad, expected in zip(names, found, torch.autograd.grad(truth, truths, upstream.double()), strict=True):
        assert grad.dtype == torch.bfloat16
        check_close(f"d {name}", grad, expected, 2e-2)
    assert ran.only("conv_block", *FIRST, "join", "input_gradient")


def test_the_first_of_equal_numbers_is_the_maximum(ran):
    """As in the CPU's kernels; the gradient goes there alone."""
    x = torch.ones(1, 1, 2, 2, 1)
    given = [draw(*shape).float().requires_grad_() for shape in ((1, 1, 1, 1, 1), (1, 1), (1, 1))]
    found = []
    for implementation in ("triton", "reference"):
        leaf = x.clone().requires_grad_()
        y = conv_block(leaf, *given, torch.ones(1, 1), eps=1.0, implementation=implementation)
        found.append(torch.autograd.grad(y.sum(), [leaf, *given]))
    for name, actual, expected in zip(("x", "weight", "scale", "bias"), *found, strict=True):
        check_close(f"d {name}", actual, expected, 1e-6)


@pytest.mark.parametrize("rectify", [False, True], ids=["plain", "rectified"])
def test_a_nan_is_never_lost(rectify):
    x = draw(2, 1, 2, 3, 2).float()
    x[0, 0, 1, 0, 1] = torch.nan
    weight, scale, bias = (draw(*shape).float() for shape in ((2, 3, 2, 1, 1), (2, 3), (2, 3)))
    y = conv_block(x, weight, scale, bias, None, rectify, implementation="triton")
    assert y[0].isnan().all()
    assert not y[1].isnan().any()


def test_a_third_derivative_raises():
    leaves = [
        tensor.requires_grad_() for tensor in (draw(1, 1, 2, 2, 2), draw(1, 2, 2, 1, 1), draw(1, 2), draw(2, 1).T)
    ]
    y = conv_block(*leaves, implementation="triton")
    (first,) = torch.autograd.grad(y.square().sum(), leaves[1], create_graph=True)
    with pytest.raises(RuntimeError, match="conv_block: no third derivative"):
        torch.autograd.grad(first.square().sum(), leaves[0], create_graph=True)
