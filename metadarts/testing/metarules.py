"""check_meta_rule: an outer rule fulfils the contract that masking, parts of a batch and recording require."""

from __future__ import annotations

from dataclasses import replace

import torch

from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch
from metadarts.inner import InnerLoop, rate_shapes
from metadarts.meta import MetaRule, MetaStep, TaskGradients
from metadarts.networks import Learner

from ._close import check_params_close
from .tiny import generic_params, random_tasks, tiny_learner

INNER = InnerLoop(steps=2, weight_rate=0.05, alpha_rate=2.0)
LEARNED = replace(INNER, learn_rates=True)
STORES = ("graph", "ends")


def check_meta_rule(rule: MetaRule) -> None:
    """Check that ``rule`` gives each task a gradient of every shared parameter and learned rate, and nothing else.

    Raises:
        AssertionError: for a missing or unknown name or a wrong shape, gradients that require grad, changed parameters,
            tasks that depend on each other, or an invalid attribute ``stores``.
    """
    if rule.stores not in STORES:
        raise AssertionError(f"stores: expected one of {STORES}, got {rule.stores!r}")
    for head in ("prototype", "shared"):
        learner = tiny_learner(nodes=1, head=head)
        params = generic_params(learner, Key.from_seed(1))
        _check(rule, learner, params, None)
        shapes = rate_shapes(LEARNED, list(params))
        _check(rule, learner, params, {n: torch.full(s, rate, dtype=torch.float64) for n, (s, rate) in shapes.items()})


def _check(rule: MetaRule, learner: Learner, params: Params, rates: Params | None) -> None:
    batch, given = random_tasks(Key.from_seed(0), tasks=2), params | (rates or {})
    before = {name: tensor.clone() for name, tensor in given.items()}
    together = _gradients(rule, learner, params, rates, batch)
    _check_form(together, given, batch.tasks)
    check_params_close(given, before, 0.0)
    alone = [_gradients(rule, learner, params, rates, batch.task(task)).gradients for task in range(batch.tasks)]
    joined = {name: torch.cat([task[name] for task in alone]) for name in given}
    check_params_close(together.gradients, joined, 1e-9)


def _gradients(
    rule: MetaRule, learner: Learner, params: Params, rates: Params | None, batch: TaskBatch
) -> TaskGradients:
    inner = INNER if rates is None else LEARNED
    return rule.gradient(learner, params, batch, MetaStep(inner, rates, progress=0.5))


def _check_form(found: TaskGradients, params: Params, tasks: int) -> None:
    if odd := sorted(found.gradients.keys() ^ params.keys()):
        raise AssertionError(f"gradients: expected one of every shared parameter and learned rate; not so: {odd[0]}")
    for name, gradient in found.gradients.items():
        if tuple(gradient.shape) != (tasks, *params[name].shape):
            raise AssertionError(f"{name}: expected [{tasks}, {list(params[name].shape)}], got {list(gradient.shape)}")
    tensors = {"losses": found.losses, "accuracies": found.accuracies, **found.gradients}
    for name, tensor in tensors.items():
        if tensor.requires_grad or not bool(torch.isfinite(tensor).all()):
            raise AssertionError(f"{name}: expected finite numbers without a graph")
    if tuple(found.losses.shape) != (tasks,) or tuple(found.support_losses.shape) != (INNER.steps, tasks):
        raise AssertionError("expected losses [T] and support losses [K, T]")
