"""The inner loop: all T tasks in one pass.

Tasks never interact, so one gradient of the sum of the T losses is the stack of the T per-task gradients. An `Engine`
is another way to compute the same; `metadarts.testing.engines` has two as references.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from metadarts.core.errors import ConfigError
from metadarts.core.types import Params, Stage, is_alpha
from metadarts.optim import State, clip_by_norm

from . import two_fold
from .recompute import recomputed
from .types import Adapted, InnerLoop, independent, rates_at


class Batch(Protocol):
    """What an engine asks of a batch: how many tasks it holds, and one of them alone (task axis kept)."""

    @property
    def tasks(self) -> int: ...

    def task(self, index: int) -> Any: ...


B = TypeVar("B", bound=Batch)
Observer = Callable[[int, Params], bool | None]
"""(step, task parameters) -> True to take no further step."""
StagedLoss = Callable[[Params, B, Stage], Tensor]
"""(task parameters [T, ...], batch, where in the task and in the run) -> [T]."""
Engine = Callable[[StagedLoss[Any], Params, Any, InnerLoop, Params | None, Tensor | float], Adapted]
"""(loss, params, support, inner, rates, progress) -> what `adapt` returns for them."""


def adapt(
    loss: StagedLoss[B],
    params: Params,
    support: B,
    inner: InnerLoop,
    *,
    rates: Params | None = None,
    engine: Engine | None = None,
    observe: Observer | None = None,
    batches: Callable[[int], B] | None = None,
    progress: Tensor | float = 1.0,
) -> Adapted:
    """Learn every task of ``support`` from ``params`` by ``inner.steps`` steps of gradient descent.

    Args:
        loss: (task parameters [T, ...], batch, stage) -> [T]; [T, 2] if ``inner`` separates the images of weights and
            alphas, see `metadarts.inner.two_fold`.
        params: initial parameters of the tasks, [T, ...]; gradients flow back to them unless under ``torch.no_grad``.
        support: the tasks.
        inner: rule, rates, order, clipping, checkpointing.
        rates: learned rates [T] or [T, K], see `rate_shapes`; None for the configured constants.
        engine: alternative implementation, see `metadarts.testing.engines`; None for all tasks in one pass.
        observe: called with (step, task parameters) before the first step and after each; the loop ends when it returns
            True. Only without ``engine``.
        batches: step -> the batch of that step, for support sets too large for one batch; None for all of ``support``.
            Only without ``engine``.
        progress: progress of the run, part of the stage that the loss gets; see `metadarts.core.types.Stage`.

    Raises:
        ConfigError: for an engine's name instead of the engine, or an option that the engine does not support; for
            tasks or a loss without halves if ``inner`` requires them.
    """
    if engine is not None:
        _require_plain(engine, inner, {"observe": observe, "batches": batches})
    if not any(inner.adapts(name) for name in params):
        return _stay(params, support, inner, observe)
    if inner.separates(params):
        support = two_fold.halved(support)
    if engine is not None:
        return engine(loss, params, support, inner, rates, progress)
    return _adapt_together(loss, params, support, inner, rates, progress, observe, batches)


def _require_plain(engine: Engine, inner: InnerLoop, options: dict[str, object]) -> None:
    """Require an engine that can be called, and none of the options that only the batched loop has."""
    if not callable(engine):
        raise ConfigError(f"engine: expected None or an entry of metadarts.testing.ENGINES, given {engine!r}")
    for name, option in options.items():
        if option is not None:
            raise ConfigError(f"{name} needs the batched engine: leave engine at None")
    if inner.checkpoint:
        raise ConfigError("inner.checkpoint needs the batched engine; others store every step")


def _stay(params: Params, support: Batch, inner: InnerLoop, observe: Observer | None) -> Adapted:
    """Every rate is 0: no step moves anything."""
    if observe:
        for step in range(inner.steps + 1):
            if observe(step, params):
                break
    return Adapted(params, next(iter(params.values())).new_zeros(0, support.tasks))


def inner_gradients(
    loss: Callable[[Params, B], Tensor], params: Params, support: B, inner: InnerLoop, keep_graph: bool, step: int
) -> tuple[Params, Tensor]:
    """Gradients of the summed task losses, clipped, and the losses [T]. With ``keep_graph`` they are differentiable.

    If weights and alphas learn from separate halves, the losses are the means of both.
    """
    moving = [name for name in params if inner.adapts(name)]
    with torch.enable_grad():
        variables = {name: independent(tensor, keep_graph) for name, tensor in params.items()}
        losses = loss(variables, support)
        if inner.separates(params):
            grads = two_fold.gradients(losses, variables, moving, step, keep_graph)
            losses = losses.mean(1)
        else:
            found = torch.autograd.grad(
                losses.sum(),
                [variables[name] for name in moving],
                create_graph=keep_graph,
                allow_unused=True,
                materialize_grads=True,
            )
            grads = dict(zip(moving, found, strict=True))
        groups = [{n: g for n, g in grads.items() if is_alpha(n) == alphas} for alphas in (False, True)]
        clipped = [clip_by_norm(group, inner.clip) if group else group for group in groups]
    return clipped[0] | clipped[1], losses


def unstaged(loss: Callable[[Params, B], Tensor]) -> StagedLoss[B]:
    """A loss that does not depend on the stage."""
    return lambda params, batch, at: loss(params, batch)


def staged(loss: StagedLoss[B], inner: InnerLoop, step: int, progress: Tensor | float) -> Callable[..., Tensor]:
    """``loss`` of inner step ``step``."""
    return partial(_at_stage, loss, Stage(step, inner.steps, progress))


def _at_stage(loss: StagedLoss[B], at: Stage, params: Params, batch: B) -> Tensor:
    return loss(params, batch, at)


def _adapt_together(
    loss: StagedLoss[B],
    params: Params,
    support: B,
    inner: InnerLoop,
    rates: Params | None,
    progress: Tensor | float,
    observe: Observer | None,
    batches: Callable[[int], B] | None,
) -> Adapted:
    rule = inner.make_rule()
    history: list[Tensor] = []
    state = rule.init({name: tensor for name, tensor in params.items() if inner.adapts(name)})
    exact = inner.order == "second" and torch.is_grad_enabled()
    if observe and observe(0, params):
        return Adapted(params, stacked(history, params))
    for step in range(inner.steps):
        step_rates = rates_at(inner, rates, params, step)
        learnt = support
        if batches:
            learnt = two_fold.halved(batches(step)) if inner.separates(params) else batches(step)

        def advance(
            loss: Callable[[Params, B], Tensor],
            params: Params,
            state: State,
            rates: Params,
            keep_graph: bool,
            step: int = step,
            learnt: B = learnt,
        ) -> tuple[Params, State, Tensor]:
            grads, losses = inner_gradients(loss, params, learnt, inner, keep_graph, step)
            return *rule.update(grads, state, params, rates, step), losses.detach()

        of_step = staged(loss, inner, step, progress)
        if exact and step < inner.checkpoint:
            params, state, losses = recomputed(advance, of_step, params, state, step_rates)
        else:
            params, state, losses = advance(of_step, params, state, step_rates, exact)
        history.append(losses)
        if observe and observe(step + 1, params):
            break
    return Adapted(params, stacked(history, params))


def stacked(history: list[Tensor], params: Params) -> Tensor:
    """[K, T]; [0, T] on the device of the tasks if no step was taken."""
    first = next(iter(params.values()))
    return torch.stack(history) if history else torch.zeros(0, first.shape[0], device=first.device)
