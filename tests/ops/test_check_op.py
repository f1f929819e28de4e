"""The conformance suite itself: each offence that it exists for is seen, and named."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import Function

from metadarts.core.rng import Key
from metadarts.testing import OpCase, check_op
from metadarts.testing.operators import expanded, poisoned_memory, strided, unmoving

CASES = [OpCase("odd sizes", {"x": (3, 2), "w": (3, 2)})]


def truth(x, w):
    return x * x * w


class Good(Function):
    """x^2 w by hand, with a differentiable backward; the flags of ``Bad`` break it."""

    fault = ""

    @classmethod
    def call(cls, x, w):
        return cls.apply(x, w)

    @staticmethod
    def forward(x, w):
        return x * x * w

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return 2.0 * g * x * w, g * x * x


class FirstOrderOnly(Good):
    @staticmethod
    def backward(ctx, g):
        with torch.no_grad():
            return Good.backward(ctx, g)


class HalfOfSecondOrder(Good):
    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return 2.0 * g * x.detach() * w, g * x * x


class WrongGradientOfW(Good):
    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return 2.0 * g * x * w, g * x * x * 1.0001


class NeedsBoth(Good):
    @staticmethod
    def backward(ctx, g):
        dx, dw = Good.backward(ctx, g)
        return (dx, dw) if all(ctx.needs_input_grad) else (2.0 * dx, 2.0 * dw)


def reads_memory_in_order(x, w):
    order = x.untyped_storage()
    return truth(x, w) if order.nbytes() == x.numel() * x.element_size() else truth(x, w) + 1.0


def reads_uninitialised_memory(x, w):
    """Which setting shows it first depends on what lay in that memory; at the last one it is certain."""
    return truth(x, w) + torch.empty_like(x).isnan()


def skips_zero_weights_in_backward(x, w):
    return torch.where(w == 0.0, torch.zeros_like(x), truth(x, w))


def computes_in_half(x, w):
    return truth(x.half(), w.half()).to(x) if x.dtype == torch.float32 else truth(x, w)


def returns_double(x, w):
    return truth(x, w).double()


def needs_an_upstream_in_memory(x, w):
    y = truth(x, w)
    y.register_hook(lambda g: 2.0 * g if 0 in g.stride() else g)
    return y


class NeedsAVectorInMemory(Good):
    """The upstream gradient of its own gradient, which comes expanded where the outer loss is a sum."""

    @staticmethod
    def backward(ctx, g):
        dx, dw = Good.backward(ctx, g)
        dx.register_hook(lambda v: 2.0 * v if 0 in v.stride() else v)
        return dx, dw


def takes_stride_0_for_nothing(x, w):
    """A kernel that marks an absent tensor with stride 0, and so overlooks one that is there."""
    return truth(x, w) if x.stride(0) else truth(x, w).zero_()


def test_a_right_operator_passes():
    check_op(Good.call, truth, CASES)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (FirstOrderOnly.call, "d x has no graph"),
        (HalfOfSecondOrder.call, r"float64\] d x d x: off by"),
        (WrongGradientOfW.call, r"float64\] d w: off by"),
        (NeedsBoth.call, r"only x requires a gradient\] d x"),
        (reads_memory_in_order, r"strided memory\] y"),
        (reads_uninitialised_memory, r"\] y: off by"),
        (skips_zero_weights_in_backward, r"w all zeros\] d w"),
        (computes_in_half, r"float32\] y"),
        (returns_double, r"float32\] expected a torch.float32 result"),
        (needs_an_upstream_in_memory, r"expanded upstream gradient\] d x"),
        (NeedsAVectorInMemory.call, r"expanded upstream gradient\] d x d x"),
        (lambda x, w: truth(x, w)[:2], r"float64\] expected shape \(3, 2\), got \(2, 2\)"),
    ],
)
def test_an_offence_is_seen(op, message):
    with pytest.raises(AssertionError, match=message):
        check_op(op, truth, CASES)


def test_an_axis_of_one_may_have_any_stride():
    case = OpCase("one row", {"x": (1, 2), "w": (1, 2)})
    with pytest.raises(AssertionError, match=r"one row; stride 0 along axes of one\] y"):
        check_op(takes_stride_0_for_nothing, truth, [case])


def test_further_layouts_are_tried_in_both_precisions():
    by_columns = {"by columns": lambda tensor: tensor.T.contiguous().T}

    def dislikes(dtype):
        return lambda x, w: truth(x, w) + float(x.stride() == (1, 3) and x.dtype == dtype)

    for dtype, name in ((torch.float64, "by columns"), (torch.float32, "by columns, float32")):
        check_op(dislikes(dtype), truth, CASES)
        with pytest.raises(AssertionError, match=rf"odd sizes; {name}\] y"):
            check_op(dislikes(dtype), truth, CASES, layouts=by_columns)


def test_layouts_keep_the_numbers_and_change_the_memory():
    tensor = torch.randn(2, 3, 4, generator=Key.from_seed(0).torch())
    assert torch.equal(strided(tensor), tensor)
    assert not strided(tensor).is_contiguous()
    assert torch.equal(unmoving(tensor[:1]), tensor[:1])
    assert unmoving(tensor[:1]).stride() == (0, 4, 1)
    assert unmoving(tensor[:1]).is_contiguous()
    assert torch.equal(expanded(tensor), tensor[0, 0].expand(2, 3, 4))


def test_poisoned_memory_ends_with_its_block():
    with poisoned_memory():
        assert torch.empty(5).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()
