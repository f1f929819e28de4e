"""What stands before a rule: clipping, decay, schedules, and their order."""

from __future__ import annotations

import math

import pytest
import torch

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.optim import (
    SCHEDULES,
    Update,
    adam,
    after,
    chain,
    clip,
    clip_by_norm,
    clip_by_total_norm,
    constant,
    cosine,
    decoupled_decay,
    l2_decay,
    momentum,
    product,
    scheduled,
    sgd,
    warmup,
)


def grads() -> dict[str, torch.Tensor]:
    """Two tasks whose joint norms are 5 and 0.5."""
    return {"a": torch.tensor([[3.0, 0.0], [0.3, 0.0]]).double(), "b": torch.tensor([4.0, 0.4]).double()}


def norms(grads: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack([grad.reshape(2, -1).square().sum(1) for grad in grads.values()]).sum(0).sqrt()


def test_clipping_scales_each_task_to_the_limit_and_no_further():
    clipped = clip_by_norm(grads(), 2.0)
    torch.testing.assert_close(norms(clipped), torch.tensor([2.0, 0.5]).double())
    torch.testing.assert_close(clipped["a"][0] / 2.0, grads()["a"][0] / 5.0)
    assert torch.equal(clipped["b"][1], grads()["b"][1])


def test_no_limit_changes_nothing():
    given = grads()
    assert clip_by_norm(given, None) is given


def test_clipping_is_differentiable_where_it_clips_where_it_does_not_and_at_zero():
    leaves = [tensor.requires_grad_() for tensor in grads().values()]

    def clipped(*tensors):
        return tuple(clip_by_norm(dict(zip("ab", tensors, strict=True)), 2.0).values())

    assert torch.autograd.gradcheck(clipped, leaves)
    assert torch.autograd.gradgradcheck(clipped, leaves)
    zeros = [torch.zeros_like(leaf).requires_grad_() for leaf in leaves]
    first = torch.autograd.grad(sum(t.sum() for t in clipped(*zeros)), zeros, create_graph=True)
    second = torch.autograd.grad(sum(t.sum() for t in first), zeros, allow_unused=True)
    assert all(torch.isfinite(grad).all() for grad in (*first, *second) if grad is not None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("limit", [1e-3, 10.0, 1e3, None])
def test_clipping_without_tasks_is_that_of_torch_to_the_bit(limit, dtype):
    draw = Key.from_seed(0).torch()
    given = {str(n): torch.randn(n, n, dtype=dtype, generator=draw) for n in (1, 3, 17, 40)}
    leaves = [torch.zeros_like(tensor).requires_grad_() for tensor in given.values()]
    for leaf, grad in zip(leaves, given.values(), strict=True):
        leaf.grad = grad.clone()
    expected = torch.nn.utils.clip_grad_norm_(leaves, math.inf if limit is None else limit)
    clipped, norm = clip_by_total_norm(given, limit)
    assert torch.equal(norm, expected)
    assert all(torch.equal(mine, leaf.grad) for mine, leaf in zip(clipped.values(), leaves, strict=True))


PARAMS = {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double(), "b": torch.tensor([5.0, 6.0]).double()}
RATES = {"a": torch.tensor([0.1, 0.2]).double(), "b": torch.tensor([0.3, 0.4]).double()}


@pytest.mark.parametrize("rates", [RATES, 0.1, torch.tensor(0.1).double()], ids=["by task", "number", "0-dim"])
def test_l2_decay_joins_the_gradient_and_decoupled_decay_does_not(rates):
    seen = Update(grads(), PARAMS, rates, 0)
    pulled, shrunk = l2_decay(0.5)(seen), decoupled_decay(0.5)(seen)
    assert pulled._replace(grads=seen.grads) == seen
    assert shrunk._replace(params=seen.params) == seen
    for name, params in PARAMS.items():
        assert torch.equal(pulled.grads[name], seen.grads[name] + 0.5 * params)
        rate = rates[name].view(-1, *(1,) * (params.dim() - 1)) if isinstance(rates, dict) else rates
        torch.testing.assert_close(shrunk.params[name], (1 - 0.5 * rate) * params)


def test_what_has_no_gradient_does_not_decay():
    only = {"b": grads()["b"]}
    for transform in (l2_decay(0.5), decoupled_decay(0.5)):
        moved, _ = chain(sgd(), transform).update(only, {}, PARAMS, 0.1, 0)
        assert torch.equal(moved["a"], PARAMS["a"])
        assert not torch.equal(moved["b"], PARAMS["b"] - 0.1 * only["b"])


def test_the_first_transform_sees_the_gradient_first():
    limit, pull = clip(2.0), l2_decay(0.5)
    clipped_then_pulled, _ = chain(sgd(), limit, pull).update(grads(), {}, PARAMS, RATES, 0)
    clipped = Update(clip_by_norm(grads(), 2.0), PARAMS, RATES, 0)
    expected, _ = sgd().update(pull(clipped).grads, {}, PARAMS, RATES, 0)
    assert all(torch.equal(clipped_then_pulled[name], tensor) for name, tensor in expected.items())
    other_way, _ = chain(sgd(), pull, limit).update(grads(), {}, PARAMS, RATES, 0)
    assert not torch.allclose(other_way["a"], clipped_then_pulled["a"])


def test_a_chain_keeps_the_rules_state_and_its_name():
    rule = chain(momentum(), clip(1.0))
    assert (rule.name, chain(rule, name="own").name) == ("momentum", "own")
    assert rule.init(PARAMS).keys() == momentum().init(PARAMS).keys()


def test_one_differentiates_through_a_chain():
    """A rate, a decay and a schedule are in the derivative: of the end by the start, and by the rates."""
    rule = chain(adam(), clip(1.5), decoupled_decay(0.3), scheduled(cosine(), 3))
    leaves = [tensor.clone().requires_grad_() for tensor in (*PARAMS.values(), *RATES.values())]

    def ends(*tensors):
        params, rates = dict(zip("ab", tensors[:2], strict=True)), dict(zip("ab", tensors[2:], strict=True))
        state = rule.init(params)
        for step in range(2):
            field = {name: 1.5 + torch.sin(tensor) for name, tensor in params.items()}
            params, state = rule.update(field, state, params, rates, step)
        return tuple(params.values())

    assert torch.autograd.gradcheck(ends, leaves)
    assert torch.autograd.gradgradcheck(ends, leaves)


@pytest.mark.parametrize("rates", [RATES, 0.1], ids=["by task", "number"])
def test_a_schedule_counts_the_steps_of_its_task(rates):
    rule = chain(sgd(), scheduled(cosine(), 4))
    for step, share in enumerate((1.0, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0.0, 0.0)):
        moved, _ = rule.update(grads(), {}, PARAMS, rates, step)
        whole, _ = sgd().update(grads(), {}, PARAMS, rates, step)
        for name, start in PARAMS.items():
            torch.testing.assert_close(moved[name] - start, share * (whole[name] - start), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (constant(), [1.0, 1.0, 1.0, 1.0]),
        (cosine(), [1.0, 0.5, 0.0, 0.0]),
        (cosine(0.2), [1.0, 0.6, 0.2, 0.2]),
        (warmup(0.0), [1.0, 1.0, 1.0, 1.0]),
        (warmup(0.8), [0.0, 0.625, 1.0, 1.0]),
        (after(2), [0.0, 0.0, 1.0, 1.0]),
        (product(cosine(0.2), warmup(0.8), after(1)), [0.0, 0.375, 0.2, 0.2]),
    ],
    ids=["constant", "cosine", "cosine to 0.2", "no warm-up", "warm-up", "after", "product"],
)
def test_schedules(schedule, expected):
    """At steps 0 to 3 of a run of two: one goes on beyond its end."""
    assert [schedule(step, step / 2) for step in range(4)] == pytest.approx(expected)
    assert schedule(0, -1.0) == schedule(0, 0.0)


def test_named_schedules():
    assert set(SCHEDULES) == {"constant", "cosine"}
    with pytest.raises(ConfigError, match="unknown schedule 'cosin': did you mean 'cosine'"):
        SCHEDULES["cosin"]
