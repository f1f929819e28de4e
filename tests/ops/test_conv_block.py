"""The convolutional block against its reference, in every implementation; that against torch's own modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metadarts.core.rng import Key
from metadarts.ops import conv_block, implementations
from metadarts.ops.conv_block.reference import conv_block as reference
from metadarts.testing import check_close, check_op
from tests.opcases import conv_block_case as case
from tests.opcases import shares

CASES = [
    case("odd sizes, whose last line and column no window holds", (2, 5, 3)),
    case("even sizes", (2, 4, 2)),
    case("2x2, the smallest: one pixel comes out", (3, 2, 2)),
    case("5x5 on images smaller than the kernel", (2, 3, 2), kernel=5),
    case("1x1", (2, 2, 3), kernel=1),
    case("7x7", (1, 3, 4), kernel=7),
    case("rectified", (2, 4, 3), rectify=True),
    case("lines of 8 + 5 x 1 pixels", (1, 3, 13)),
    case("one channel out", (2, 3, 4), (3, 1)),
    case("whole registers: 8 channels in, 16 out", (1, 3, 2), (8, 16)),
    case("a register and 1 of float32, two and 1 of float64", (1, 3, 2), (3, 17)),
    case("17 and 18 channels, rectified", (1, 2, 3), (17, 18), kernel=1, rectify=True),
    case("a register and 1 of float64", (2, 2, 2), (9, 10)),
    case("several tasks", (2, 3, 2), tasks=3),
    case("several tasks, several registers, rectified", (1, 2, 3), (1, 18), tasks=2, rectify=True),
    case("weighted: unequal", (3, 2, 3), tasks=2, rows=shares([1, 2, 3], [5, 1, 1])),
    case("weighted: an image counts zero", (3, 3, 2), tasks=2, rows=shares([1, 1, 0], [0, 2, 1]), rectify=True),
    case("a large eps that shows in the result", (2, 2, 3), eps=0.7),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("implementation", implementations()["conv_block"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_conv_block_equals_its_law_to_second_order(case, implementation, ran):
    def op(**given):
        return conv_block(**given, implementation=implementation)

    check_op(op, reference, [case])
    assert ran.only("conv_block", implementation)


def folded_memory(tensor: torch.Tensor) -> torch.Tensor:
    """[T, N, H, W, C] in the memory of [N, H, W, T, C]; other tensors as they are."""
    if tensor.dim() != 5 or tensor.shape[-1] == tensor.shape[-2] == 3:  # a weight
        return tensor.clone()
    return tensor.permute(1, 2, 3, 0, 4).contiguous().permute(3, 0, 1, 2, 4)


def one_task_for_all(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:1].clone().expand(tensor.shape)


LAYOUTS = {"folded memory": folded_memory, "memory that tasks share": one_task_for_all}


@pytest.mark.parametrize("implementation", implementations()["conv_block"])
@pytest.mark.parametrize("rectify", [False, True], ids=["plain", "rectified"])
def test_conv_block_reads_folded_and_expanded_memory(rectify, implementation, ran):
    def op(**given):
        return conv_block(**given, implementation=implementation)

    check_op(op, reference, [case("layouts", (2, 4, 3), (2, 5), tasks=2, rectify=rectify)], layouts=LAYOUTS)
    assert ran.only("conv_block", implementation)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=Key(("conv_block", str(shape))).torch())


@pytest.mark.parametrize("rectify", [False, True], ids=["plain", "rectified"])
@pytest.mark.parametrize("kernel", [3, 5])
def test_the_law_is_torchs_own_modules(kernel, rectify):
    x, weight, scale, bias = draw(1, 3, 5, 6, 2), draw(1, 4, 2, kernel, kernel), draw(1, 4), draw(2, 4)[:1]
    stages = nn.Sequential(
        nn.ReLU() if rectify else nn.Identity(),
        nn.Conv2d(2, 4, kernel, 1, kernel // 2, bias=False),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.MaxPool2d(2),
    ).double()
    with torch.no_grad():
        stages[1].weight.copy_(weight[0])
        stages[2].weight.copy_(scale[0])
        stages[2].bias.copy_(bias[0])
        expected = stages(x[0].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    check_close("y", reference(x, weight, scale, bias, rectify=rectify)[0], expected, 1e-12)


@pytest.mark.parametrize("implementation", implementations()["conv_block"])
def test_an_input_that_is_data_gets_no_gradient_and_the_rest_keep_theirs(implementation, ran):
    """In the first block x is an image, so nobody asks for dx or for what would flow through it."""
    leaves = [draw(2, 4, 2, 3, 3), draw(2, 4), draw(3, 4)[:2]]
    x, upstream, found = draw(2, 3, 4, 4, 2), draw(2, 3, 2, 2, 4), []
    for op in (lambda *given: conv_block(*given, implementation=implementation), reference):
        weight, scale, bias = (leaf.clone().requires_grad_() for leaf in leaves)
        first = torch.autograd.grad(op(x, weight, scale, bias), (weight, scale, bias), upstream, create_graph=True)
        norm = sum(gradient.square().sum() for gradient in first)
        found.append([*first, *torch.autograd.grad(norm, (weight, scale))])
    for what, actual, expected in zip(("dw", "ds", "db", "dw again", "ds again"), *found, strict=True):
        check_close(what, actual, expected, 1e-11)
    assert ("conv_block.input_gradient" in ran.kernels) is False


@pytest.mark.parametrize("implementation", implementations()["conv_block"])
@pytest.mark.parametrize("rectify", [False, True], ids=["plain", "rectified"])
def test_a_nan_is_never_lost(rectify, implementation):
    x = draw(2, 2, 4, 4, 2)
    x[0, 0, 1, 0, 1] = torch.nan
    y = conv_block(x, draw(2, 3, 2, 1, 1), draw(2, 3), draw(2, 3), None, rectify, implementation=implementation)
    assert y[0].isnan().all()
    assert not y[1].isnan().any()
