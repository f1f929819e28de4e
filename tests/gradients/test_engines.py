"""One meta-gradient, many ways to compute it: three engines, one task at a time, micro-batches, checkpoints."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from metadarts.core.rng import Key
from metadarts.inner import InnerLoop, rate_shapes
from metadarts.meta import meta_gradient
from metadarts.optim import adam
from metadarts.testing import ENGINES, check_params_close, generic_params, tiny_learner

INNER = InnerLoop(steps=3, weight_rate=0.05, alpha_rate=2.0)
SAME = 1e-9


def same(result, expected, tolerance=SAME):
    check_params_close(result.gradients, expected.gradients, tolerance)
    torch.testing.assert_close(result.losses, expected.losses, rtol=tolerance, atol=0.0)
    torch.testing.assert_close(result.support_losses, expected.support_losses, rtol=tolerance, atol=0.0)
    assert torch.equal(result.accuracies, expected.accuracies)
    assert torch.equal(result.finite, expected.finite)


def learned_rates(learner, params, batch, inner):
    names = list(learner.start({n: t.unsqueeze(0) for n, t in params.items()}, batch.task(0)))
    table = rate_shapes(inner, names).items()
    return {name: torch.full(shape, value, dtype=torch.float64) for name, (shape, value) in table}


def ragged(batch):
    """The last support and query image of the first task are padding."""
    masks = {name: getattr(batch, name).clone() for name in ("support_mask", "query_mask")}
    for mask in masks.values():
        mask[0, -1] = False
    return replace(batch, **masks)


@pytest.mark.parametrize("order", ["second", "first"])
@pytest.mark.parametrize("bn", ["transductive", "support"])
@pytest.mark.parametrize(("head", "affine"), [("shared", False), ("prototype", True)])
def test_three_engines_agree(pair, head, affine, bn, order):
    """Affine batch norms in the inner loop are what torch.func.vmap gets silently wrong."""
    learner = tiny_learner(head=head, affine=affine, bn=bn)
    params = generic_params(learner, Key.from_seed(1))
    inner = replace(INNER, order=order)
    expected = meta_gradient(learner, params, pair, inner)
    for engine in ("loop", "higher"):
        same(meta_gradient(learner, params, pair, inner, engine=ENGINES[engine]), expected)


@pytest.mark.parametrize("order", ["second", "first"])
@pytest.mark.parametrize("rule", ["momentum", "adam"])
def test_three_engines_agree_under_other_rules(pair, prototype, rule, order):
    inner = InnerLoop(steps=2, rule=rule, weight_rate=0.003, alpha_rate=0.1, order=order)
    expected = meta_gradient(*prototype, pair, inner)
    same(meta_gradient(*prototype, pair, inner, engine=ENGINES["loop"]), expected)
    if rule == "momentum":
        same(meta_gradient(*prototype, pair, inner, engine=ENGINES["higher"]), expected)


def test_higher_agrees_under_adam_of_its_own_constants(pair, prototype):
    """higher's Adam adds eps before the second bias correction and nothing under the root; in one step that is our Adam
    with another eps. (Beyond one step the two are different rules.)"""
    inner = InnerLoop(steps=1, rule="adam", weight_rate=0.003, alpha_rate=0.1, order="first")
    ours = replace(inner, rule=adam(eps=1e-8 / math.sqrt(1.0 - 0.999), eps_root=0.0))
    same(meta_gradient(*prototype, pair, inner, engine=ENGINES["higher"]), meta_gradient(*prototype, pair, ours))


GROUPS = {
    "ANIL": {"weight_rate": 0.0, "head_rate": 0.4, "alpha_rate": 0.0},
    "BOIL": {"head_rate": 0.0},
    "head and alphas": {"weight_rate": 0.0, "head_rate": 0.4},
    "each its own": {"head_rate": 0.4},
}


@pytest.mark.parametrize("order", ["second", "first"])
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_three_engines_agree_on_groups_of_parameters(pair, prototype, groups, order):
    inner = replace(INNER, order=order, **groups)
    expected = meta_gradient(*prototype, pair, inner)
    for engine in ("loop", "higher"):
        same(meta_gradient(*prototype, pair, inner, engine=ENGINES[engine]), expected)
    assert not torch.allclose(expected.losses, meta_gradient(*prototype, pair, INNER).losses)


@pytest.mark.parametrize(
    "options",
    [
        {"rule": "adamw", "decay": 0.5},
        {"rule": "sgd", "decay": 0.5, "clip": 0.5},
        {"rule": "adam", "schedule": "cosine"},
    ],
    ids=["adamw", "decay and clipping", "schedule"],
)
def test_engines_agree_under_decay_and_schedules(pair, prototype, options):
    inner = InnerLoop(steps=3, weight_rate=0.003, head_rate=0.01, alpha_rate=0.1)
    inner = replace(inner, **options)
    expected = meta_gradient(*prototype, pair, inner)
    same(meta_gradient(*prototype, pair, inner, engine=ENGINES["loop"]), expected)
    plain = replace(inner, rule="adam" if inner.rule == "adamw" else inner.rule, decay=None, schedule="constant")
    assert not torch.allclose(expected.losses, meta_gradient(*prototype, pair, plain).losses)
    recomputed = meta_gradient(*prototype, pair, replace(inner, checkpoint=2))
    assert all(torch.equal(recomputed.gradients[name], grad) for name, grad in expected.gradients.items())


@pytest.mark.parametrize("order", ["second", "first"])
@pytest.mark.parametrize(("rule", "alpha_rule"), [("sgd", "exponentiated"), ("adam", "sgd"), ("momentum", "adam")])
def test_engines_agree_where_alphas_follow_a_rule_of_their_own(pair, prototype, rule, alpha_rule, order):
    inner = InnerLoop(3, rule, 0.003, 0.4, order=order, alpha_rule=alpha_rule)
    expected = meta_gradient(*prototype, pair, inner)
    same(meta_gradient(*prototype, pair, inner, engine=ENGINES["loop"]), expected)
    assert not torch.allclose(expected.losses, meta_gradient(*prototype, pair, replace(inner, alpha_rule=None)).losses)
    recomputed = meta_gradient(*prototype, pair, replace(inner, checkpoint=2))
    assert all(torch.equal(recomputed.gradients[name], grad) for name, grad in expected.gradients.items())


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_the_rule_of_all_parameters_may_be_named_for_alphas_too(pair, prototype, rule):
    inner = InnerLoop(2, rule, 0.003, 0.4)
    expected = meta_gradient(*prototype, pair, inner).gradients
    found = meta_gradient(*prototype, pair, replace(inner, alpha_rule=rule)).gradients
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@pytest.mark.parametrize("learned", [False, True], ids=["constant rates", "learned rates"])
def test_all_tasks_at_once_equal_one_at_a_time(batch, prototype, learned):
    learner, params = prototype
    inner = replace(INNER, steps=2, clip=0.5, learn_rates=learned, granularity="tensor-step")
    rates = learned_rates(learner, params, batch, inner) if learned else None
    together = meta_gradient(learner, params, batch, inner, rates=rates)
    alone = [meta_gradient(learner, params, batch.task(task), inner, rates=rates) for task in range(batch.tasks)]
    mean = {name: sum(one.gradients[name] for one in alone) / batch.tasks for name in together.gradients}
    check_params_close(together.gradients, mean, SAME)
    torch.testing.assert_close(together.losses, torch.cat([one.losses for one in alone]), rtol=SAME, atol=0.0)
    for size in (1, 2, 7):
        same(meta_gradient(learner, params, batch, inner, rates=rates, micro_batch=size), together)
    same(meta_gradient(learner, params, batch, inner, rates=rates, engine=ENGINES["loop"]), together)


@pytest.mark.parametrize("recomputed", [1, 3])
@pytest.mark.parametrize(
    ("head", "shape", "options"),
    [
        ("prototype", "full", {"rule": "momentum", "weight_rate": 0.02}),
        ("prototype", "full", {"rule": "adam", "weight_rate": 0.003}),
        ("shared", "ragged", {"clip": 0.5, "learn_rates": True}),
        ("prototype", "ragged", {"rule": "momentum", "clip": 0.5, "learn_rates": True, "granularity": "tensor-step"}),
        ("prototype", "full", {"rule": "adam", "weight_rate": 0.003, "learn_rates": True, "granularity": "step"}),
        ("prototype", "full", {"weight_rate": 0.0, "learn_rates": True, "granularity": "tensor"}),
        ("prototype", "full", {"alpha_rate": 0.0, "learn_rates": True}),
    ],
    ids=["momentum", "adam", "group rates", "tensor-step rates", "step rates", "weights stay", "alphas stay"],
)
def test_checkpoints_change_no_bit(pair, head, shape, options, recomputed):
    """Adam, because its update depends on the step: the outer backward must recompute step 0 as step 0."""
    learner = tiny_learner(head=head)
    params = generic_params(learner, Key.from_seed(1))
    inner = InnerLoop(**{"steps": 3, "weight_rate": 0.05, "alpha_rate": 0.1} | options)
    tasks = ragged(pair) if shape == "ragged" else pair
    rates = learned_rates(learner, params, pair, inner) if inner.learn_rates else None
    expected = meta_gradient(learner, params, tasks, inner, rates=rates)
    found = meta_gradient(learner, params, tasks, replace(inner, checkpoint=recomputed), rates=rates)
    for name, gradient in expected.gradients.items():
        assert torch.equal(found.gradients[name], gradient), name
    assert all(bool(expected.gradients[name].any()) for name in rates or {})
    for name in ("losses", "accuracies", "support_losses", "finite"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_frozen_groups_stay_and_still_have_a_meta_gradient(pair, prototype):
    """A rate of zero: the group is not adapted, and its meta-gradient flows through the others' inner steps."""
    learner, params = prototype
    for frozen in ({"weight_rate": 0.0}, {"alpha_rate": 0.0}):
        inner = replace(INNER, steps=2, **frozen)
        expected = meta_gradient(learner, params, pair, inner)
        assert all(bool(grad.any()) for grad in expected.gradients.values() if grad.numel() > 1)
        for engine in ("loop", "higher"):
            same(meta_gradient(learner, params, pair, inner, engine=ENGINES[engine]), expected)
