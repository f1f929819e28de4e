"""The folded convolution against torch's, and the CPU's fast paths against torch's own gradients."""

from __future__ import annotations

import pytest
import torch

from metadarts.core.rng import Key
from metadarts.ops import convolution
from metadarts.ops.convolution import op
from metadarts.ops.convolution.reference import convolution as reference
from metadarts.testing import OpCase, check_close, check_op


def case(what: str, image: tuple[int, ...], weight: tuple[int, ...], **options: int) -> OpCase:
    return OpCase(what, {"x": image, "weight": weight}, options=options)


CASES = [
    case("depthwise 3x3, odd sizes", (2, 5, 3, 4), (4, 1, 3, 3), groups=4),
    case("depthwise 5x5, wider than the image", (2, 3, 4, 3), (3, 1, 5, 5), groups=3),
    case("depthwise 3x3, stride 2, odd and even", (2, 5, 4, 3), (3, 1, 3, 3), groups=3, stride=2),
    case("depthwise 5x5, stride 2", (2, 4, 5, 2), (2, 1, 5, 5), groups=2, stride=2),
    case("depthwise 3x3, dilated", (2, 5, 4, 3), (3, 1, 3, 3), groups=3, dilation=2),
    case("depthwise 5x5, dilated, stride 2", (1, 7, 6, 2), (2, 1, 5, 5), groups=2, stride=2, dilation=2),
    case("dense, one group", (2, 4, 3, 2), (3, 2, 3, 3), groups=1),
    case("dense, one group per task", (2, 3, 4, 6), (4, 3, 3, 3), groups=2),
    case("dense, groups, stride 2", (2, 5, 4, 4), (6, 2, 3, 3), groups=2, stride=2),
    case("dense, groups, dilated 5x5", (1, 5, 6, 4), (2, 2, 5, 5), groups=2, dilation=2),
    case("several outputs of one-channel groups", (2, 4, 3, 2), (4, 1, 3, 3), groups=2),
    case("one channel, one image, one pixel", (1, 1, 1, 1), (1, 1, 3, 3), groups=1),
    case("one channel of a dense stem", (2, 4, 4, 2), (6, 1, 3, 3), groups=2),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_convolution_equals_its_reference_to_second_order(case):
    check_op(convolution, reference, [case])


# Kernel, stride and dilation of every depthwise convolution of a DARTS cell, on maps odd and even.
SHAPES = [
    op.Shape(kernel, 6, stride, dilation, height, width)
    for kernel in (3, 5)
    for stride in (1, 2)
    for dilation in (1, 2)
    for height, width in ((5, 8), (4, 7), (1, 2))
]


def draw(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=Key(("fast path", str(shape))).torch()).to(dtype)


def tensors(s: op.Shape, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    small = [-(-size // s.stride) for size in (s.height, s.width)]
    x, g = draw(3, s.height, s.width, s.groups, dtype=dtype), draw(3, *small, s.groups, dtype=dtype)
    return x, g, draw(s.groups, 1, s.kernel, s.kernel, dtype=dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
@pytest.mark.parametrize("s", SHAPES, ids=lambda s: f"k{s.kernel} s{s.stride} d{s.dilation} {s.height}x{s.width}")
def test_fast_depthwise_gradients_equal_torchs(s, dtype, tolerance):
    x, g, weight = tensors(s, torch.float64)
    dx, dw = op._native_gradients(x, g, weight, s, (True, True))
    x, g, weight = tensors(s, dtype)
    fast_dx, fast_dw = op._depthwise_input_gradient(g, weight, s), op._depthwise_weight_gradient(x, g, s)
    assert fast_dx.dtype == fast_dw.dtype == dtype
    check_close("dx", fast_dx, dx, tolerance)
    check_close("dw", fast_dw, dw, tolerance)


@pytest.mark.parametrize(
    ("dtype", "kernel", "dilation", "channels_out", "taken"),
    [
        (torch.float32, 5, 1, 6, True),
        (torch.float32, 3, 2, 6, True),
        (torch.float32, 5, 2, 6, True),
        (torch.float32, 3, 1, 6, False),
        (torch.float64, 5, 1, 6, False),
        (torch.float32, 5, 1, 12, False),
    ],
    ids=["5x5", "dilated", "both", "plain 3x3 is quick natively", "float64 is not quicker", "not depthwise"],
)
def test_the_fast_weight_gradient_is_taken_where_torchs_is_slow(
    monkeypatch, dtype, kernel, dilation, channels_out, taken
):
    calls = []
    fast = op._depthwise_weight_gradient
    monkeypatch.setattr(op, "_depthwise_weight_gradient", lambda *args: calls.append(args) or fast(*args))
    x = draw(2, 6, 5, 6, dtype=dtype)
    weight = draw(channels_out, 1, kernel, kernel, dtype=dtype).requires_grad_()
    convolution(x, weight, 6, dilation=dilation).square().sum().backward()
    assert bool(calls) == taken


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_fast_input_gradient_is_taken_for_depthwise_only(monkeypatch, dtype):
    calls = []
    fast = op._depthwise_input_gradient
    monkeypatch.setattr(op, "_depthwise_input_gradient", lambda *args: calls.append(args) or fast(*args))
    x = draw(2, 4, 5, 4, dtype=dtype).requires_grad_()
    convolution(x, draw(4, 2, 3, 3, dtype=dtype), 2).sum().backward()
    assert not calls
    convolution(x, draw(4, 1, 3, 3, dtype=dtype), 4).sum().backward()
    assert calls


def test_convolution_is_exact_to_third_order():
    x, weight = draw(1, 4, 3, 2, dtype=torch.float64), draw(2, 1, 3, 3, dtype=torch.float64)

    def third(run):
        leaf, grad = weight.clone().requires_grad_(), None
        value = run(x, leaf, 2).pow(4).sum()
        for _ in range(3):
            (grad,) = torch.autograd.grad(value, leaf, create_graph=True)
            value = grad.sum()
        return grad

    check_close("third derivative", third(convolution), third(reference), 1e-12)
