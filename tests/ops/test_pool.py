"""The normalised pool against its reference, in every implementation; that against torch's own modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.ops import bare_pool, implementations, pool
from metadarts.ops.pool.op import KINDS
from metadarts.ops.pool.reference import pool as reference
from metadarts.testing import check_close, check_op
from tests.opcases import pool_case as case
from tests.opcases import shares

CASES = [
    case("odd sizes", (1, 2, 5, 3, 3)),
    case("images of one pixel", (1, 4, 1, 1, 3)),
    case("images smaller than the window", (1, 3, 2, 1, 2)),
    case("stride 2, odd sizes", (1, 2, 5, 3, 2), stride=2),
    case("stride 2, even sizes, whose last line lies within", (1, 2, 6, 4, 2), stride=2),
    case("stride 2, images of one pixel come out", (1, 5, 2, 2, 2), stride=2),
    case("9 pixels: 4 at a time, 2 at a time, and 1 left", (1, 2, 3, 3, 2)),
    case("whole registers", (1, 2, 2, 3, 16)),
    case("a register and 1 of float32, two and 1 of float64", (1, 2, 3, 2, 17)),
    case("a register and 2, several tasks, stride 2", (2, 2, 3, 3, 18), stride=2),
    case("a register and 1 of float64, several tasks", (3, 2, 3, 2, 9)),
    case("weighted: unequal", (2, 3, 2, 3, 2), shares([1, 2, 3], [5, 1, 1])),
    case("weighted: an image counts zero, stride 2", (2, 3, 3, 4, 2), shares([1, 1, 0], [0, 2, 1]), stride=2),
    case("a large eps that shows in the result", (1, 2, 3, 2, 2), eps=0.7),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("implementation", implementations()["pool"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_pool_equals_its_law_to_second_order(case, kind, implementation, ran):
    def op(x, **options):
        return pool(x, kind, implementation=implementation, **options)

    def expected(x, **options):
        return reference(x, kind, **options)

    check_op(op, expected, [case])
    assert ran.only("pool", implementation)


def folded_memory(tensor: torch.Tensor) -> torch.Tensor:
    """[T, N, H, W, C] in the memory of [N, H, W, T, C]."""
    return tensor.permute(1, 2, 3, 0, 4).contiguous().permute(3, 0, 1, 2, 4)


def one_task_for_all(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:1].clone().expand(tensor.shape)


LAYOUTS = {"folded memory": folded_memory, "memory that tasks share": one_task_for_all}


@pytest.mark.parametrize("implementation", implementations()["pool"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_pool_reads_folded_and_expanded_memory(kind, stride, implementation, ran):
    def op(x):
        return pool(x, kind, stride, implementation=implementation)

    check_op(op, lambda x: reference(x, kind, stride), [case("layouts", (2, 2, 4, 3, 5))], layouts=LAYOUTS)
    assert ran.only("pool", implementation)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=Key(("pool", str(shape))).torch())


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_law_is_torchs_own_modules(kind, stride):
    x = draw(1, 3, 5, 4, 2)
    stages = {"max": nn.MaxPool2d(3, stride, 1), "avg": nn.AvgPool2d(3, stride, 1, count_include_pad=False)}
    norm = nn.BatchNorm2d(2, affine=False, track_running_stats=False)
    pooled = stages[kind](x[0].permute(0, 3, 1, 2))
    check_close("y", reference(x, kind, stride)[0], norm(pooled).permute(0, 2, 3, 1), 1e-12)
    check_close("without the norm", bare_pool(x, kind, stride)[0], pooled.permute(0, 2, 3, 1), 1e-15)


@pytest.mark.parametrize("implementation", implementations()["pool"])
def test_of_equal_maxima_the_first_takes_the_gradient(implementation):
    """As in torch: images after a ReLU are full of equal zeros."""
    x = torch.zeros(1, 2, 4, 4, 3, dtype=torch.float64)
    x[0, 1] = draw(4, 4, 3).relu()
    upstream, gradients = draw(*x.shape), []
    for op in (lambda leaf: pool(leaf, "max", implementation=implementation), lambda leaf: reference(leaf, "max")):
        leaf = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(op(leaf), leaf, upstream)[0])
    check_close("dx", *gradients, 1e-12)


@pytest.mark.parametrize("implementation", implementations()["pool"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pixel", [(0, 0), (1, 2), (3, 3)])
def test_a_nan_is_never_lost(pixel, kind, implementation):
    x = draw(1, 2, 4, 4, 3)
    x[0, 0, *pixel, 1] = torch.nan
    y = pool(x, kind, implementation=implementation)
    assert y[..., 1].isnan().all()
    assert not y[..., [0, 2]].isnan().any()


def test_an_unknown_pool_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown pool 'mean'.*avg.*max"):
        pool(draw(1, 2, 3, 3, 1), "mean")
