"""The pool's Triton kernels, interpreted, against its reference to second order."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradgradcheck

from metadarts.core.rng import Key
from metadarts.ops import pool
from metadarts.ops.pool.op import KINDS
from metadarts.ops.pool.reference import pool as reference
from metadarts.testing import check_close
from metadarts.testing.operators import check_derivatives
from tests.opcases import pool_case as case

STAGES = ("forward", "normalise", "sums", "input_gradient", "second", "finish")


CASES = [
    case("one program, part of a tile", (1, 1, 3, 5, 3)),
    case("two programs, three tiles, 2 tasks", (2, 3, 4, 3, 2)),
    case("images smaller than the window", (1, 5, 1, 2, 2)),
    case("stride 2, odd sizes, a large eps", (1, 3, 5, 3, 3), stride=2, eps=0.7),
    case("stride 2, even sizes, three tiles", (1, 3, 6, 8, 2), stride=2),
    case("stride 3, whose windows do not overlap", (1, 2, 7, 5, 2), stride=3),
    case("stride 4, which leaves lines out", (1, 2, 6, 7, 2), stride=4),
    case("weighted, an image counts zero", (2, 3, 3, 2, 2), rows=[[0.25, 0.75, 0.0], [0.0, 0.5, 0.5]]),
    case("weighted, stride 2", (1, 3, 4, 3, 2), rows=[[0.5, 0.0, 0.5]], stride=2),
    case("channels in two blocks", (1, 2, 2, 3, 65)),
]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_pool_equals_its_law_to_second_order(case, kind, ran):
    check_derivatives(
        lambda x, **options: pool(x, kind, implementation="triton", **options),
        lambda x, **options: reference(x, kind, **options),
        case,
    )
    assert ran.only("pool", *STAGES)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=Key(("pool", str(shape))).torch())


@pytest.mark.parametrize(("kind", "stride"), [("max", 2), ("avg", 1)])
def test_float64_against_its_law_and_finite_differences(kind, stride, ran):
    def op(x):
        return pool(x, kind, stride, implementation="triton")

    check_derivatives(op, lambda x: reference(x, kind, stride), case("float64", (1, 1, 3, 4, 2)), dtype=torch.float64)
    assert gradgradcheck(op, [draw(1, 1, 3, 3, 2).requires_grad_()], fast_mode=True)
    assert ran.only("pool", *STAGES)


@pytest.mark.parametrize(("kind", "stride"), [("max", 1), ("max", 2), ("avg", 2)])
def test_bfloat16_in_value_and_first_derivative(kind, stride, ran):
    """Images far from zero, of which an average kept in half the width would have lost the deviations."""
    half = (draw(2, 3, 4, 5, 3) + 8.0).bfloat16()
    leaf, truth = half.clone().requires_grad_(), half.double().requires_grad_()
    y, expected = pool(leaf, kind, stride, implementation="triton"), reference(truth, kind, stride)
    assert y.dtype == torch.bfloat16
    check_close("y", y, expected, 1e-2)
    upstream = draw(*y.shape).bfloat16()
    (found,) = torch.autograd.grad(y, leaf, upstream)
    assert found.dtype == torch.bfloat16
    check_close("d x", found, torch.autograd.grad(expected, truth, upstream.double())[0], 1e-2)
    assert ran.only("pool", "forward", "normalise", "sums", "input_gradient")


def test_of_equal_maxima_the_first_takes_the_gradient():
    x = torch.zeros(1, 2, 4, 4, 3, dtype=torch.float64)
    x[0, 1] = draw(4, 4, 3).relu()
    upstream, gradients = draw(*x.shape), []
    for op in (lambda leaf: pool(leaf, "max", implementation="triton"), lambda leaf: reference(leaf, "max")):
        leaf = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(op(leaf), leaf, upstream)[0])
    check_close("dx", *gradients, 1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pixel", [(0, 0), (3, 2)])
def test_a_nan_is_never_lost(pixel, kind, stride):
    x = draw(1, 2, 4, 4, 3)
    x[0, 0, *pixel, 1] = torch.nan
    y = pool(x, kind, stride, implementation="triton")
    assert y[..., 1].isnan().all()
    assert not y[..., [0, 2]].isnan().any()


def test_a_third_derivative_raises():
    leaf = draw(1, 2, 2, 2, 2).requires_grad_()
    y = pool(leaf, "max", implementation="triton")
    (first,) = torch.autograd.grad(y.square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="pool: no third derivative"):
        torch.autograd.grad(first.square().sum(), leaf, create_graph=True)
