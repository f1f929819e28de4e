"""Two rules in one: each as if it were alone, their states side by side."""

from __future__ import annotations

import pytest
import torch

from metadarts.core.rng import Key
from metadarts.core.types import is_alpha
from metadarts.optim import adam, chain, exponentiated, momentum, scheduled, sgd, split

NAMES = ("stem", "alphas.normal", "head", "alphas.reduce")
RULES = {"sgd": sgd, "momentum": momentum, "adam": adam, "exponentiated": exponentiated}


def draw(*path):
    return torch.randn(2, 3, dtype=torch.float64, generator=Key(("splitting", *path)).torch())


def walk(rule, names, rates, steps=3):
    params = {name: draw(name) for name in names}
    rates = {name: rates[name] for name in names} if isinstance(rates, dict) else rates
    state = rule.init(params)
    for step in range(steps):
        params, state = rule.update(
            {n: t.sin() + draw(n, str(step)) for n, t in params.items()}, state, params, rates, step
        )
    return params, state


@pytest.mark.parametrize("rates", [0.1, {name: torch.tensor([0.1, 0.3 + i]).double() for i, name in enumerate(NAMES)}])
@pytest.mark.parametrize("other", RULES)
@pytest.mark.parametrize("first", ["sgd", "momentum", "adam"])
def test_each_half_is_its_rule_alone(first, other, rates):
    params, state = walk(split(RULES[first](), RULES[other](), is_alpha), NAMES, rates)
    assert list(params) == list(NAMES)
    names = {kind: [name for name in NAMES if is_alpha(name) == kind] for kind in (False, True)}
    halves = [walk(RULES[first](), names[False], rates), walk(RULES[other](), names[True], rates)]
    for ends, slots in halves:
        assert all(torch.equal(params[name], tensor) for name, tensor in ends.items())
        assert all(torch.equal(state[slot][name], slots[slot][name]) for slot in slots for name in slots[slot])
    counted = {slot: sum(len(slots.get(slot, {})) for _, slots in halves) for slot in state}
    assert {slot: len(kept) for slot, kept in state.items()} == counted


def test_one_rule_twice_is_that_rule():
    found, _ = walk(split(adam(), adam(), is_alpha), NAMES, 0.1)
    expected, _ = walk(adam(), NAMES, 0.1)
    assert all(torch.equal(found[name], expected[name]) for name in NAMES)


def test_what_stands_before_both_reaches_both():
    rule = chain(split(sgd(), exponentiated(), is_alpha), scheduled(lambda step, progress: float(step == 0), 3))
    found, _ = walk(rule, NAMES, 0.1)
    expected, _ = walk(split(sgd(), exponentiated(), is_alpha), NAMES, 0.1, steps=1)
    assert all(torch.equal(found[name], expected[name]) for name in NAMES)


def test_parameters_without_a_gradient_stay():
    params = {name: draw(name) for name in NAMES}
    rule = split(adam(), momentum(), is_alpha)
    moved, state = rule.update({"head": params["head"]}, rule.init(params), params, 0.1, 0)
    assert [name for name in NAMES if not torch.equal(moved[name], params[name])] == ["head"]
    assert set(state) == {"exp_avg", "exp_avg_sq", "momentum_buffer"}
