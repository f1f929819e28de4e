"""Update rules against torch.optim, and what differentiating through them needs."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.optim import Rule, adam, clip_by_norm, momentum, rule_by_name, sgd
from metadarts.testing import check_rule

SGD, ADAM = torch.optim.SGD, torch.optim.Adam


@pytest.mark.parametrize(
    ("rule", "reference"),
    [
        (sgd(), SGD),
        (momentum(), partial(SGD, momentum=0.9)),
        (momentum(0.5), partial(SGD, momentum=0.5)),
        (adam(), ADAM),
        (adam(first=0.5, second=0.9, eps=1e-3), partial(ADAM, betas=(0.5, 0.9), eps=1e-3)),
    ],
    ids=["sgd", "momentum", "momentum 0.5", "adam", "adam of other constants"],
)
def test_rule_conforms(rule, reference):
    check_rule(rule, reference)


def broken(**changes) -> Rule:
    return adam()._replace(**changes)


def detached(grads, state, params, rates, step):
    moved, state = sgd().update(grads, state, {n: t.detach() for n, t in params.items()}, rates, step)
    return moved, state


def in_place(grads, state, params, rates, step):
    return {
        name: tensor.sub_(rates[name].view(-1, *[1] * (tensor.dim() - 1)) * grads[name])
        for name, tensor in params.items()
    }, state


@pytest.mark.parametrize(
    ("rule", "reference", "message"),
    [
        (momentum(0.8), partial(SGD, momentum=0.9), "momentum: scalar of task 0 after step 1"),
        (adam(eps_root=1e-3), ADAM, "adam: scalar of task 0 after step 0"),
        (adam(eps_root=0.0), ADAM, "adam: the derivative through a step at a zero gradient is not finite"),
        (sgd()._replace(update=detached), SGD, "Jacobian"),
        (sgd()._replace(update=in_place), SGD, "."),
    ],
    ids=["wrong decay", "wrong constant", "sqrt at zero", "cut graph", "in place"],
)
def test_check_rule_sees_an_offence(rule, reference, message):
    with pytest.raises((AssertionError, KeyError), match=message):
        check_rule(rule, reference)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_rule_is_found_by_name(name):
    assert rule_by_name(name).name == name


def test_unknown_rule_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown inner rule 'adma': did you mean 'adam'"):
        rule_by_name("adma")


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


def test_rates_belong_to_tasks():
    params = {"w": torch.zeros(2, 3).double()}
    rates = {"w": torch.tensor([1.0, 10.0]).double()}
    direction = torch.randn(3, generator=Key.from_seed(0).torch()).double()
    moved, _ = sgd().update({"w": direction.expand(2, 3)}, {}, params, rates, 0)
    torch.testing.assert_close(moved["w"], torch.stack([-direction, -10.0 * direction]))
