"""The definition of "equal" for every check."""

from __future__ import annotations

import torch
from torch import Tensor

from metadarts.core.types import Params


def check_close(what: str, actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Require the largest difference to be at most ``tolerance`` times the largest expected value, or times 1.

    Tests draw their inputs from N(0, 1), so 1 is the natural minimum scale for an expected value of zero.

    Raises:
        AssertionError: naming ``what``; also when a shape differs or a value is not finite.
    """
    if actual.shape != expected.shape:
        raise AssertionError(f"{what}: expected shape {tuple(expected.shape)}, got {tuple(actual.shape)}")
    actual, expected = (tensor.detach().double().cpu() for tensor in (actual, expected))
    if not bool(torch.isfinite(actual).all()):
        raise AssertionError(f"{what}: expected finite numbers, got NaN or infinity")
    if actual.numel() == 0:
        return
    error, scale = float((actual - expected).abs().max()), max(1.0, float(expected.abs().max()))
    if error > tolerance * scale:
        raise AssertionError(f"{what}: off by {error:.2e} at scale {scale:.2e}, allowed {tolerance:.0e} of it")


def check_params_close(actual: Params, expected: Params, tolerance: float, floor: float = 1e-3) -> None:
    """Require every tensor of two dictionaries to differ by at most ``tolerance`` of its own largest value.

    If that value is below ``floor`` times the largest of all tensors, the latter is the scale, because a gradient that
    is zero by symmetry contains only rounding errors.

    Raises:
        AssertionError: naming every tensor that differs, or the names that only one side has.
    """
    if actual.keys() != expected.keys():
        raise AssertionError(f"only one side has {sorted(actual.keys() ^ expected.keys())}")
    largest = max(float(tensor.detach().abs().max()) for tensor in expected.values())
    faults = []
    for name, truth in expected.items():
        error = float((actual[name].detach().cpu() - truth.detach().cpu()).abs().max())
        scale = max(float(truth.detach().abs().max()), floor * largest)
        if not error <= tolerance * scale:  # written so that NaN is a fault
            faults.append(f"{name} is off by {error:.2e} at scale {scale:.2e}")
    if faults:
        raise AssertionError(f"allowed {tolerance:.0e} of the scale, but " + "; ".join(faults))
