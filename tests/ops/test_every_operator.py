"""What holds of every operator: one set of bits for any number of threads, two derivatives and no third, one recompute
under checkpointing, and a choice of implementation that is obeyed or explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from metadarts.core.errors import ConfigError
from metadarts.ops import conv_block, implementation, implementations, mix, pool, separable, watched
from metadarts.testing import OpCase, check_close
from metadarts.testing.operators import derivatives

TASKS, EDGES, IMAGES, SIDE, CHANNELS = 4, 3, 3, 7, 17
IMAGE = (IMAGES, SIDE, SIDE, CHANNELS)


@dataclass(frozen=True)
class Operator:
    """An operator at a size with many work items, as a function of named tensors that returns one tensor."""

    name: str
    call: Callable[..., torch.Tensor]
    inputs: dict[str, tuple[int, ...]]

    @property
    def case(self) -> OpCase:
        return OpCase(self.name, self.inputs)

    def leaves(self, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
        return {name: self.case.draw(name, shape).to(dtype).requires_grad_() for name, shape in self.inputs.items()}


def mixed(weights, own, shared, **options):
    return torch.stack(mix([own, shared], weights, **options), 1)


OPERATORS = [
    Operator(
        "separable",
        separable,
        {
            "x": (TASKS, 1, *IMAGE),
            "depthwise": (TASKS, EDGES, CHANNELS, 3, 3),
            "pointwise": (TASKS, EDGES, CHANNELS, CHANNELS),
        },
    ),
    Operator("pool", lambda x, **options: pool(x, "max", **options), {"x": (TASKS, *IMAGE)}),
    Operator("mix", mixed, {"weights": (2, TASKS, EDGES), "own": (TASKS, EDGES, *IMAGE), "shared": (TASKS, 1, *IMAGE)}),
    Operator(
        "conv_block",
        conv_block,
        {
            "x": (TASKS, *IMAGE),
            "weight": (TASKS, CHANNELS, CHANNELS, 3, 3),
            "scale": (TASKS, CHANNELS),
            "bias": (TASKS, CHANNELS),
        },
    ),
]
FAST = [
    pytest.param(operator, name, id=f"{operator.name}-{name}")
    for operator in OPERATORS
    for name in implementations()[operator.name]
    if name != "reference"  # plain torch, whose derivatives and threads are torch's affair
]
EVERY_ORDER = [("folded", "scale"), ("folded", "bias")]
"""What torch's own operators do after our normalise, and differentiate themselves, is right to every order."""

each_operator = pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)
each_fast_one = pytest.mark.parametrize(("operator", "name"), FAST)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@each_operator
def test_the_bits_do_not_depend_on_the_number_of_threads(operator, dtype, ran):
    """The kernels' promise; torch's own operators make none."""
    if "cpu" not in implementations()[operator.name]:
        pytest.skip("no CPU kernels here: Numba is not usable")
    found = []
    for count in (1, 2):
        with threads(count), implementation("cpu"):
            leaves = operator.leaves(dtype)
            upstream = operator.case.draw("upstream", operator.call(**leaves).shape).to(dtype).requires_grad_()
            found.append(derivatives(operator.call, operator.case, leaves, upstream))
    assert ran.only(operator.name, "cpu")
    for label, one in found[0].items():
        assert torch.equal(one, found[1][label]), label


@pytest.mark.parametrize("along", ["ones", "constant", "variable"])
@each_fast_one
def test_a_third_derivative_raises(operator, name, along):
    """Whatever the second derivative is taken along: torch's own guard, once_differentiable, does not see it."""
    leaves = operator.leaves()
    for leaf in [leaf for label, leaf in leaves.items() if (name, label) not in EVERY_ORDER]:
        directions = {"ones": torch.ones_like(leaf), "constant": leaf.detach().flip(0), "variable": leaf}
        loss = (operator.call(**leaves, implementation=name) ** 3).sum()
        (first,) = torch.autograd.grad(loss, leaf, create_graph=True)
        with pytest.raises(RuntimeError, match="no third derivative"):
            third_derivative(first, directions[along], leaf)


def third_derivative(first, direction, leaf):
    (second,) = torch.autograd.grad((first * direction).sum(), leaf, create_graph=True)
    torch.autograd.grad(second.square().sum(), leaf)


@each_fast_one
def test_checkpointing_changes_no_bit_of_a_second_derivative(operator, name):
    """Each backward unpacks what it saved once: under checkpointing every further access would recompute the step."""
    found, calls = [], 0

    def step(*tensors):
        nonlocal calls
        calls += 1
        return operator.call(**dict(zip(operator.inputs, tensors, strict=True)), implementation=name)

    for run in (step, lambda *tensors: checkpoint(step, *tensors, use_reentrant=False)):
        leaves = tuple(operator.leaves().values())
        first = torch.autograd.grad(run(*leaves).pow(3).sum(), leaves, create_graph=True)
        meta = sum((gradient**2).sum() for gradient in first)
        found.append([*first, *torch.autograd.grad(meta, leaves)])
    for plain, checkpointed in zip(*found, strict=True):
        assert torch.equal(plain, checkpointed)
    assert 3 <= calls <= 4  # once plain, once forward, and at most once for each of the two backward passes


@each_operator
def test_an_implementation_that_cannot_run_says_why(operator):
    leaves = operator.leaves()
    with pytest.raises(
        ConfigError, match=f"{operator.name}: .*'triton' cannot run: expected tensors on one CUDA device"
    ):
        operator.call(**leaves, implementation="triton")
    with pytest.raises(ConfigError, match=r"unknown implementation 'cup'.*cpu"):
        operator.call(**leaves, implementation="cup")
    half = {name: leaf.bfloat16() for name, leaf in leaves.items()}
    with pytest.raises(ConfigError, match=r"'cpu' cannot run: expected float32 or float64, got torch\.bfloat16"):
        operator.call(**half, implementation="cpu")
    if len(leaves) > 1:
        first, *rest = leaves
        both = {first: leaves[first].float()} | {name: leaves[name] for name in rest}
        with pytest.raises(ConfigError, match=r"expected tensors of one type, got torch\.float32, torch\.float64"):
            operator.call(**both, implementation="cpu")


@each_operator
def test_half_width_runs_folded_and_is_right_to_its_width(operator):
    half = operator.leaves(torch.bfloat16)
    with watched() as choices:
        y = operator.call(**half)
        first = torch.autograd.grad(y.float().pow(2).sum(), list(half.values()), create_graph=True)
    assert choices == [(operator.name, "folded")]
    assert y.dtype == torch.bfloat16
    assert all(gradient.dtype == torch.bfloat16 for gradient in first)
    expected = operator.call(**{name: leaf.detach().double() for name, leaf in half.items()})
    check_close("y", y, expected, 2e-2)


@each_operator
def test_left_alone_the_first_that_can_run_is_taken(operator):
    leaves = operator.leaves()
    with watched() as choices:
        operator.call(**leaves)
        with implementation("reference"):
            operator.call(**leaves)
            operator.call(**leaves, implementation="folded")
        operator.call(**leaves)
    fastest = implementations()[operator.name][0]
    assert choices == [(operator.name, name) for name in (fastest, "reference", "folded", fastest)]
