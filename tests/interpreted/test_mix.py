"""The mixed sum's Triton kernels, interpreted, against its definition to second order."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradgradcheck

from metadarts.core.rng import Key
from metadarts.ops import mix
from metadarts.ops.mix.reference import mix as reference
from metadarts.testing import check_close
from metadarts.testing.operators import check_derivatives
from tests.opcases import mix_by_name as by_name
from tests.opcases import mix_case as case

STAGES = ("forward", "gradient", "second")


triton_mix, expected = by_name(mix, implementation="triton"), by_name(reference)


CASES = [
    case("one candidate", (2, 3, 1), 1, 1, 3, "o"),
    case("a cell's eight, 2 tasks, 2 edges", (1, 2, 3), 2, 2, 5, "sssooooo"),
    case("two programs, three blocks, one of them in part", (2, 7, 7), 1, 2, 7, "so"),
    case("all shared, 3 edges", (1, 2, 1), 2, 3, 2, "ss"),
    case("one edge, so that shared and own look alike", (2, 2, 1), 3, 1, 2, "so"),
    case("one pixel of one channel", (1, 1, 1), 1, 2, 1, "oso"),
]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_mix_equals_its_law_to_second_order(case, ran):
    check_derivatives(triton_mix, expected, case)
    assert ran.only("mix", *STAGES)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=Key(("mix", str(shape))).torch())


def test_float64_against_its_law_and_finite_differences(ran):
    check_derivatives(triton_mix, expected, case("float64", (2, 2, 1), 2, 2, 3, "os"), dtype=torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (draw(2, 1, 2), draw(1, 2, 1, 2, 2, 2), draw(1, 1, 1, 2, 2, 2))]
    assert gradgradcheck(lambda p, own, same: mix([own, same], p, "triton"), leaves, fast_mode=True)
    assert ran.only("mix", *STAGES)


CUT_OFF = 2.0**-7
"""Of bfloat16, where the interpreter cuts off what a card rounds."""


def test_bfloat16_candidates_under_float32_weights(ran):
    """Weights stay as fine as they are: near-uniform ones differ by less than a half-width number resolves."""
    weights = (draw(3, 2, 2) * 1e-3 + 1.0 / 3.0).float()
    candidates = [
        tensor.bfloat16() for tensor in (draw(2, 2, 1, 2, 3, 3), draw(2, 1, 1, 2, 3, 3), draw(2, 2, 1, 2, 3, 3))
    ]
    upstream = [draw(2, 1, 2, 3, 3).bfloat16(), draw(2, 1, 2, 3, 3).bfloat16() * 2.0]
    leaves = [tensor.clone().requires_grad_() for tensor in (weights, *candidates)]
    truths = [tensor.double().requires_grad_() for tensor in (weights, *candidates)]
    sums, expected = mix(leaves[1:], leaves[0], "triton"), reference(truths[1:], truths[0])
    for e, (found, truth) in enumerate(zip(sums, expected, strict=True)):
        assert found.dtype == torch.bfloat16
        check_close(f"edge {e}", found, truth, CUT_OFF)
    first = torch.autograd.grad(sums, leaves, upstream)
    law_first = torch.autograd.grad(expected, truths, [g.double() for g in upstream])
    assert [grad.dtype for grad in first] == [torch.float32, *[torch.bfloat16] * 3]
    check_close("d weights", first[0], law_first[0], 2e-6)
    for k, (grad, truth) in enumerate(zip(first[1:], law_first[1:], strict=True)):
        check_close(f"d y{k}", grad, truth, CUT_OFF)
    assert ran.only("mix", "forward", "gradient")


def test_an_edge_whose_sum_nobody_reads_gets_a_gradient_of_zero():
    weights, own, shared = draw(2, 2, 3).requires_grad_(), draw(2, 3, 1, 2, 2, 3), draw(2, 1, 1, 2, 2, 3)
    own.requires_grad_()
    read = mix([own, shared], weights, "triton")[1]
    d_weights, d_own = torch.autograd.grad(read.square().sum(), (weights, own))
    assert not d_weights[..., [0, 2]].any()
    assert not d_own[:, [0, 2]].any()
    check_close("dp", d_weights[1, :, 1], 2.0 * (read * shared[:, 0]).sum((1, 2, 3, 4)), 1e-12)


def test_a_nan_of_a_candidate_without_weight_is_not_hidden():
    """As in the other implementations; a candidate that `needed` left out is zero, not NaN."""
    weights, candidates = torch.tensor([1.0, 0.0]).view(2, 1, 1), [draw(1, 1, 1, 2, 2, 2).float() for _ in range(2)]
    candidates[1][0, 0, 0, 1, 1, 0] = torch.nan
    (found,), (expected,) = mix(candidates, weights, "triton"), reference(candidates, weights)
    assert torch.equal(found.isnan(), expected.isnan())


def test_a_third_derivative_raises():
    weights, candidate = draw(1, 1, 1).requires_grad_(), draw(1, 1, 1, 2, 2, 2).requires_grad_()
    y = mix([candidate], weights, "triton")[0]
    (first,) = torch.autograd.grad(y.square().sum(), weights, create_graph=True)
    with pytest.raises(RuntimeError, match="mix: no third derivative"):
        torch.autograd.grad(first.square().sum(), candidate, create_graph=True)
