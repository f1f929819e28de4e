"""Alphas that start from what a task's support set says: exact through the encoder, in every engine."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from metadarts.core.errors import ConfigError, NumericsError
from metadarts.core.rng import Key
from metadarts.core.types import FIXED, START_PREFIX, Stage, alphas_of, batched, group_of, with_alphas
from metadarts.inner import InnerLoop
from metadarts.meta import MetaState, OuterLoop, meta_gradient, meta_step
from metadarts.networks import ALPHA_STARTS
from metadarts.testing import (
    ENGINES,
    check_alpha_start,
    check_params_close,
    error_along,
    generic_params,
    random_tasks,
    tiny_learner,
)
from metadarts.training.build import task_names

INNER = InnerLoop(steps=2, weight_rate=0.05, alpha_rate=2.0)
STARTS = {
    "amortised": ALPHA_STARTS["amortised"](width=5, scales=2, filters=3),
    "choice": ALPHA_STARTS["choice"](cells=3, width=5, scales=2, filters=3),
    "per-domain": ALPHA_STARTS["per-domain"](domains=("a", "b", "c")),
}
ENCODERS = ("amortised", "choice")
SOFT = 0.3
"""Progress at which a choice of cells is not fixed yet."""


def is_fixed(name):
    return name.startswith(START_PREFIX + FIXED)


def started(start, head="prototype", bn="transductive"):
    """A learner with this start, and parameters in which the start speaks."""
    learner = tiny_learner(head=head, bn=bn)
    learner = replace(learner, network=replace(learner.network, start=start))
    params = generic_params(learner, Key.from_seed(1))
    for name in params:
        if group_of(name) == "start":
            noise = torch.randn(params[name].shape, dtype=torch.float64, generator=Key(("start", name)).torch())
            params[name] = params[name] + 0.3 * noise.abs()  # no scale may change its sign
    return learner, params


@pytest.fixture
def told(pair):
    """Two tasks of different domains."""
    return replace(pair, domain=torch.tensor([2, 0]))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("bn", ["transductive", "support"])
@pytest.mark.parametrize("head", ["shared", "prototype"])
@pytest.mark.parametrize("name", STARTS)
def test_exact_meta_gradient_equals_central_differences(told, query_losses, name, head, bn):
    learner, params = started(STARTS[name], head, bn)
    gradients = meta_gradient(learner, params, told, INNER, progress=SOFT).gradients

    def loss(point):
        return query_losses(learner, point, told, INNER, progress=SOFT).mean()

    own = [name for name in params if group_of(name) == "start" and not is_fixed(name)]
    assert own
    assert error_along(loss, gradients, params, own) < 1e-6
    assert error_along(loss, gradients, params, [name for name in params if group_of(name) != "start"]) < 1e-6


@pytest.mark.parametrize("start", [*STARTS.values(), ALPHA_STARTS["shared"]()], ids=[*STARTS, "shared"])
def test_each_conforms(start):
    check_alpha_start(start)


@dataclass(frozen=True)
class Broken(type(STARTS["per-domain"])):
    """A start with one fault."""

    fault: str = ""

    def init(self, name, shape, key):
        return torch.randn(shape) if self.fault == "init" else super().init(name, shape, key)

    def shapes(self, decisions, channels):
        return super().shapes(decisions, channels) | ({"fixed.a": (1,)} if self.fault == "fixed" else {})

    def prepare(self, own, batches):
        return {"alphas.normal": torch.zeros(1)} if self.fault == "prepare" else {}

    def alphas(self, seen):
        found = super().alphas(seen)
        change = {
            "tasks": lambda table: table + table.mean(0),
            "order": lambda table: table + seen.batch.support_images[:, 0].mean((1, 2, 3))[:, None, None],
            "query": lambda table: table + seen.batch.query_images.mean(),
            "padding": lambda table: table + seen.batch.support_images.sum((1, 2, 3, 4))[:, None, None],
            "number": lambda table: table * (1.0 + float(seen.at.progress)),
            "progress": lambda table: table * (2.0 if isinstance(seen.at.progress, torch.Tensor) else 1.0),
            "derivative": lambda table: table + (2.0 * table).detach().sin(),
            "second": _OnlyOnce.apply,
            "fixed": lambda table: table * seen.own["fixed.a"][:, :, None],
            "shape": lambda table: table[:, :1],
            "dtype": lambda table: table.float(),
        }.get(self.fault, lambda table: table)
        return {name: change(table) for name, table in found.items()}


class _OnlyOnce(torch.autograd.Function):
    """x^2 whose derivative is taken for a constant: first order passed off as exact."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * 2.0 * x.detach()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("init", "the same values for the same key"),
        ("prepare", "expected fixed parameters"),
        ("tasks", "the same for a task alone"),
        ("order", "another order of the support images"),
        ("progress", "a device's progress"),
        ("query", "other query images"),
        ("padding", "where there is padding"),
        ("number", "no tensor .* made a number"),
        ("derivative", "derivatives of first order"),
        ("second", "derivatives of second order"),
        ("fixed", "a fixed parameter has a gradient"),
        ("shape", "alphas normal: expected"),
        ("dtype", "alphas normal: expected"),
    ],
)
def test_a_broken_one_does_not_conform(fault, message):
    check_alpha_start(Broken(("a", "b", "c")))
    with pytest.raises(AssertionError, match=message):
        check_alpha_start(Broken(("a", "b", "c"), fault))


@pytest.mark.parametrize("start", ENCODERS)
def test_every_parameter_of_the_encoder_but_the_fixed_has_a_gradient(told, start):
    learner, params = started(STARTS[start])
    gradients = meta_gradient(learner, params, told, INNER, progress=SOFT).gradients
    for name in params:
        if group_of(name) == "start":
            assert bool(gradients[name].any()) != is_fixed(name), name


def test_fixed_parameters_never_move(told):
    """Also under a decay of all weights."""
    learner, params = started(STARTS["amortised"])
    outer = OuterLoop(weight_decoupled_decay=0.1, alpha_decoupled_decay=0.1)
    state = MetaState.create(params, task_names(params), INNER, outer)
    meta_step(learner, state, told, INNER)
    for name, tensor in params.items():
        assert torch.equal(state.params[name], tensor) == is_fixed(name), name


def test_a_prepared_encoder_sees_standard_numbers():
    """Means, deviations and contrasts of the tasks that it was prepared with have mean 0 and deviation 1."""
    start = STARTS["amortised"]
    own = {name: start.init(name, shape, Key((name,))).double() for name, shape in start.shapes((), 1).items()}
    batches = [random_tasks(Key.from_seed(seed), tasks=2) for seed in range(5)]
    fixed = start.prepare(own, batches)
    for part in ("means", "deviations", "contrasts"):
        values = torch.cat(
            [
                getattr(start._parts(own[f"{FIXED}filters"].expand(2, -1, -1, -1, -1), batch), part).flatten(0, -2)
                for batch in batches
            ]
        )
        standard = (values - fixed[f"{FIXED}{part}.shift"]) / fixed[f"{FIXED}{part}.scale"]
        torch.testing.assert_close(standard.mean(0), torch.zeros_like(standard[0]))
        torch.testing.assert_close(standard.std(0, unbiased=False), torch.ones_like(standard[0]))


def test_what_no_training_task_told_says_nothing_later():
    """Prepared on tasks of one image per class, whose deviations are not known; then five."""
    start = STARTS["amortised"]
    own = {name: start.init(name, shape, Key((name,))).double() for name, shape in start.shapes((), 1).items()}
    own |= start.prepare(own, [random_tasks(Key.from_seed(seed), shots=1) for seed in range(4)])
    for shots in (1, 5):
        batch = random_tasks(Key.from_seed(9), shots=shots)
        shared = {name: tensor.expand(2, *tensor.shape) for name, tensor in own.items()}
        standard = start._standard(start._parts(shared["fixed.filters"], batch), shared)
        assert standard["deviations"].abs().max() < 1e-6
        assert all(values.abs().max() <= 5.0 for values in standard.values())


def test_images_too_small_for_the_scales(told):
    learner, params = started(ALPHA_STARTS["amortised"](scales=4))
    with pytest.raises(NumericsError, match="too small to be halved 3 times"):
        learner.start(batched(params, 2), told)


@pytest.mark.parametrize("order", ["second", "first"])
@pytest.mark.parametrize("name", STARTS)
def test_engines_agree(told, name, order):
    learner, params = started(STARTS[name])
    inner = replace(INNER, order=order)
    expected = meta_gradient(learner, params, told, inner, progress=SOFT)
    for found in (
        meta_gradient(learner, params, told, inner, engine=ENGINES["loop"], progress=SOFT),
        meta_gradient(learner, params, told, inner, engine=ENGINES["higher"], progress=SOFT),
        meta_gradient(learner, params, told, inner, micro_batch=1, progress=SOFT),
        meta_gradient(learner, params, told, inner, progress=torch.tensor(SOFT, dtype=torch.float64)),
    ):
        check_params_close(found.gradients, expected.gradients, 1e-9)
        torch.testing.assert_close(found.losses, expected.losses, rtol=1e-9, atol=0.0)
    recomputed = meta_gradient(learner, params, told, replace(inner, checkpoint=2), progress=SOFT)
    assert all(torch.equal(recomputed.gradients[name], grad) for name, grad in expected.gradients.items())


@pytest.mark.parametrize("name", STARTS)
def test_a_fresh_start_is_the_shared_one(told, name):
    learner = tiny_learner(head="prototype")
    with_start = replace(learner, network=replace(learner.network, start=STARTS[name]))
    fresh = {n: t.double() for n, t in with_start.network.init(Key.from_seed(3)).items()}
    expected = learner.start(batched({n: t for n, t in fresh.items() if group_of(n) != "start"}, 2), told)
    found = with_start.start(batched(fresh, 2), told)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor)


@pytest.mark.parametrize("start", ENCODERS)
def test_tasks_of_one_batch_do_not_see_each_other(told, start):
    learner, params = started(STARTS[start])
    at = Stage(progress=SOFT)
    together = learner.start(batched(params, 2), told, at)
    for task in range(2):
        alone = learner.start(batched(params, 1), told.task(task), at)
        for name, tensor in alone.items():
            torch.testing.assert_close(together[name][task : task + 1], tensor, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(*together["alphas.normal"])


def test_neither_the_order_of_images_nor_the_names_of_classes_matter(told):
    learner, params = started(STARTS["amortised"])
    own = batched(params, 2)
    order = torch.randperm(told.support_labels.shape[1], generator=Key.from_seed(5).torch())
    moved = replace(
        told,
        known_ragged=False,
        support_images=told.support_images[:, order],
        support_labels=(told.support_labels[:, order] + 1) % told.ways,
        support_mask=told.support_mask[:, order],
    )
    here, there = (learner.start(own, batch) for batch in (told, moved))
    torch.testing.assert_close(here["alphas.normal"], there["alphas.normal"])


def test_padding_of_the_support_set_does_not_count(told):
    """Fewer images, or as many of which some are padding."""
    learner, params = started(STARTS["amortised"])
    own, keep = batched(params, 2), 2 * told.ways - 1
    mask = told.support_mask.clone()
    mask[:, keep:] = False
    padded = replace(told, support_mask=mask)
    parts = {f"support_{part}": getattr(told, f"support_{part}")[:, :keep] for part in ("images", "labels", "mask")}
    fewer = replace(told, known_ragged=False, **parts)
    here, there = (learner.start(own, batch)["alphas.normal"] for batch in (padded, fewer))
    torch.testing.assert_close(here, there)


def test_a_domain_moves_its_own_alphas_only(told):
    learner, params = started(STARTS["per-domain"])
    gradients = meta_gradient(learner, params, told, INNER).gradients
    table = gradients[f"{START_PREFIX}alphas.normal"]
    assert [bool(row.any()) for row in table] == [True, False, True]


def test_tasks_without_a_domain_are_refused(pair):
    learner, params = started(STARTS["per-domain"])
    with pytest.raises(ConfigError, match="expected tasks that say their domain"):
        learner.start(batched(params, 2), pair)


@pytest.mark.parametrize("progress", [0.5, 1.0, torch.tensor(0.7)])
def test_a_fixed_choice_is_one_of_at_most_k_tables(told, progress):
    """And its tables learn on, its encoder does not."""
    learner, params = started(STARTS["choice"])
    at = Stage(progress=progress)
    batches = [random_tasks(Key.from_seed(seed), tasks=2) for seed in range(12)]
    params = learner.network.prepared(params, batches)
    found = [learner.start(batched(params, 2), batch, at)["alphas.normal"] for batch in batches]
    tables = params["alphas.normal"] + params["start.alphas.normal"]
    chosen = set()
    for alphas in torch.cat(found):
        distances = (tables - alphas).abs().flatten(1).amax(1)
        assert distances.min() < 1e-12
        chosen.add(int(distances.argmin()))
    assert len(chosen) > 1
    gradients = meta_gradient(learner, params, batches[0], INNER, progress=progress).gradients
    assert bool(gradients["start.alphas.normal"].any())
    assert not any(bool(gradients[f"start.{name}"].any()) for name in ("alphas.choice-of-cell", "class.weight"))


def test_one_cell_to_choose_is_the_shared_one(told):
    learner, params = started(ALPHA_STARTS["choice"](cells=1, width=5, scales=2, filters=3))
    found = learner.start(batched(params, 2), told, Stage(progress=SOFT))["alphas.normal"]
    expected = params["alphas.normal"] + params["start.alphas.normal"][0]
    torch.testing.assert_close(found, expected.expand_as(found))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("amortised", {"width": 0}),
        ("amortised", {"scales": 0}),
        ("choice", {"cells": 0}),
        ("choice", {"end": 0.0}),
        ("choice", {"begin": 0.5, "finish": 0.5}),
        ("per-domain", {"domains": ("a", "a")}),
    ],
)
def test_options_out_of_range(name, options):
    with pytest.raises(ConfigError, match=rf"alphas\.{next(iter(options))}: expected"):
        ALPHA_STARTS[name](**options)


def test_a_start_learns_where_the_inner_loop_moves_nothing(told):
    learner, params = started(STARTS["amortised"])
    still = InnerLoop(steps=1, weight_rate=0.0, alpha_rate=0.0)
    assert not any(still.adapts(name) for name in params)
    gradients = meta_gradient(learner, params, told, still).gradients
    assert bool(gradients["start.alphas.normal"].any())


def test_alphas_that_are_given_stay_as_they_are(told):
    """What a study swaps between tasks is not moved by the encoder of its own task."""
    learner, params = started(STARTS["amortised"])
    own = batched(params, 2)
    given = {name: table.flip(0) for name, table in alphas_of(learner.start(own, told)).items()}
    swapped = learner.start(with_alphas(own, given), told)
    for name, table in given.items():
        assert torch.equal(swapped[f"alphas.{name}"], table)
