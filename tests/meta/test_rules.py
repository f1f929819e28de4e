"""Every outer rule of the table conforms; the suite, and the meta-gradient, see one that does not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from metadarts.core.rng import Key
from metadarts.inner import InnerLoop
from metadarts.meta import RULES, meta_gradient
from metadarts.meta.rules import MAML
from metadarts.testing import check_meta_rule, check_params_close, generic_params, random_tasks, tiny_learner

INNER = InnerLoop(steps=1, weight_rate=0.05, alpha_rate=2.0, learn_rates=True)


@pytest.mark.parametrize("name", RULES)
def test_it_conforms(name):
    check_meta_rule(RULES[name]())


@dataclass(frozen=True)
class Changed(MAML):
    """MAML whose answer is changed by a function of (gradients, answer)."""

    change: object = None

    def gradient(self, objective, shared, batch, step):
        found = super().gradient(objective, shared, batch, step)
        return replace(found, gradients=self.change(dict(found.gradients), shared))


def forgets(gradients, shared):
    return dict(list(gradients.items())[1:])


def forgets_rates(gradients, shared):
    return {name: gradient for name, gradient in gradients.items() if not name.startswith("rates.")}


def mixes_tasks(gradients, shared):
    return {name: gradient.mean(0, keepdim=True).expand_as(gradient) for name, gradient in gradients.items()}


def keeps_a_graph(gradients, shared):
    return {name: gradient.clone().requires_grad_() for name, gradient in gradients.items()}


def sums_tasks(gradients, shared):
    return {name: gradient.sum(0) for name, gradient in gradients.items()}


def moves_the_start(gradients, shared):
    next(iter(shared.values())).add_(1.0)
    return gradients


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (forgets, "expected one of every shared parameter"),
        (forgets_rates, "not so: rates.alphas"),
        (mixes_tasks, "allowed 1e-09"),
        (keeps_a_graph, "without a graph"),
        (sums_tasks, r"expected \[2, "),
        (moves_the_start, "allowed 0e"),
    ],
)
def test_what_does_not_conform_is_found(change, words):
    with pytest.raises(AssertionError, match=words):
        check_meta_rule(Changed(change))


class Undecided(MAML):
    stores = "both"


def test_what_it_stores_must_be_known():
    with pytest.raises(AssertionError, match="stores"):
        check_meta_rule(Undecided())


def problem():
    learner = tiny_learner(nodes=1, head="prototype")
    rates = {name: torch.tensor(0.1, dtype=torch.float64) for name in ("rates.weights", "rates.alphas")}
    return learner, generic_params(learner, Key.from_seed(1)), random_tasks(Key.from_seed(0)), rates


def test_gradients_go_by_name_and_not_by_their_order():
    learner, params, batch, rates = problem()
    expected = meta_gradient(learner, params, batch, INNER, rates=rates).gradients
    backwards = Changed(lambda gradients, shared: dict(reversed(gradients.items())))
    found = meta_gradient(learner, params, batch, INNER, rates=rates, rule=backwards).gradients
    assert list(found) == list(expected)
    check_params_close(found, expected, 0.0)


@pytest.mark.parametrize("change", [forgets, forgets_rates])
def test_a_rule_that_forgets_a_gradient_is_named(change):
    learner, params, batch, rates = problem()
    with pytest.raises(TypeError, match="a gradient of every shared parameter and learned rate; check"):
        meta_gradient(learner, params, batch, INNER, rates=rates, rule=Changed(change))
