"""The separable convolution against its reference, in every implementation; that against torch's own modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metadarts.core.rng import Key
from metadarts.ops import implementations, separable
from metadarts.ops.separable.reference import separable as reference
from metadarts.testing import check_close, check_op
from tests.opcases import separable_case as case
from tests.opcases import shares

CASES = [
    case("odd sizes", (2, 5, 3)),
    case("images of one pixel", (3, 1, 1)),
    case("5x5 on images smaller than the kernel", (2, 3, 2), kernel=5),
    case("3x3 at stride 2, odd sizes", (2, 5, 3), stride=2),
    case("3x3 at stride 2, even sizes, images of one pixel come out", (3, 2, 2), stride=2),
    case("5x5 at stride 2, wide", (1, 4, 9), kernel=5, stride=2),
    case("3x3 at dilation 2", (2, 5, 4), dilation=2),
    case("5x5 at dilation 2, smaller than the kernel", (2, 3, 4), kernel=5, dilation=2),
    case("5x5 at stride and dilation 2", (1, 5, 7), kernel=5, stride=2, dilation=2),
    case("1x1", (2, 2, 3), kernel=1),
    case("7x7", (1, 3, 4), kernel=7),
    case("lines of 8 + 4 + 1 pixels, 2 at a time and 1 left", (1, 3, 13), (2, 2)),
    case("lines of 8 + 3 x 1 pixels at stride 2", (1, 2, 22), (3, 1), stride=2),
    case("whole registers: 8 and 16 channels", (2, 2, 2), (8, 16)),
    case("a register and 1 of float32, two and 1 of float64", (2, 2, 2), (17, 18)),
    case("a register and 1 of float64", (2, 2, 2), (9, 10)),
    case("fewer channels out, stride 2", (2, 3, 3), (18, 5), stride=2),
    case("several tasks that share an input", (2, 3, 2), (3, 2), tasks=2, edges=3, shared=True),
    case("several tasks, an input for each edge", (2, 2, 3), (2, 3), tasks=3, edges=2),
    case("shared input at stride 2", (2, 3, 4), (2, 2), tasks=2, edges=2, shared=True, stride=2),
    case("weighted: unequal", (3, 2, 3), tasks=2, rows=shares([1, 2, 3], [5, 1, 1])),
    case("weighted: an image counts zero", (3, 3, 2), tasks=2, shared=True, edges=2, rows=shares([1, 1, 0], [0, 0, 1])),
    case("weighted, stride 2", (2, 3, 3), tasks=1, rows=shares([1, 2]), stride=2),
    case("a large eps that shows in the result", (2, 2, 2), eps=0.7),
    case("projection", (2, 3, 3), (4, 3), kernel=0),
    case("projection of a shared input, 17 channels", (2, 2, 2), (17, 3), kernel=0, tasks=2, edges=2, shared=True),
    case("projection, weighted", (3, 1, 3), (2, 9), kernel=0, edges=2, rows=shares([1, 0, 2])),
    case(
        "needed: the first edge of an own input is not, the other is",
        (2, 2, 3),
        tasks=2,
        edges=2,
        needed=[[0, 1], [1, 1]],
    ),
    case(
        "needed: first and last of a shared input, and of one task nothing",
        (2, 3, 2),
        tasks=2,
        edges=3,
        shared=True,
        needed=[[0, 1, 0], [0, 0, 0]],
    ),
    case("needed: a projection of a shared input", (2, 2, 2), kernel=0, edges=2, shared=True, needed=[[0, 1]]),
]


@pytest.mark.sampled(6)
@pytest.mark.parametrize("implementation", implementations()["separable"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_separable_equals_its_law_to_second_order(case, implementation, ran):
    def op(x, pointwise, depthwise=None, **options):
        return separable(x, depthwise, pointwise, implementation=implementation, **options)

    def expected(x, pointwise, depthwise=None, **options):
        return reference(x, depthwise, pointwise, **options)

    check_op(op, expected, [case])
    assert ran.only("separable", implementation)


def folded_memory(tensor: torch.Tensor) -> torch.Tensor:
    """[T, E, N, H, W, C] in the memory of [N, H, W, T, E, C]; other tensors as they are."""
    if tensor.dim() != 6:
        return tensor.clone()
    return tensor.permute(2, 3, 4, 0, 1, 5).contiguous().permute(3, 4, 0, 1, 2, 5)


def one_task_for_all(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:1].clone().expand(tensor.shape)


LAYOUTS = {"folded memory": folded_memory, "memory that tasks share": one_task_for_all}


@pytest.mark.parametrize("implementation", implementations()["separable"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_separable_reads_folded_and_expanded_memory(implementation, shared, ran):
    def op(x, depthwise, pointwise):
        return separable(x, depthwise, pointwise, implementation=implementation)

    layout_case = case("layouts", (2, 3, 2), (3, 2), tasks=2, edges=3, shared=shared)
    check_op(op, reference, [layout_case], layouts=LAYOUTS)
    assert ran.only("separable", implementation)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=Key(("separable", str(shape))).torch())


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_the_law_is_torchs_own_modules(stride, dilation):
    x, depthwise, pointwise = draw(1, 1, 3, 5, 6, 4), draw(1, 1, 4, 3, 3), draw(1, 1, 4, 2)
    stages = nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride, dilation, dilation, groups=4, bias=False),
        nn.Conv2d(4, 2, 1, bias=False),
        nn.BatchNorm2d(2, affine=False, track_running_stats=False),
    ).double()
    with torch.no_grad():
        stages[1].weight.copy_(depthwise[0, 0].unsqueeze(1))
        stages[2].weight.copy_(pointwise[0, 0].T[:, :, None, None])
        expected = stages(x[0, 0].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    check_close("y", reference(x, depthwise, pointwise, None, stride, dilation)[0, 0], expected, 1e-12)


@pytest.mark.parametrize("implementation", implementations()["separable"])
def test_an_edge_that_is_not_needed_is_exactly_zero_and_changes_no_bit_of_the_others(implementation):
    x, depthwise, pointwise = draw(2, 1, 3, 3, 3, 2), draw(2, 3, 2, 3, 3), draw(2, 3, 2, 3)
    needed = torch.tensor([[True, False, True], [False, True, True]])
    full = separable(x, depthwise, pointwise, implementation=implementation)
    part = separable(x, depthwise, pointwise, needed=needed, implementation=implementation)
    assert torch.equal(part[needed], full[needed])
    assert not part[~needed].any()


@pytest.mark.parametrize("implementation", implementations()["separable"])
def test_an_image_of_weight_zero_is_convolved_but_does_not_count(implementation):
    x, depthwise, pointwise = draw(1, 1, 3, 3, 3, 2), draw(1, 2, 2, 3, 3), draw(1, 2, 2, 3)
    rows = shares([1, 1, 0])
    both = separable(x, depthwise, pointwise, rows, implementation=implementation)
    alone = separable(x[:, :, :2], depthwise, pointwise, implementation=implementation)
    check_close("the counted images", both[:, :, :2], alone, 1e-12)
    x[:, :, 2] *= 1e3
    changed = separable(x, depthwise, pointwise, rows, implementation=implementation)
    assert torch.equal(changed[:, :, :2], both[:, :, :2])
    assert not torch.equal(changed[:, :, 2], both[:, :, 2])


def test_a_stride_without_a_depthwise_convolution_is_refused():
    with pytest.raises(ValueError, match="expected stride 1 without a depthwise convolution, got 2"):
        separable(draw(1, 1, 2, 4, 4, 3), None, draw(1, 1, 3, 3), stride=2)
