"""Shapes that do not fit are refused before a kernel reads memory by them, by every operator."""

from __future__ import annotations

import pytest
import torch

from metadarts.ops import conv_block, mix, pool, separable

X, BLOCK = torch.ones(2, 1, 3, 4, 4, 5), torch.ones(2, 3, 4, 4, 5)
TAPS, MIXING = torch.ones(2, 2, 5, 3, 3), torch.ones(2, 2, 5, 6)
WEIGHT, SCALE = torch.ones(2, 6, 5, 3, 3), torch.ones(2, 6)


NOISE = torch.linspace(-1.0, 1.0, BLOCK.numel()).square().view(BLOCK.shape)
OPERATORS = (
    lambda **options: separable(NOISE.unsqueeze(1), TAPS, MIXING, **options),
    lambda **options: pool(NOISE, "avg", **options),
    lambda **options: conv_block(NOISE, WEIGHT, SCALE, SCALE, **options),
)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: separable(X[..., :4], TAPS, MIXING), r"separable: expected x of shape \[2, 1, any, any, any, 5\]"),
        (lambda: separable(X.expand(2, 3, 3, 4, 4, 5), TAPS, MIXING), r"expected x of shape \[2, 2, any"),
        (lambda: separable(X[0], TAPS, MIXING), "expected x of shape"),
        (lambda: separable(X, TAPS[:1], MIXING), "expected depthwise of shape"),
        (lambda: separable(X, TAPS[..., :2, :2], MIXING), r"square filter of odd size, got \[2, 2\]"),
        (lambda: separable(X, TAPS[..., :2], MIXING), r"square filter of odd size, got \[3, 2\]"),
        (lambda: separable(X, TAPS, MIXING[0]), "expected pointwise of shape"),
        (lambda: separable(X, TAPS, MIXING, torch.ones(3, 2)), r"expected rows of shape \[2, 3\], got \[3, 2\]"),
        (lambda: separable(X, TAPS, MIXING, needed=torch.ones(2)), r"expected needed of shape \[2, 2\]"),
        (lambda: separable(X, TAPS, MIXING, dilation=-1), "at least 1, got 1 and -1"),
        (lambda: separable(X, TAPS, MIXING, stride=0), "at least 1, got 0 and 1"),
        (lambda: pool(BLOCK, "max", 0), "pool: expected a stride of at least 1"),
        (lambda: pool(torch.ones(1).expand(1, 1, 2**12, 2**12 + 1, 1), "max"), "at most 16777216 pixels"),
        (lambda: mix([X], torch.ones(2, 2, 3)), r"mix: expected weights of shape \[1, any, any\]"),
        (lambda: mix([X, X[:, :, :2]], torch.ones(2, 2, 3)), "mix: expected candidate 1 of shape"),
        (lambda: mix([X.expand(2, 2, 3, 4, 4, 5)], torch.ones(1, 2, 3)), "mix: expected candidate 0 of shape"),
        (lambda: mix([X], torch.ones(1, 3, 1)), "mix: expected candidate 0 of shape"),
        (lambda: pool(X, "max"), "pool: expected x of shape"),
        (lambda: pool(BLOCK, "avg", rows=torch.ones(2, 4)), r"pool: expected rows of shape \[2, 3\], got \[2, 4\]"),
        (lambda: conv_block(BLOCK[..., :4], WEIGHT, SCALE, SCALE), "conv_block: expected weight of shape"),
        (lambda: conv_block(BLOCK, WEIGHT, SCALE[:, :5], SCALE), "conv_block: expected scale of shape"),
        (lambda: conv_block(BLOCK, WEIGHT, SCALE, SCALE[:1]), "conv_block: expected bias of shape"),
        (lambda: conv_block(BLOCK[:, :, :1], WEIGHT, SCALE, SCALE), "at least 2x2"),
        (lambda: conv_block(BLOCK, WEIGHT, SCALE, SCALE, torch.ones(3, 2)), "conv_block: expected rows of shape"),
    ],
)
def test_a_shape_that_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_integer_eps_is_a_number():
    for kwargs in ({"implementation": "cpu"}, {"implementation": "reference"}):
        by_one = [op(eps=1, **kwargs) for op in OPERATORS]
        same = [op(eps=1.0, **kwargs) for op in OPERATORS]
        assert all(torch.equal(a, b) for a, b in zip(by_one, same, strict=True))
        assert not any(torch.equal(a, op(eps=4.0, **kwargs)) for a, op in zip(by_one, OPERATORS, strict=True))


def test_nothing_of_an_edge_that_is_not_needed_is_computed():
    """A NaN among its parameters reaches neither y nor any gradient."""
    needed = torch.tensor([[True, False], [False, True]])
    x, taps, mixing = (torch.rand_like(t, dtype=torch.float64) for t in (X, TAPS, MIXING))
    mixing[~needed], taps[~needed] = torch.nan, torch.nan
    leaves = [t.requires_grad_() for t in (x, taps, mixing)]
    y = separable(*leaves, needed=needed, implementation="cpu")
    first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(t.square().sum() for t in first), leaves)
    for tensor in (y, *first, *second):
        assert torch.isfinite(tensor).all()
    for tensor in (y, *first[1:], *second[1:]):
        assert not tensor[~needed].any()
        assert tensor[needed].any()
