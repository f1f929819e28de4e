"""Shapes that do not fit are refused before a kernel reads memory by them, by every operator."""

from __future__ import annotations

import pytest
import torch

from metadarts.ops import conv_block, mix, pool, separable

X, BLOCK = torch.ones(2, 1, 3, 4, 4, 5), torch.ones(2, 3, 4, 4, 5)
TAPS, MIXING = torch.ones(2, 2, 5, 3, 3), torch.ones(2, 2, 5, 6)
WEIGHT, SCALE = torch.ones(2, 6, 5, 3, 3), torch.ones(2, 6)


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
