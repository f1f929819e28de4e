"""Recomputed inner steps: what they cost, keep and refuse. tests/gradients tests that no bit changes."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, replace

import pytest
import torch

from metadarts.core.rng import Key
from metadarts.inner import InnerLoop, adapt
from metadarts.testing import generic_params, random_tasks, tiny_learner

INNER = InnerLoop(steps=3, weight_rate=0.1, alpha_rate=0.3)
SHAPES = {"first": (4, 6), "second": (6, 2), "bias": (2,), "alphas.gate": (6,)}


def draw(name: str, *shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=Key(("recompute", name)).torch())


@dataclass(frozen=True)
class Points:
    """Three tasks of five points."""

    inputs: torch.Tensor

    @property
    def tasks(self) -> int:
        return len(self.inputs)


POINTS = Points(draw("points", 3, 5, 4))


def loss(params, batch, at=None):
    """A gated layer between two linear ones: every pair of parameters has a mixed second derivative."""
    hidden = (batch.inputs @ params["first"]).tanh() * params["alphas.gate"].softmax(-1).unsqueeze(1)
    return (hidden @ params["second"] + params["bias"].unsqueeze(1)).square().sum(2).mean(1)


class Counted:
    """The loss, which writes down each evaluation."""

    def __init__(self):
        self.calls = 0

    def __call__(self, params, batch, at=None):
        self.calls += 1
        return loss(params, batch)


def leaves(names=tuple(SHAPES)):
    return {n: draw(n, POINTS.tasks, *shape).requires_grad_(n in names) for n, shape in SHAPES.items()}


def outer(params, weigh=loss):
    return weigh(params, replace(POINTS, inputs=POINTS.inputs.flip(1))).exp().sum()


def outer_gradients(inner, rates=None, start=None):
    start = leaves() if start is None else start
    rates = None if rates is None else {name: rate.clone().requires_grad_() for name, rate in rates.items()}
    end = outer(adapt(loss, start, POINTS, inner, rates=rates).params)
    wanted = [tensor for tensor in (*start.values(), *(rates or {}).values()) if tensor.requires_grad]
    return torch.autograd.grad(end, wanted)


@pytest.mark.parametrize("recomputed", [0, 1, 3])
@pytest.mark.parametrize("rule", ["sgd", "momentum", "adam"])
def test_a_recomputed_step_evaluates_its_loss_once_forward_and_once_backward(rule, recomputed):
    counted, start = Counted(), leaves()
    end = outer(adapt(counted, start, POINTS, replace(INNER, rule=rule, checkpoint=recomputed)).params)
    assert counted.calls == 3
    torch.autograd.grad(end, list(start.values()))
    assert counted.calls == 3 + recomputed


def test_first_order_and_no_grad_recompute_nothing():
    counted, start, inner = Counted(), leaves(), replace(INNER, checkpoint=3)
    torch.autograd.grad(outer(adapt(counted, start, POINTS, replace(inner, order="first")).params), start["first"])
    assert counted.calls == 3
    with torch.no_grad():
        ends = adapt(counted, start, POINTS, inner).params
    assert counted.calls == 6
    assert not any(tensor.requires_grad for tensor in ends.values())


@pytest.mark.parametrize("recomputed", [1, 2, 3])
@pytest.mark.parametrize("steps", [None, 3], ids=["rates", "rates by step"])
@pytest.mark.parametrize("options", [{}, {"rule": "momentum", "clip": 0.5}, {"rule": "adam"}], ids=str)
def test_no_bit_changes(options, steps, recomputed):
    """One rate for several parameters, which add up its gradient: in the order of a stored step."""
    inner = replace(INNER, **options)
    shape = (POINTS.tasks,) if steps is None else (POINTS.tasks, steps)
    rates = {name: 0.1 * draw(name, *shape).abs() for name in ("rates.weights", "rates.alphas")}
    found = outer_gradients(replace(inner, checkpoint=recomputed), rates)
    for gradient, expected in zip(found, outer_gradients(inner, rates), strict=True):
        assert bool(expected.any())
        assert torch.equal(gradient, expected)


@pytest.mark.parametrize("frozen", [{"weight_rate": 0.0}, {"alpha_rate": 0.0}], ids=str)
def test_parameters_that_stay_keep_their_gradient(frozen):
    inner = replace(INNER, **frozen)
    for gradient, expected in zip(outer_gradients(replace(inner, checkpoint=3)), outer_gradients(inner), strict=True):
        assert torch.equal(gradient, expected)


def test_only_what_requires_grad_gets_one():
    rates = {name: draw(name, POINTS.tasks).abs() for name in ("rates.weights", "rates.alphas")}
    for asked, given in (((), rates), (("bias",), None)):
        found = outer_gradients(replace(INNER, checkpoint=3), given, leaves(asked))
        for gradient, expected in zip(found, outer_gradients(INNER, given, leaves(asked)), strict=True):
            assert torch.equal(gradient, expected)
    assert not any(
        t.requires_grad for t in adapt(loss, leaves(()), POINTS, replace(INNER, checkpoint=3)).params.values()
    )


def test_what_the_outer_loss_leaves_out_has_no_gradient():
    start = leaves()
    ends = adapt(lambda own, batch, at: own["bias"].square().sum(1), start, POINTS, replace(INNER, checkpoint=3)).params
    found = torch.autograd.grad(ends["bias"].sum(), list(start.values()), allow_unused=True)
    assert {name: gradient is not None for name, gradient in zip(start, found, strict=True)} == {
        name: name == "bias" for name in start
    }


def test_a_graph_that_is_kept_can_be_gone_through_again():
    start = leaves()
    end = outer(adapt(loss, start, POINTS, replace(INNER, checkpoint=3)).params)
    once = torch.autograd.grad(end, list(start.values()), retain_graph=True)
    for gradient, expected in zip(torch.autograd.grad(end, list(start.values())), once, strict=True):
        assert torch.equal(gradient, expected)


def test_a_gradient_that_never_comes_is_none():
    class Cut(torch.autograd.Function):
        @staticmethod
        def forward(ctx, tensor):
            return tensor.clone()

        @staticmethod
        def backward(ctx, gradient):
            return None

    start = leaves()
    ends = adapt(loss, start, POINTS, replace(INNER, checkpoint=3)).params
    assert torch.autograd.grad(Cut.apply(ends["first"]).sum(), start["first"], allow_unused=True) == (None,)


SCALE = torch.full((3,), 2.0, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("foreign", [SCALE, SCALE.exp()], ids=["leaf", "computed"])
def test_a_loss_that_depends_on_what_is_not_its_parameter_is_refused(foreign):
    """Stored steps give it its gradient; a recomputed one would lose it in silence."""

    def scaled(params, batch, at=None):
        return foreign * loss(params, batch)

    ends = adapt(scaled, leaves(), POINTS, INNER).params
    assert bool(torch.autograd.grad(outer(ends), SCALE, retain_graph=True)[0].any())
    with pytest.raises(
        RuntimeError, match=r"inner.checkpoint: .* \(leaves of shape \[3\]\).* set inner.checkpoint to 0"
    ):
        adapt(scaled, leaves(), POINTS, replace(INNER, checkpoint=1))
    adapt(scaled, leaves(), POINTS, replace(INNER, checkpoint=1, order="first"))


def test_so_are_tasks_that_require_grad():
    tasks = Points(POINTS.inputs.clone().requires_grad_())
    with pytest.raises(RuntimeError, match=r"leaves of shape \[3, 5, 4\]"):
        adapt(loss, leaves(), tasks, replace(INNER, checkpoint=1))


def test_a_third_derivative_is_refused():
    start = leaves()
    end = outer(adapt(loss, start, POINTS, replace(INNER, checkpoint=1)).params)
    with pytest.raises(RuntimeError, match=r"no third derivative: set inner.checkpoint to 0, or differentiate"):
        torch.autograd.grad(end, start["first"], create_graph=True)


def test_a_step_is_taken_again_as_it_was_surrounded():
    """The choice of an operator's implementation is a context variable; a GPU's backward has a thread of its own."""
    mode, seen = ContextVar("mode", default="outside"), []

    def noted(params, batch, at=None):
        seen.append(mode.get())
        return loss(params, batch)

    start, token = leaves(), mode.set("inside")
    end = outer(adapt(noted, start, POINTS, replace(INNER, steps=1, checkpoint=1)).params)
    mode.reset(token)
    torch.autograd.grad(end, start["first"])
    assert seen == ["inside", "inside"]


class Kept:
    """Within the block, counts the numbers that autograd keeps, each time that they are kept."""

    def __init__(self):
        self.now = self.peak = 0

    def __enter__(self):
        self.hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: _Kept(self, tensor), lambda kept: kept.tensor
        )
        self.hooks.__enter__()
        return self

    def __exit__(self, *raised):
        self.hooks.__exit__(*raised)


class _Kept:
    def __init__(self, counter, tensor):
        self.counter, self.tensor = counter, tensor
        counter.now += tensor.numel()
        counter.peak = max(counter.peak, counter.now)

    def __del__(self):
        self.counter.now -= self.tensor.numel()


def kept(steps, recomputed):
    """(numbers kept when the graph of the inner loop is there, the most at any moment, size of the parameters)."""
    learner, batch = tiny_learner(head="prototype"), random_tasks(Key.from_seed(0), tasks=2)
    params = generic_params(learner, Key.from_seed(1))
    with Kept() as counter:
        own = {name: tensor.expand(2, *tensor.shape).clone().requires_grad_() for name, tensor in params.items()}
        start = {name: tensor.clone() for name, tensor in learner.start(own, batch).items()}
        before = counter.now
        inner = InnerLoop(steps, weight_rate=0.05, alpha_rate=2.0, checkpoint=recomputed)
        ends = adapt(learner.support_loss, start, batch, inner).params
        held = counter.now - before
        torch.autograd.grad(learner.query_loss(ends, batch)[0].sum(), list(own.values()), allow_unused=True)
    return held, counter.peak, sum(tensor.numel() for tensor in start.values()) + 2 * len(start)


def test_a_recomputed_step_keeps_its_parameters_and_rates():
    held, _, size = kept(3, 3)
    assert held == 3 * size
    assert held < kept(3, 0)[0] / 3


def test_one_step_at_a_time_has_a_graph():
    """The peak grows by what further steps keep, and by no graph; stored, by all of them."""
    (_, few, size), (_, many, _) = kept(2, 2), kept(5, 5)
    assert many - few == 3 * size
    assert many < kept(2, 0)[1]
