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


MASKS = {
    "os": [[[1, 0, 1], [0, 0, 1]], [[0, 1, 1], [0, 1, 0]]],  # of one edge nothing, of another both
    "so": [[[1, 0], [0, 0]], [[0, 1], [1, 1]]],
    "ss": [[[0, 0, 1]], [[0, 1, 1]]],
    "o": [[[0, 1]]],
}


def without_zeros(candidates, weights):
    return reference(candidates, torch.where(weights == 0.0, 0.0, weights))


@pytest.mark.parametrize("implementation", implementations()["mix"])
@pytest.mark.parametrize("letters", MASKS)
def test_weights_of_zero_that_are_passed_over_have_no_derivatives_and_all_others_do(letters, implementation, ran):
    mask = torch.tensor(MASKS[letters], dtype=torch.float64)
    _, tasks, edges = mask.shape

    def masked(op, **options):
        def run(weights, **candidates):
            return torch.stack(op(list(candidates.values()), weights * mask.to(weights.dtype), **options), 1)

        return run

    one = case(f"passed over: {letters}", (2, 2, 1), tasks, edges, 5, letters)
    check_op(masked(mix, skips=True, implementation=implementation), masked(without_zeros), [one])
    assert ran.only("mix", implementation)


@pytest.mark.parametrize("skips", [True, False])
def test_a_cpu_does_not_read_what_is_passed_over(skips):
    weights = torch.tensor([1.0, 0.0], dtype=torch.float64).view(2, 1, 1).requires_grad_()
    candidates = [draw(1, 1, 1, 2, 2, 3) for _ in range(2)]
    candidates[1] = torch.full_like(candidates[1], torch.nan)
    leaves = [candidate.requires_grad_() for candidate in candidates]
    (y,) = mix(leaves, weights, skips=skips, implementation="cpu")
    found = torch.autograd.grad(y.square().sum(), [weights, *leaves], create_graph=True)
    second = torch.autograd.grad(sum(one.square().sum() for one in found), [weights, *leaves])
    assert y.isfinite().all() == skips
    assert all(bool(one.isfinite().all()) for one in (*found, *second)) == skips
    if skips:
        assert not any(one[1].any() for one in (found[0], second[0]))
        assert not found[2].any()
        assert not second[2].any()


@pytest.mark.parametrize("implementation", implementations()["mix"])
def test_zero_weight_candidates_do_not_count_but_their_weights_have_gradients(implementation):
    weights, candidates = draw(2, 1, 2), [draw(1, 2, 1, 2, 2, 3) for _ in range(2)]
    candidates[1] = candidates[1] + 1.0
    weights[1] = 0.0
    weights.requires_grad_()
    sums = mix(candidates, weights, implementation=implementation)
    for all_of_them, first in zip(sums, mix(candidates[:1], weights[:1], implementation=implementation), strict=True):
        assert torch.equal(all_of_them, first)
    torch.stack(sums).sum().backward()
    check_close("dp", weights.grad[1], candidates[1].sum((2, 3, 4, 5)), 1e-13)


@pytest.mark.parametrize("implementation", implementations()["mix"])
def test_an_edge_whose_sum_nobody_reads_gets_a_gradient_of_zero(implementation):
    weights, own, shared = draw(2, 2, 3).requires_grad_(), draw(2, 3, 1, 2, 2, 3), draw(2, 1, 1, 2, 2, 3)
    own.requires_grad_()
    read = mix([own, shared], weights, implementation=implementation)[1]
    d_weights, d_own = torch.autograd.grad(read.square().sum(), (weights, own))
    assert not d_weights[..., [0, 2]].any()
    assert not d_own[:, [0, 2]].any()
    check_close("dp", d_weights[1, :, 1], 2.0 * (read * shared[:, 0]).sum((1, 2, 3, 4)), 1e-12)
    check_close("dy", d_own[:, 1], 2.0 * read * weights[0, :, 1].reshape(2, 1, 1, 1, 1), 1e-12)
