"""The inner loop as the library ``higher`` runs it (Grefenstette et al., 2019): a patched module and a differentiable
optimiser, one task at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from metadarts.core.errors import ConfigError, nearest
from metadarts.core.types import Params, Stage
from metadarts.inner import Adapted, InnerLoop, independent, two_fold

RULES: MappingProxyType[str, Callable[..., torch.optim.Optimizer]] = MappingProxyType(
    {"sgd": torch.optim.SGD, "momentum": partial(torch.optim.SGD, momentum=0.9), "adam": torch.optim.Adam}
)
"""The optimiser that ``higher`` makes differentiable, by the name of the rule that it is."""


class LossModule(nn.Module):
    """Any ``loss(params, batch, stage)`` as a module whose parameters ``higher`` can patch."""

    def __init__(self, loss: Callable[[Params, Any, Stage], Tensor], params: Params, moving: list[str]) -> None:
        super().__init__()
        self._loss = loss
        self._fixed = {name: tensor for name, tensor in params.items() if name not in moving}
        self.parameter_names = {name.replace(".", "__"): name for name in moving}
        for slot, name in self.parameter_names.items():
            self.register_parameter(slot, nn.Parameter(params[name].detach()))

    def forward(self, batch: Any, at: Stage) -> Tensor:
        own = {name: getattr(self, slot) for slot, name in self.parameter_names.items()}
        return self._loss(self._fixed | own, batch, at)


def adapt_with_higher(
    loss: Callable[[Params, Any, Stage], Tensor],
    params: Params,
    support: Any,
    inner: InnerLoop,
    rates: Params | None,
    progress: Tensor | float,
) -> Adapted:
    """Arguments as in `metadarts.inner.adapt`.

    Constant rates of each group, one rule for all; no clipping, no decay; Adam for one step only.

    Raises:
        ConfigError: when ``higher`` is missing, or on an option that it does not offer.
    """
    try:
        import higher
    except ImportError as error:
        raise ConfigError("engine 'higher' needs the package higher: pip install higher") from error
    if inner.alpha_rule is not None:
        raise ConfigError("engine 'higher' has one rule for all parameters; use batched or loop for an alpha_rule")
    if not isinstance(inner.rule, str):
        raise ConfigError("engine 'higher' knows rules by name only; use batched or loop for a rule of your own")
    name = inner.make_rule().name
    if name not in RULES:
        raise ConfigError(f"engine 'higher': {nearest(name, RULES)}; use batched or loop for rule {name!r}")
    if name == "adam" and inner.steps > 1:
        raise ConfigError(
            "engine 'higher': its Adam adds eps at another place, another rule from step 2 on; use batched"
        )
    if rates is not None or inner.clip is not None or inner.decay or inner.schedule != "constant":
        raise ConfigError(
            "engine 'higher' has neither learned rates nor clipping, decay or a schedule here; use batched or loop"
        )
    exact = inner.order == "second" and torch.is_grad_enabled()
    results = [_adapt_one(higher, loss, params, support, inner, task, progress, exact) for task in range(support.tasks)]
    joined = {name: torch.cat([adapted[name] for adapted, _ in results]) for name in params}
    return Adapted(joined, torch.cat([losses for _, losses in results], dim=1))


def _adapt_one(
    higher: Any,
    loss: Callable[[Params, Any, Stage], Tensor],
    params: Params,
    support: Any,
    inner: InnerLoop,
    task: int,
    progress: Tensor | float,
    exact: bool,
) -> tuple[Params, Tensor]:
    own = {name: tensor[task : task + 1] for name, tensor in params.items()}
    moving = [name for name in own if inner.adapts(name)]
    module = LossModule(loss, own, moving)
    optimiser, batch, history = _optimiser(module, inner), support.task(task), []
    with (
        torch.enable_grad(),
        higher.innerloop_ctx(module, optimiser, copy_initial_weights=False, track_higher_grads=exact) as (patched, opt),
    ):
        starts = [independent(own[name], exact) for name in moving]
        patched.update_params(starts)
        for step in range(inner.steps):
            losses = patched(batch, Stage(step, inner.steps, progress))
            if inner.separates(own):
                now = dict(zip(moving, patched.parameters(), strict=True))
                found = two_fold.gradients(losses, now, moving, step, exact)
                # higher takes the gradient of one loss itself, here of a cheap one, and lets us replace it.
                opt.step(
                    sum(tensor.sum() for tensor in now.values()),
                    grad_callback=lambda _, found=found: [found[name] for name in moving],
                )
                losses = losses.mean(1)
            else:
                opt.step(losses.sum())
            history.append(losses.detach())
        ends = dict(zip(moving, patched.parameters(), strict=True))
    if not exact:  # first order: the inner path is a constant shift, through which the start's gradient passes
        ends = {name: own[name] + (end - own[name]).detach() for name, end in ends.items()}
    return own | ends, torch.stack(history) if history else torch.zeros(0, 1)


def _optimiser(module: LossModule, inner: InnerLoop) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": [parameter], "lr": inner.rate_of(module.parameter_names[slot])}
        for slot, parameter in module.named_parameters()
    ]
    return RULES[inner.make_rule().name](groups, lr=inner.weight_rate)


ENGINE = adapt_with_higher
