"""The mixed sum against its definition; a third derivative is refused, never wrong."""

from __future__ import annotations

import pytest
import torch

from metadarts.core.rng import Key
from metadarts.ops import mix
from metadarts.ops.mix.reference import mix as reference
from metadarts.testing import OpCase, check_close, check_op


def by_name(op):
    """check_op names its inputs; mix takes its candidates as a list."""
    return lambda weights, **candidates: op(list(candidates.values()), weights)


def case(what: str, image: tuple[int, int, int], tasks: int, edges: int, channels: int, shared: str) -> OpCase:
    """One candidate per letter of ``shared``: s is shared by all edges, o has one output for each."""
    inputs = {"weights": (len(shared), tasks, edges)}
    for number, letter in enumerate(shared):
        inputs[f"y{number}"] = (*image, tasks, 1 if letter == "s" else edges, channels)
    return OpCase(what, inputs)


CASES = [
    case("one candidate", (2, 3, 1), 1, 1, 3, "o"),
    case("several tasks and edges", (1, 2, 3), 2, 3, 2, "ooo"),
    case("shared first, as in a cell: pools and identity", (2, 1, 2), 2, 2, 2, "sso"),
    case("shared last", (1, 2, 2), 2, 3, 1, "os"),
    case("all shared", (1, 2, 1), 2, 3, 2, "ss"),
    case("one edge, so that shared and own look alike", (2, 2, 1), 3, 1, 2, "so"),
    case("one pixel of one channel", (1, 1, 1), 1, 2, 1, "oso"),
]


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=Key(("mix", str(shape))).torch())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_mix_equals_its_reference_to_second_order(case):
    check_op(by_name(mix), by_name(reference), [case])


def test_zero_weight_candidates_do_not_count_but_their_weights_have_gradients():
    weights, candidates = draw(2, 1, 2), [draw(1, 2, 2, 1, 2, 3) for _ in range(2)]
    candidates[1] = candidates[1] + 1.0
    weights[1] = 0.0
    weights.requires_grad_()
    y = mix(candidates, weights)
    assert torch.equal(y, mix(candidates[:1], weights[:1]))
    y.sum().backward()
    check_close("dp", weights.grad[1], candidates[1].sum((0, 1, 2, 5)), 1e-13)


@pytest.mark.parametrize("along", ["ones", "constant", "variable"])
@pytest.mark.parametrize("leaf", ["weights", "candidate"])
def test_a_third_derivative_raises(leaf, along):
    weights, candidates = draw(2, 1, 2).requires_grad_(), [draw(1, 2, 1, 1, 2, 3).requires_grad_() for _ in range(2)]
    target = weights if leaf == "weights" else candidates[0]
    direction = {"ones": torch.ones_like(target), "constant": draw(*target.shape), "variable": target}[along]
    (first,) = torch.autograd.grad((mix(candidates, weights) ** 3).sum(), target, create_graph=True)
    with pytest.raises(RuntimeError):
        third_derivative(first, direction, target)


def third_derivative(first, direction, leaf):
    (second,) = torch.autograd.grad((first * direction).sum(), leaf, create_graph=True)
    torch.autograd.grad(second.square().sum(), leaf)
