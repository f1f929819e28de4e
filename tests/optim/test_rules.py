"""Update rules against torch.optim, and what differentiating through them needs."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.optim import RULES, Rule, adam, adamw, chain, l2_decay, momentum, rule_by_name, sgd
from metadarts.testing import check_rule

SGD, ADAM, ADAMW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW


@pytest.mark.parametrize(
    ("rule", "reference"),
    [
        (sgd(), SGD),
        (momentum(), partial(SGD, momentum=0.9)),
        (momentum(0.5), partial(SGD, momentum=0.5)),
        (adam(), ADAM),
        (adam(first=0.5, second=0.9, eps=1e-3), partial(ADAM, betas=(0.5, 0.9), eps=1e-3)),
        (adamw(), ADAMW),
        (adamw(0.5, decay=0.3), partial(ADAMW, betas=(0.5, 0.999), weight_decay=0.3)),
        (chain(adam(), l2_decay(0.2)), partial(ADAM, weight_decay=0.2)),
        (rule_by_name("momentum", decay=0.0), partial(SGD, momentum=0.9)),
    ],
    ids=["sgd", "momentum", "momentum 0.5", "adam", "adam of other constants", "adamw", "adamw 0.3", "L2", "by name"],
)
def test_rule_conforms(rule, reference):
    check_rule(rule, reference)


def detached(grads, state, params, rates, step):
    moved, state = sgd().update(grads, state, {n: t.detach() for n, t in params.items()}, rates, step)
    return moved, state


def in_place(grads, state, params, rates, step):
    return {
        name: tensor.sub_(rates[name].view(-1, *[1] * (tensor.dim() - 1)) * grads[name])
        for name, tensor in params.items()
    }, state


def blind(grads, state, params, rates, step):
    return sgd().update(grads, state, params, rates if isinstance(rates, dict) else 0.0, step)


@pytest.mark.parametrize(
    ("rule", "reference", "message"),
    [
        (momentum(0.8), partial(SGD, momentum=0.9), "momentum: scalar of task 0 after step 1"),
        (adam(eps_root=1e-3), ADAM, "adam: scalar of task 0 after step 0"),
        (adam(eps_root=0.0), ADAM, "adam: the derivative through a step at a zero gradient is not finite"),
        (adamw(decay=0.0), ADAMW, "adamw: scalar of task 0 after step 0"),
        (sgd()._replace(update=blind), SGD, "sgd: scalar under a rate that is a number"),
        (sgd()._replace(update=detached), SGD, "Jacobian"),
        (sgd()._replace(update=in_place), SGD, "."),
    ],
    ids=["wrong beta", "wrong constant", "sqrt at zero", "no decay", "shared rate unread", "cut graph", "in place"],
)
def test_check_rule_sees_an_offence(rule, reference, message):
    with pytest.raises((AssertionError, KeyError), match=message):
        check_rule(rule, reference)


SHAPES = [(3, 5, 3, 3), (7,), (), (16, 16), (1000,), (33, 3, 1)]
"""A scalar, whole vectors of a processor and what is left over."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("rule", "reference"),
    [
        (sgd(), SGD),
        (momentum(), partial(SGD, momentum=0.9)),
        (adam(eps_root=0.0), ADAM),
        (chain(adam(0.5, eps_root=0.0), l2_decay(1e-3)), partial(ADAM, betas=(0.5, 0.999), weight_decay=1e-3)),
        (adamw(eps_root=0.0), ADAMW),
    ],
    ids=["sgd", "momentum", "adam", "adam with L2", "adamw"],
)
def test_with_one_rate_a_rule_is_the_optimiser_of_torch_to_the_bit(rule, reference, dtype):
    """On a CPU, where torch's optimisers go parameter by parameter."""
    draw = Key.from_seed(0).torch()
    leaves = {str(n): torch.randn(shape, dtype=dtype, generator=draw) for n, shape in enumerate(SHAPES)}
    params = {name: leaf.clone() for name, leaf in leaves.items()}
    optimiser, state = reference(list(leaves.values()), lr=3e-3), rule.init(params)
    for step in range(50):
        grads = {name: 0.1 * torch.randn(leaf.shape, dtype=dtype, generator=draw) for name, leaf in leaves.items()}
        for name, leaf in leaves.items():
            leaf.grad = grads[name].clone()
        optimiser.step()
        params, state = rule.update(grads, state, params, 3e-3, step)
        for name, leaf in leaves.items():
            assert torch.equal(params[name], leaf), (step, name)
    assert all(torch.equal(state[slot][n], optimiser.state[leaves[n]][slot]) for slot in state for n in leaves)


@pytest.mark.parametrize("name", RULES)
def test_rule_is_found_by_name(name):
    assert rule_by_name(name).name == name


def test_these_are_the_rules():
    assert list(RULES) == ["adam", "adamw", "exponentiated", "momentum", "sgd"]


def test_unknown_rule_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown update rule 'adma': did you mean 'adam'"):
        rule_by_name("adma")


def one_step(rule: Rule) -> dict[str, float]:
    """Where two parameters that begin at 2 are after a step at rate 0.1; at a gradient of 0 decay alone moves them."""
    params = {name: torch.tensor([2.0]).double() for name in ("a", "b")}
    grads = {name: torch.zeros(1).double() for name in params}
    moved, _ = rule.update(grads, rule.init(params), params, 0.1, 0)
    return {name: float(tensor) for name, tensor in moved.items()}


@pytest.mark.parametrize(
    ("rule", "decay", "expected"),
    [
        ("sgd", None, 2.0),
        ("sgd", 0.5, 1.9),
        ("adamw", None, 1.998),
        ("adamw", 0.0, 2.0),
        ("adamw", 0.5, 1.9),
        (sgd(), 0.5, 1.9),
        (adamw(decay=0.2), None, 1.96),
    ],
)
def test_decay_is_the_rules_own_unless_it_is_named(rule, decay, expected):
    assert one_step(rule_by_name(rule, decay=decay))["a"] == pytest.approx(expected)


@pytest.mark.parametrize("rule", ["sgd", "adamw"])
def test_decay_may_be_of_some_parameters(rule):
    found = one_step(rule_by_name(rule, decay=0.5, decayed=lambda name: name == "b"))
    assert found == pytest.approx({"a": 2.0, "b": 1.9})


def test_constants_reach_the_rules_that_have_them():
    params = {"a": torch.ones(1).double()}
    ends = []
    for rule in (rule_by_name("adam", first=0.5, eps=1.0), adam(0.5, eps=1.0), adam()):
        moved, state = rule.update(params, rule.init(params), params, 0.1, 0)
        ends.append(float(rule.update(moved, state, moved, 0.1, 1)[0]["a"]))
    assert ends[0] == ends[1] != ends[2]
    assert rule_by_name("sgd", first=0.5).name == "sgd"


def test_rates_belong_to_tasks():
    params = {"w": torch.zeros(2, 3).double()}
    rates = {"w": torch.tensor([1.0, 10.0]).double()}
    direction = torch.randn(3, generator=Key.from_seed(0).torch()).double()
    moved, _ = sgd().update({"w": direction.expand(2, 3)}, {}, params, rates, 0)
    torch.testing.assert_close(moved["w"], torch.stack([-direction, -10.0 * direction]))
