"""The mixed sum against its definition, in every implementation; the memory that its candidates may lie in."""

from __future__ import annotations

import pytest
import torch

from metadarts.core.rng import Key
from metadarts.ops import implementations, mix
from metadarts.ops.mix.reference import mix as reference
from metadarts.testing import check_close, check_op
from tests.opcases import mix_by_name as by_name
from tests.opcases import mix_case as case

CASES = [
    case("one candidate", (2, 3, 1), 1, 1, 3, "o"),
    case("several tasks and edges", (1, 2, 3), 2, 3, 2, "ooo"),
    case("shared first, as in a cell: pools and identity", (2, 1, 2), 2, 2, 2, "sso"),
    case("shared last", (1, 2, 2), 2, 3, 1, "os"),
    case("all shared", (1, 2, 1), 2, 3, 2, "ss"),
    case("one edge, so that shared and own look alike", (2, 2, 1), 3, 1, 2, "so"),
    case("one pixel of one channel", (1, 1, 1), 1, 2, 1, "oso"),
    case("whole registers", (2, 2, 1), 1, 2, 16, "so"),
    case("a register and 1 of float32, two and 1 of float64", (1, 2, 2), 2, 2, 17, "so"),
    case("a register and 1 of float64", (1, 3, 1), 2, 2, 9, "os"),
]


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=Key(("mix", str(shape))).torch())


@pytest.mark.parametrize("implementation", implementations()["mix"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_mix_equals_its_law_to_second_order(case, implementation, ran):
    check_op(by_name(mix, implementation=implementation), by_name(reference), [case])
    assert ran.only("mix", implementation)


def folded_memory(tensor: torch.Tensor) -> torch.Tensor:
    """[T, E, N, H, W, C] in the memory of [N, H, W, T, E, C]; other tensors as they are."""
    if tensor.dim() != 6:
        return tensor.clone()
    return tensor.permute(2, 3, 4, 0, 1, 5).contiguous().permute(3, 4, 0, 1, 2, 5)


def one_edge_for_all(tensor: torch.Tensor) -> torch.Tensor:
    """Not a shared candidate: E edges that happen to read one memory, whose gradients are E."""
    return tensor[:, :1].clone().expand(tensor.shape)


LAYOUTS = {"folded memory": folded_memory, "memory that edges share": one_edge_for_all}


@pytest.mark.parametrize("implementation", implementations()["mix"])
def test_mix_reads_folded_and_expanded_memory(implementation, ran):
    layout_case = case("layouts", (2, 3, 2), 2, 3, 5, "so")
    check_op(by_name(mix, implementation=implementation), by_name(reference), [layout_case], layouts=LAYOUTS)
    assert ran.only("mix", implementation)


@pytest.mark.parametrize("implementation", implementations()["mix"])
def test_zero_weight_candidates_do_not_count_but_their_weights_have_gradients(implementation):
    weights, candidates = draw(2, 1, 2), [draw(1, 2, 1, 2, 2, 3) for _ in range(2)]
    candidates[1] = candidates[1] + 1.0
    weights[1] = 0.0
    weights.requires_grad_()
    sums = mix(candidates, weights, implementation)
    for all_of_them, first in zip(sums, mix(candidates[:1], weights[:1], implementation), strict=True):
        assert torch.equal(all_of_them, first)
    torch.stack(sums).sum().backward()
    check_close("dp", weights.grad[1], candidates[1].sum((2, 3, 4, 5)), 1e-13)


@pytest.mark.parametrize("implementation", implementations()["mix"])
def test_an_edge_whose_sum_nobody_reads_gets_a_gradient_of_zero(implementation):
    weights, own, shared = draw(2, 2, 3).requires_grad_(), draw(2, 3, 1, 2, 2, 3), draw(2, 1, 1, 2, 2, 3)
    own.requires_grad_()
    read = mix([own, shared], weights, implementation)[1]
    d_weights, d_own = torch.autograd.grad(read.square().sum(), (weights, own))
    assert not d_weights[..., [0, 2]].any()
    assert not d_own[:, [0, 2]].any()
    check_close("dp", d_weights[1, :, 1], 2.0 * (read * shared[:, 0]).sum((1, 2, 3, 4)), 1e-12)
    check_close("dy", d_own[:, 1], 2.0 * read * weights[0, :, 1].reshape(2, 1, 1, 1, 1), 1e-12)
