"""Two folds of the support set: engines agree, exact order is a derivative, recomputing changes no bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metadarts.core.errors import ConfigError
from metadarts.core.rng import Key
from metadarts.core.types import is_alpha
from metadarts.inner import InnerLoop, adapt
from metadarts.meta import meta_gradient
from metadarts.testing import ENGINES, check_params_close, error_along, generic_params, random_tasks, tiny_learner

INNER = InnerLoop(steps=3, weight_rate=0.05, alpha_rate=2.0, alpha_images="two-fold")
SAME = 1e-9


def ragged(batch):
    """Three images per class, of which the first task lacks one of class 0 and one query."""
    masks = {name: getattr(batch, name).clone() for name in ("support_mask", "query_mask")}
    masks["support_mask"][0, 3] = masks["query_mask"][0, -1] = False
    return replace(batch, **masks)


@pytest.fixture(scope="module")
def tasks():
    """Two tasks of three classes with three support images each: halves of 2 and of 1 per class."""
    return random_tasks(Key.from_seed(0), shots=3)


def same(result, expected, tolerance=SAME):
    check_params_close(result.gradients, expected.gradients, tolerance)
    torch.testing.assert_close(result.losses, expected.losses, rtol=tolerance, atol=0.0)
    torch.testing.assert_close(result.support_losses, expected.support_losses, rtol=tolerance, atol=0.0)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("order", ["second", "first"])
@pytest.mark.parametrize("bn", ["transductive", "support"])
@pytest.mark.parametrize(("head", "shape"), [("shared", "full"), ("prototype", "full"), ("prototype", "ragged")])
def test_three_engines_agree(tasks, head, shape, bn, order):
    learner, batch = tiny_learner(head=head, affine=True, bn=bn), ragged(tasks) if shape == "ragged" else tasks
    params = generic_params(learner, Key.from_seed(1))
    inner = replace(INNER, order=order)
    expected = meta_gradient(learner, params, batch, inner)
    for engine in ("loop", "higher"):
        same(meta_gradient(learner, params, batch, inner, engine=ENGINES[engine]), expected)
    same(meta_gradient(learner, params, batch, inner, micro_batch=1), expected)
    together = meta_gradient(learner, params, batch, replace(inner, alpha_images="all"))
    assert not torch.allclose(together.losses, expected.losses)


@pytest.mark.parametrize(
    "options", [{"rule": "momentum", "weight_rate": 0.003}, {"head_rate": 0.4}], ids=["momentum", "head"]
)
def test_engines_agree_under_other_rules_and_groups(tasks, prototype, options):
    inner = replace(INNER, **options)
    expected = meta_gradient(*prototype, tasks, inner)
    for engine in ("loop", "higher"):
        same(meta_gradient(*prototype, tasks, inner, engine=ENGINES[engine]), expected)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("shape", ["full", "ragged"])
@pytest.mark.parametrize("bn", ["transductive", "support"])
@pytest.mark.parametrize("head", ["shared", "prototype"])
def test_exact_meta_gradient_equals_central_differences(tasks, query_losses, head, bn, shape):
    learner, batch = tiny_learner(head=head, bn=bn), ragged(tasks) if shape == "ragged" else tasks
    params = generic_params(learner, Key.from_seed(1))
    gradients = meta_gradient(learner, params, batch, INNER).gradients
    for group in (False, True):
        names = [name for name in params if is_alpha(name) == group]
        error = error_along(lambda p: query_losses(learner, p, batch, INNER).mean(), gradients, params, names)
        assert error < 1e-6


def test_exact_through_clipping(tasks, query_losses, prototype):
    learner, params = prototype
    inner = replace(INNER, steps=2, weight_rate=0.5, clip=0.05)
    gradients = meta_gradient(learner, params, tasks, inner).gradients
    assert error_along(lambda p: query_losses(learner, p, tasks, inner).mean(), gradients, params, list(params)) < 1e-6


@pytest.mark.parametrize("recomputed", [1, 3])
@pytest.mark.parametrize("shape", ["full", "ragged"])
@pytest.mark.parametrize("options", [{}, {"rule": "adam", "weight_rate": 0.003}, {"clip": 0.5}], ids=str)
def test_recomputed_steps_change_no_bit(tasks, prototype, options, shape, recomputed):
    inner, batch = replace(INNER, **options), ragged(tasks) if shape == "ragged" else tasks
    expected = meta_gradient(*prototype, batch, inner)
    found = meta_gradient(*prototype, batch, replace(inner, checkpoint=recomputed))
    assert all(torch.equal(found.gradients[name], gradient) for name, gradient in expected.gradients.items())
    assert torch.equal(found.support_losses, expected.support_losses)


def test_a_group_does_not_see_the_labels_of_the_other_half(tasks, shared):
    """In one step from a head that has not seen them; a prototype head would let more through."""
    learner, params = shared
    own = {name: tensor.expand(2, *tensor.shape) for name, tensor in params.items()}
    start = learner.start(own, tasks)
    generator = Key.from_seed(2).torch()
    start["head.weight"] = torch.randn(start["head.weight"].shape, dtype=torch.float64, generator=generator)
    halves = tasks.in_halves().halves

    def end_of(batch):
        assert torch.equal(batch.in_halves().halves, halves)
        return adapt(learner.support_loss, start, batch, replace(INNER, steps=1)).params

    plain = end_of(tasks)
    for own_half, changed in enumerate(halves.unbind(1)):
        labels = torch.where(changed, (tasks.support_labels + 1) % 3, tasks.support_labels)
        end = end_of(replace(tasks, support_labels=labels))
        for name in ("stem.conv1", "head.weight", "alphas.normal"):
            assert torch.equal(end[name], plain[name]) == (is_alpha(name) == (own_half == 0)), name


def test_one_image_per_class_is_refused(prototype):
    batch = random_tasks(Key.from_seed(0), shots=1)
    with pytest.raises(
        ConfigError, match=r"two support images per class, 6 for 3 classes, got 3: give more shots, or set"
    ):
        meta_gradient(*prototype, batch, INNER)
