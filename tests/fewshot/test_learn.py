"""From a support set to solutions: what zero steps are, what is kept, what moves, and that nothing leaks."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from metadarts.core.errors import ConfigError, DataError, NumericsError
from metadarts.core.types import alphas_of, is_alpha
from metadarts.fewshot.learn import (
    AdaptSettings,
    HeldOutImages,
    adapt_start,
    check_support,
    derive,
    inherited,
    retrained,
)
from metadarts.fewshot.task import MOST_AT_ONCE, Task, logits
from metadarts.networks import Learner, discrete_network, inherit
from metadarts.spaces import Genotype


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def prototypes(network, params, support):
    """What `Learner.start` makes of shared parameters, without the task axis."""
    own = {name: tensor.unsqueeze(0) for name, tensor in params.items()}
    made = Learner(network, "support").start(own, support.batch(support.frozen))
    return {name: tensor[0] for name, tensor in made.items()}


def test_zero_steps_are_the_starts_prototypes(start, support):
    solution = adapt_start(start, support, AdaptSettings(0))
    assert same(solution.params, prototypes(start.network, start.params, support))
    assert (solution.kept, [step.step for step in solution.history]) == (0, [0])


def test_what_is_shipped_answers_as_the_network_under_the_support_policy(cases, start, support):
    solution = adapt_start(start, support, AdaptSettings(0))
    held_out = cases.held_out_of(support)
    wanted = Learner(start.network, "support").query_logits(
        solution.with_axis(), support.batch(support.frozen, held_out.pixels, held_out.labels)
    )[0]
    task = Task(support, {"supernet": solution})
    size = float(wanted.abs().max())
    torch.testing.assert_close(task.model().logits(held_out.pixels), wanted, atol=1e-5 * size, rtol=0)
    torch.testing.assert_close(task.source()(held_out.pixels), wanted, atol=1e-5 * size, rtol=0)


def test_inherited_in_zero_steps_is_the_discrete_network_with_the_supernets_weights(start, support):
    adapted = adapt_start(start, support, AdaptSettings(2))
    found = inherited(start, support, adapted, AdaptSettings(0))
    network = discrete_network(derive(adapted), start.network.space, start.network.spec)
    shared = {name: tensor for name, tensor in adapted.params.items() if not name.startswith("head.")}
    shared |= {"head.scale": start.params["head.scale"]}
    assert found.network.genotype == derive(adapted)
    assert same(found.params, prototypes(network, inherit(network, shared, start.network), support))


def test_another_genotype_may_be_inherited(start, support):
    adapted = adapt_start(start, support, AdaptSettings(0))
    pairs = [("skip_connect", 0), ("sep_conv_3x3", 1)] * 2
    other = Genotype(pairs, (2, 3), pairs, (2, 3))
    assert inherited(start, support, adapted, AdaptSettings(0), other).network.genotype == other


def test_alphas_move_and_the_cell_follows_them(start, support):
    begun, moved = (
        adapt_start(start, support, AdaptSettings(0)),
        adapt_start(start, support, AdaptSettings(4, alpha_rate=200.0)),
    )
    first = alphas_of(start.params)
    assert all(not torch.equal(table, first[kind]) for kind, table in alphas_of(moved.params).items())
    assert derive(begun) != derive(moved)
    assert (
        str(derive(moved))
        == Task(support, {"supernet": inherited(start, support, moved, AdaptSettings(0))}).model().facts["genotype"]
    )


@pytest.mark.parametrize("moving", ["weights", "alphas"])
def test_a_rate_of_zero_leaves_its_half_alone(start, support, moving):
    plan = AdaptSettings(2, alpha_rate=0.0) if moving == "weights" else AdaptSettings(2, weight_rate=0.0)
    begun = adapt_start(start, support, AdaptSettings(0)).params
    found = adapt_start(start, support, plan).params
    changed = {is_alpha(name) for name in found if not torch.equal(found[name], begun[name])}
    assert changed == {moving == "alphas"}


def test_both_rates_zero_move_nothing(start, support):
    found = adapt_start(start, support, AdaptSettings(3, weight_rate=0.0, alpha_rate=0.0))
    assert same(found.params, adapt_start(start, support, AdaptSettings(0)).params)
    assert len(found.history) == 4


def test_held_out_images_are_only_looked_at(cases, start, support):
    watched = cases.held_out_of(support)
    other = HeldOutImages(255 - watched.pixels, (watched.labels + 1) % 3)
    for learn in (
        lambda held: adapt_start(start, support, AdaptSettings(3), held),
        lambda held: inherited(
            start, support, adapt_start(start, support, AdaptSettings(1)), AdaptSettings(2), held_out=held
        ),
        lambda held: retrained(
            start, support, derive(adapt_start(start, support, AdaptSettings(0))), AdaptSettings(3), held
        ),
    ):
        alone, seen, wrong = learn(None), learn(watched), learn(other)
        assert same(alone.params, seen.params)
        assert same(alone.params, wrong.params)
        assert [step.loss for step in alone.history] == [step.loss for step in seen.history]
        assert all(step.accuracy is None for step in alone.history)
        assert all(step.accuracy is not None for step in seen.history)


def test_the_history_looks_at_held_out_images_as_they_will_be_answered(cases, start, support):
    watched = cases.held_out_of(support)
    found = adapt_start(start, support, AdaptSettings(2), watched)
    answers = logits(support, found.network, found.with_axis(), watched.pixels).argmax(1)
    assert found.history[found.kept].accuracy == float((answers == watched.labels).double().mean())


def test_time_that_is_up_stops_with_the_best_so_far(start, support, monkeypatch):
    """By a clock of its own: a step takes 0.2 s, and one more than four would end after the second."""
    ticks = itertools.count()
    monkeypatch.setattr("metadarts.fewshot.learn.time", SimpleNamespace(monotonic=lambda: 0.1 * next(ticks)))
    found = adapt_start(start, support, AdaptSettings(500, seconds=1.0))
    assert found.history[-1].step == 4
    losses = [step.loss for step in found.history]
    assert losses[found.kept] == min(losses)
    assert same(found.params, adapt_start(start, support, AdaptSettings(found.kept)).params)


def test_no_time_at_all_is_zero_steps(start, support):
    found = adapt_start(start, support, AdaptSettings(10, seconds=1e-9))
    assert [step.step for step in found.history] == [0]


@pytest.fixture
def told(monkeypatch):
    """(losses) -> the list of the states that were judged; the support loss of the state after step k is losses[k].

    Every step moves every parameter that adapts, and nothing depends on how a machine rounds.
    """

    def tell(losses):
        judged = []

        def support_loss(self, params, batch, at=None):
            if torch.is_grad_enabled():
                return sum(tensor.sum(dtype=torch.float64) for tensor in params.values()).view(1)
            judged.append({name: tensor[0].clone() for name, tensor in params.items()})
            return torch.tensor([losses[len(judged) - 1]])

        monkeypatch.setattr(Learner, "support_loss", support_loss)
        return judged

    return tell


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([1.0, 0.5, 2.0, 9.0, 1e4, 1e8, 1e38], 1),
        ([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0], 0),
        ([1.0, 0.5, 0.25, 0.5, 0.125, 0.25, 0.125], 4),
        ([1.0, 0.5, 0.5, 0.75, 0.5, 0.5, 0.5], 1),
        ([6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0], 6),
    ],
    ids=["falls and explodes", "explodes", "falls twice", "is the lowest five times", "falls"],
)
def test_the_state_of_the_lowest_loss_is_kept(start, support, told, losses, best):
    judged = told(losses)
    found = adapt_start(start, support, AdaptSettings(6))
    assert [step.loss for step in found.history] == [pytest.approx(loss, rel=1e-6) for loss in losses]
    assert found.kept == best
    assert [same(found.params, state) for state in judged] == [step == best for step in range(7)]


@pytest.mark.parametrize("end", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_it(start, support, told, end):
    judged = told([1.0, 0.5, 0.75, end])
    found = adapt_start(start, support, AdaptSettings(6))
    assert (found.history[-1].step, found.kept) == (3, 1)
    assert same(found.params, judged[1])


@pytest.mark.parametrize("rate", [1e4, 1e38])
def test_a_rate_that_diverges_leaves_finite_numbers(start, support, rate):
    found = adapt_start(start, support, AdaptSettings(6, weight_rate=rate))
    losses = [step.loss for step in found.history]
    assert found.history[found.kept].loss == min(loss for loss in losses if math.isfinite(loss))
    assert all(bool(tensor.isfinite().all()) for tensor in found.params.values())
    assert same(found.params, adapt_start(start, support, AdaptSettings(found.kept, weight_rate=rate)).params)


def test_a_start_without_a_finite_first_loss_says_so(start, support):
    form = replace(support.form, std=(1e-300,))
    with pytest.raises(NumericsError, match="the start does not suit these images"):
        adapt_start(start, replace(support, form=form), AdaptSettings(1))


def test_watchers_see_every_step(start, support):
    seen = []
    found = adapt_start(start, support, AdaptSettings(2), watch=seen.append)
    assert tuple(seen) == found.history


def test_learned_rates_are_the_ones_of_the_start_unless_some_are_named(start, support):
    config = replace(start.config, inner=replace(start.config.inner, learn_rates=True))
    rates = {"rates.weights": torch.tensor(0.2), "rates.alphas": torch.tensor(3.0)}
    learned = replace(start, config=config, rates=rates)
    found = adapt_start(learned, support, AdaptSettings(2)).params
    assert same(found, adapt_start(start, support, AdaptSettings(2, weight_rate=0.2, alpha_rate=3.0)).params)
    named = AdaptSettings(2, weight_rate=0.01)
    assert same(adapt_start(learned, support, named).params, adapt_start(start, support, named).params)


def test_retrained_does_not_know_the_start(cases, start, support):
    genotype = derive(adapt_start(start, support, AdaptSettings(0)))
    other = replace(start, params={name: tensor * 2 for name, tensor in start.params.items()})
    one, two = (retrained(own, support, genotype, AdaptSettings(2)) for own in (start, other))
    assert same(one.params, two.params)
    different = retrained(start, replace(support, seed=1), genotype, AdaptSettings(2))
    assert not same(one.params, different.params)


@pytest.mark.parametrize(
    ("counts", "classes", "words"),
    [
        ((3,), None, "expected 2 to 20 classes, got 1"),
        ((1,) * 20, [str(number) for number in range(21)], "expected 2 to 20 classes, got 21"),
        ((3, 3), ["a", "b", "c"], "class 'c' has no image"),
        ((3, 3), ["a", "\udcff"], "half a letter"),
    ],
)
def test_classes_that_cannot_be_learnt(cases, start, counts, classes, words):
    support = cases.support_of(start, counts)
    support = replace(support, classes=tuple(classes or support.classes))
    with pytest.raises(DataError, match=words):
        check_support(support)
    with pytest.raises(DataError, match=words):
        adapt_start(start, support, AdaptSettings(0))


def test_two_classes_of_one_image_each_and_twenty(cases, start):
    for counts in ((1, 1), (1,) * 20):
        support = cases.support_of(start, counts)
        assert len(adapt_start(start, support, AdaptSettings(1)).history) == 2


@pytest.mark.parametrize("count", [65, 64, 100, 130])
def test_every_image_is_learnt_from_once_a_round(cases, start, count):
    support = cases.support_of(start, (count - 20, 20))
    parts = -(-count // MOST_AT_ONCE)
    rounds = []
    for first in range(0, 3 * parts, parts):
        rows = [support.minibatch(step) for step in range(first, first + parts)]
        assert max(map(len, rows)) <= MOST_AT_ONCE
        assert max(map(len, rows)) - min(map(len, rows)) <= 1
        assert torch.cat(rows).sort().values.tolist() == list(range(count))
        rounds.append(torch.cat(rows).tolist())
    assert rounds[0] != rounds[1]


def test_a_subset_is_balanced(cases, start):
    support = cases.support_of(start, (200, 10, 90))
    rows = support.balanced(64)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert torch.bincount(support.labels[rows]).tolist() == [27, 10, 27]
    assert support.balanced(300).tolist() == list(range(300))
    assert not torch.equal(rows, replace(support, seed=1).balanced(64))


def test_mini_batches_learn(cases, start):
    support = cases.support_of(start, (50, 60))
    found = adapt_start(start, support, AdaptSettings(4))
    assert found.history[-1].loss < found.history[0].loss


def test_a_plan_takes_numpys_numbers():
    import numpy as np

    assert AdaptSettings(np.int64(3), np.float32(1.5)).steps == 3
    assert type(AdaptSettings(np.int64(3)).steps) is int
    for wrong in (True, "3", 2.0, None):
        with pytest.raises(ConfigError, match="steps: expected a whole number"):
            AdaptSettings(wrong)


def test_an_unknown_solution_is_named(start, support):
    with pytest.raises(ConfigError, match="was not finished as 'retrained'"):
        Task(support, {"supernet": adapt_start(start, support, AdaptSettings(0))}).solution("retrained")
