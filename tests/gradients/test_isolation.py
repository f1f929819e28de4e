"""Nothing leaks: not from task to task, not from padding, and under the support policy not from query to query."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metadarts.core.errors import NumericsError
from metadarts.core.rng import Key
from metadarts.core.types import TaskBatch
from metadarts.inner import InnerLoop, adapt
from metadarts.meta import meta_gradient
from metadarts.testing import ENGINES, check_params_close, generic_params, random_tasks, tiny_learner

INNER = InnerLoop(steps=2, weight_rate=0.05, alpha_rate=2.0)
SAME = 1e-10


def with_task(batch: TaskBatch, task: int, value: float | None, side: str) -> TaskBatch:
    """The images of one task and side replaced by ``value``, or by other noise."""
    images = getattr(batch, f"{side}_images").clone()
    images[task] = images[task].flip(0, 2) * 1.7 if value is None else value
    return replace(batch, **{f"{side}_images": images})


@pytest.mark.parametrize("side", ["support", "query"])
@pytest.mark.parametrize("value", [None, float("nan"), float("inf")], ids=["other images", "nan", "inf"])
@pytest.mark.parametrize("bn", ["transductive", "support"])
def test_a_task_cannot_touch_the_others(batch, per_task_gradients, bn, value, side):
    learner = tiny_learner(head="prototype", affine=True, bn=bn)
    params = generic_params(learner, Key.from_seed(1))
    losses, grads = per_task_gradients(learner, params, batch, INNER)
    other_losses, other_grads = per_task_gradients(learner, params, with_task(batch, 1, value, side), INNER)
    kept = [0, 2]
    assert torch.equal(losses[kept], other_losses[kept])
    for name, grad in grads.items():
        assert torch.equal(grad[kept], other_grads[name][kept]), name
    assert not torch.equal(losses[1], other_losses[1])
    assert value is None or not torch.isfinite(other_losses[1])


@pytest.mark.parametrize("engine", ["batched", "loop"])
@pytest.mark.parametrize("micro_batch", [None, 1])
def test_a_task_that_left_the_finite_numbers_is_left_out(batch, prototype, engine, micro_batch):
    learner, params = prototype
    broken = with_task(batch, 1, float("nan"), "support")
    result = meta_gradient(learner, params, broken, INNER, engine=ENGINES[engine], micro_batch=micro_batch)
    assert result.finite.tolist() == [True, False, True]
    rest = [meta_gradient(learner, params, batch.task(task), INNER) for task in (0, 2)]
    mean = {name: (rest[0].gradients[name] + rest[1].gradients[name]) / 2.0 for name in params}
    check_params_close(result.gradients, mean, SAME)
    assert result.losses[1].isnan()


def test_a_finite_loss_with_an_infinite_gradient_is_left_out_too(batch, prototype):
    """One task's gradient overflows although its loss does not: the query loss is scaled for it."""
    learner, params = prototype

    class Overflowing:
        start, support_loss = learner.start, learner.support_loss

        @staticmethod
        def query_loss(params, batch, at=None):
            losses, accuracies = learner.query_loss(params, batch)
            spike = torch.sqrt((losses - losses.detach())[:1])  # 0, with an infinite derivative
            return torch.cat([losses[:1] + spike, losses[1:]]), accuracies

    result = meta_gradient(Overflowing, params, batch, INNER)
    assert bool(torch.isfinite(result.losses).all())
    assert result.finite.tolist() == [False, True, True]
    rest = meta_gradient(learner, params, batch.slice(1, 3), INNER)
    check_params_close(result.gradients, rest.gradients, SAME)


def test_no_finite_task_is_an_error(pair, prototype):
    broken = with_task(with_task(pair, 0, float("nan"), "query"), 1, float("inf"), "query")
    with pytest.raises(NumericsError, match=r"no task of this batch stayed finite.*inner\.weight_rate"):
        meta_gradient(*prototype, broken, INNER)


@pytest.mark.parametrize("bn", ["transductive", "support"])
def test_a_support_set_too_small_for_batch_statistics_is_an_error(bn):
    """4x4 images end as one pixel, so one image leaves one value per channel."""
    learner = tiny_learner(bn=bn)
    params = generic_params(learner, Key.from_seed(1))
    tiny = random_tasks(Key.from_seed(0), ways=1, shots=1, size=4)
    with pytest.raises(NumericsError, match="at least 2 values per channel, got 1 image"):
        meta_gradient(learner, params, tiny, INNER)
    more = random_tasks(Key.from_seed(0), ways=1, shots=3, size=4)
    mask = more.support_mask.clone()
    mask[1, 1:] = False
    with pytest.raises(NumericsError, match="at least 2 values per channel, got 1 image"):
        meta_gradient(learner, params, replace(more, support_mask=mask), INNER)
    mask[1, :] = False
    with pytest.raises(NumericsError):
        meta_gradient(learner, params, replace(more, support_mask=mask), INNER)


def padded(batch: TaskBatch, support: int, query: int) -> TaskBatch:
    """Rows of loud noise and label 0 added to every task, which the masks reject."""
    sides = {}
    for side, count in (("support", support), ("query", query)):
        images, labels, mask = (getattr(batch, f"{side}_{name}") for name in ("images", "labels", "mask"))
        shape = (batch.tasks, count, *images.shape[2:])
        noise = 5.0 * torch.randn(shape, dtype=images.dtype, generator=Key.from_seed(9).child(side).torch())
        sides[f"{side}_images"] = torch.cat([images, noise], dim=1)
        sides[f"{side}_labels"] = torch.cat([labels, labels.new_zeros(batch.tasks, count)], dim=1)
        sides[f"{side}_mask"] = torch.cat([mask, mask.new_zeros(batch.tasks, count)], dim=1)
    return TaskBatch(**sides, ways=batch.ways)


def joined(first: TaskBatch, second: TaskBatch) -> TaskBatch:
    names = [f"{side}_{name}" for side in ("support", "query") for name in ("images", "labels", "mask")]
    return TaskBatch(**{n: torch.cat([getattr(first, n), getattr(second, n)]) for n in names}, ways=first.ways)


@pytest.mark.parametrize("order", ["second", "first"])
@pytest.mark.parametrize("bn", ["transductive", "support"])
@pytest.mark.parametrize("head", ["shared", "prototype"])
def test_padding_changes_nothing(pair, per_task_gradients, head, bn, order):
    """A ragged batch of a task of 6 + 6 images and one of 9 + 12: each as if it were alone and unpadded."""
    learner = tiny_learner(head=head, affine=True, bn=bn)
    params = generic_params(learner, Key.from_seed(1))
    inner = replace(INNER, order=order)
    small, large = pair.task(0), random_tasks(Key.from_seed(5), tasks=1, shots=3, queries=4)
    ragged = joined(padded(small, 3, 6), large)
    assert ragged.ragged
    losses, grads = per_task_gradients(learner, params, ragged, inner)
    for task, alone in enumerate((small, large)):
        own_losses, own_grads = per_task_gradients(learner, params, alone, inner)
        torch.testing.assert_close(losses[task : task + 1], own_losses, rtol=SAME, atol=0.0)
        check_params_close({n: g[task : task + 1] for n, g in grads.items()}, own_grads, 1e-9)


def logits_of(learner, params, batch):
    own = {name: tensor.expand(batch.tasks, *tensor.shape) for name, tensor in params.items()}
    with torch.no_grad():
        adapted = adapt(learner.support_loss, learner.start(own, batch), batch, INNER).params
        return learner.query_logits(adapted, batch)


@pytest.mark.parametrize(("bn", "independent"), [("support", True), ("transductive", False)])
@pytest.mark.parametrize("ragged", [False, True])
def test_a_prediction_depends_on_its_batch_mates_under_transductive_statistics_only(pair, bn, independent, ragged):
    learner = tiny_learner(head="prototype", bn=bn)
    params = generic_params(learner, Key.from_seed(1))
    batch = padded(pair, 2, 3) if ragged else pair
    images = batch.query_images.clone()
    images[:, 1:] = 3.0 * images[:, 1:].flip(1) + 1.0
    before, after = (
        logits_of(learner, params, batch)[:, 0],
        logits_of(learner, params, replace(batch, query_images=images))[:, 0],
    )
    assert torch.equal(before, after) == independent
    alone = TaskBatch(
        batch.support_images, batch.support_labels, batch.support_mask,
        batch.query_images[:, :1], batch.query_labels[:, :1], batch.query_mask[:, :1], ways=batch.ways,
    )  # fmt: skip
    close = torch.allclose(logits_of(learner, params, alone)[:, 0], before, rtol=1e-11, atol=1e-12)
    assert close == independent
