"""The inner loop one task after another, written for readability."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metadarts.core.types import Params
from metadarts.inner import Adapted, InnerLoop, StagedLoss, inner_gradients, rates_at, stacked, staged
from metadarts.optim import Rule


def adapt_one_by_one(
    loss: StagedLoss[Any],
    params: Params,
    support: Any,
    inner: InnerLoop,
    rates: Params | None,
    progress: Tensor | float,
) -> Adapted:
    """Task after task, each on its own slice of the parameters; arguments as in `metadarts.inner.adapt`."""
    rule, adapted, history = inner.make_rule(), [], []
    exact = inner.order == "second" and torch.is_grad_enabled()
    for task in range(support.tasks):
        own = {name: tensor[task : task + 1] for name, tensor in params.items()}
        own_rates = None if rates is None else {name: rate[task : task + 1] for name, rate in rates.items()}
        own, losses = _adapt_one(loss, own, support.task(task), inner, rule, own_rates, progress, exact)
        adapted.append(own)
        history.append(losses)
    joined = {name: torch.cat([task[name] for task in adapted]) for name in params}
    return Adapted(joined, torch.cat(history, dim=1))


def _adapt_one(
    loss: StagedLoss[Any],
    params: Params,
    support: Any,
    inner: InnerLoop,
    rule: Rule,
    rates: Params | None,
    progress: Tensor | float,
    exact: bool,
) -> tuple[Params, Tensor]:
    history = []
    state = rule.init({name: tensor for name, tensor in params.items() if inner.adapts(name)})
    for step in range(inner.steps):
        grads, losses = inner_gradients(staged(loss, inner, step, progress), params, support, inner, exact, step)
        params, state = rule.update(grads, state, params, rates_at(inner, rates, params, step), step)
        history.append(losses.detach())
    return params, stacked(history, params)


ENGINE = adapt_one_by_one
