"""bf16 activations: statistics and mixing weights keep float32."""

from __future__ import annotations

import pytest
import torch

from metadarts.ops import mix, normalise


@pytest.mark.parametrize("rows", [None, torch.full((40, 3), 1 / 40)], ids=["uniform", "rows"])
def test_statistics_of_bf16_are_those_of_float32(rows):
    x = (20 + torch.randn(40, 5, 5, 3, generator=torch.Generator().manual_seed(0))).bfloat16()
    y = normalise(x, rows)
    assert y.dtype == torch.bfloat16
    assert y.float().mean((0, 1, 2)).abs().max() < 2e-3
    assert torch.equal(y, normalise(x.float(), rows).bfloat16())


def test_nearly_equal_mixing_weights_stay_apart_in_bf16():
    candidates = [torch.ones(1, 1, 1, 1, 1, 4).bfloat16() * sign for sign in (1, -1)]
    weights = torch.tensor([0.1251, 0.1250]).view(2, 1, 1)
    (out,) = mix(candidates, weights)
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), torch.full_like(out.float(), 1e-4), rtol=1e-2)
