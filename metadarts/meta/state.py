"""The state of meta-training and its one transition."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metadarts.core.errors import RunError
from metadarts.core.types import Params, TaskBatch, is_alpha
from metadarts.inner import InnerLoop, rate_shapes

from .gradient import MetaGradient, meta_gradient
from .rules import EXACT, MetaRule, Objective


@dataclass(frozen=True)
class OuterLoop:
    """How the shared initialisation learns (T-NAS: Adam 1e-3; alphas with betas (0.5, 0.999) and weight decay 1e-3).

    Args:
        weight_rate: Adam rate of the shared weights.
        alpha_rate: Adam rate of the shared alphas.
        rate_rate: Adam rate of the learned inner rates, in units of their logarithm's scale (see `MetaState.create`).
        alpha_decay: weight decay of the alphas.
        alpha_warmup: meta-steps during which the shared alphas stay where they are.
        clip: largest norm of the meta-gradient of the weights, and of the alphas; None for no limit.
        final: cosine decay of all outer rates to this share of their start by the end of the run; 1 is constant.
    """

    weight_rate: float = 1e-3
    alpha_rate: float = 1e-3
    rate_rate: float = 1e-2
    alpha_decay: float = 1e-3
    alpha_warmup: int = 0
    clip: float | None = 10.0
    final: float = 1.0


ADAM_KEYS = ("step", "exp_avg", "exp_avg_sq")
"""What torch's Adam remembers of every parameter once it has stepped."""


class MetaState:
    """Shared parameters, learned inner rates, and the outer optimiser's memory. Mutable; one per run.

    Learned rates are kept as logarithms, so that an update multiplies them and they stay positive.

    Args:
        on_device: whether the optimiser keeps its step count and its rates beside the parameters, so that an update
            needs nothing of the host and can be recorded (`CapturedStep`); None is: where the parameters are on a GPU.

    ``updating`` is True from the beginning of an update to its end: where one was broken off, the state is not whole.
    """

    def __init__(self, params: Params, log_rates: Params, outer: OuterLoop, on_device: bool | None = None) -> None:
        self.params = params
        self.log_rates = log_rates
        self.outer = outer
        self.step = 0
        self.updating = False
        like = next(iter(params.values()))
        self.progress = torch.zeros((), device=like.device)
        self.on_device = like.is_cuda if on_device is None else on_device
        groups: dict[str, list[Tensor]] = {"weights": [], "alphas": [], "rates": list(log_rates.values())}
        for name, tensor in params.items():
            groups["alphas" if is_alpha(name) else "weights"].append(tensor)
        adam = _adam_groups(groups, outer)
        if not self.on_device:
            self.optimiser = torch.optim.Adam(adam)
            return
        for group in adam:
            group["lr"] = torch.tensor(group["lr"], device=like.device)
        self.optimiser = torch.optim.Adam(adam, fused=True, capturable=like.is_cuda)

    @staticmethod
    def create(
        params: Params, task_names: list[str], inner: InnerLoop, outer: OuterLoop, on_device: bool | None = None
    ) -> MetaState:
        """A fresh state around ``params``; ``task_names`` are the names of the task parameters the inner loop moves."""
        log_rates = {}
        if inner.learn_rates:
            like = next(iter(params.values()))
            for name, (shape, value) in rate_shapes(inner, task_names).items():
                log_rates[name] = torch.full(shape, math.log(value), dtype=like.dtype, device=like.device)
        own = {name: tensor.detach().clone() for name, tensor in params.items()}
        return MetaState(own, log_rates, outer, on_device)

    @staticmethod
    def restore(
        params: Params,
        log_rates: Params,
        memory: Params,
        step: int,
        outer: OuterLoop,
        on_device: bool | None = None,
    ) -> MetaState:
        """The state that ``memory`` was taken from, so that it continues bit for bit.

        Args:
            memory: what `memory` gave; empty for a state that never stepped.

        Raises:
            RunError: when ``memory`` is of other parameters.
        """
        state = MetaState(params, log_rates, outer, on_device)
        state.step = step
        targets = params | log_rates
        expected = {f"{name}/{key}" for name in targets for key in ADAM_KEYS} if step else set()
        if odd := sorted(expected ^ memory.keys()):
            raise RunError(
                f"checkpoint of another network: the optimiser's memory {odd[0]!r} is missing or fits nothing"
            )
        for entry, tensor in memory.items():
            name, _, key = entry.rpartition("/")
            target = targets[name]
            if tensor.shape != (torch.Size([]) if key == "step" else target.shape):
                raise RunError(f"checkpoint of another network: the optimiser's memory {entry!r} fits no parameter")
            # Unless told otherwise Adam counts its steps on the CPU, wherever the parameters are.
            home = torch.device("cpu") if key == "step" and not state.on_device else target.device
            dtype = tensor.dtype if key == "step" else target.dtype
            state.optimiser.state[target][key] = tensor.to(home, dtype, copy=True)
        return state

    def memory(self) -> Params:
        """The outer optimiser's memory as ``PARAMETER/KEY`` -> tensor (Adam: step and two moments per parameter)."""
        names = {tensor: name for name, tensor in (self.params | self.log_rates).items()}
        return {
            f"{names[tensor]}/{key}": value
            for tensor, kept in self.optimiser.state.items()
            for key, value in kept.items()
        }

    @property
    def rates(self) -> Params | None:
        """Learned inner rates, or None where the configured constants hold."""
        return {name: tensor.exp() for name, tensor in self.log_rates.items()} or None

    def apply(self, gradients: Params, progress: float) -> dict[str, float]:
        """One outer update by ``gradients`` (with respect to parameters and rates). Returns the gradient norms."""
        self.schedule(progress)
        norms = self.update(gradients)
        self.step += 1
        return {name: float(norm) for name, norm in norms.items()}

    def schedule(self, progress: float) -> None:
        """Set the outer rates for the update that comes; ``progress`` is how far the run is, 0 to 1."""
        self.progress.fill_(progress)
        for group in self.optimiser.param_groups:
            rate = group["start"] * _schedule(self.outer, group["name"], self.step, progress)
            if self.on_device:
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def update(self, gradients: Params, skip: Tensor | None = None) -> dict[str, Tensor]:
        """One step of the optimiser at the rates that are set; looks at no number and counts no step.

        Args:
            skip: 0-dim float32, 1 to leave everything as it is; only ``on_device``.

        Returns:
            The norms of the gradients before clipping, by group.
        """
        self.updating = True
        rates = self.rates or {}
        targets = self.params | self.log_rates
        for name, tensor in targets.items():
            tensor.grad = gradients[name] * rates[name] if name in rates else gradients[name]
        limit = self.outer.clip or math.inf
        norms = {
            group["name"]: torch.nn.utils.clip_grad_norm_(group["params"], limit)
            for group in self.optimiser.param_groups
        }
        if self.on_device:
            self.optimiser.found_inf = skip  # type: ignore[attr-defined]  # as torch's gradient scaler does
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.updating = False
        return norms


def _adam_groups(groups: dict[str, list[Tensor]], outer: OuterLoop) -> list[dict[str, Any]]:
    settings: dict[str, dict[str, Any]] = {
        "weights": {"lr": outer.weight_rate},
        "alphas": {"lr": outer.alpha_rate, "betas": (0.5, 0.999), "weight_decay": outer.alpha_decay},
        "rates": {"lr": outer.rate_rate},
    }
    return [{"params": groups[n], "name": n, "start": s["lr"], **s} for n, s in settings.items() if groups[n]]


def _schedule(outer: OuterLoop, group: str, step: int, progress: float) -> float:
    if group == "alphas" and step < outer.alpha_warmup:
        return 0.0
    return outer.final + (1.0 - outer.final) * 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def meta_step(
    objective: Objective,
    state: MetaState,
    batch: TaskBatch,
    inner: InnerLoop,
    *,
    progress: float = 0.0,
    engine: str = "batched",
    micro_batch: int | None = None,
    rule: MetaRule = EXACT,
) -> tuple[MetaGradient, dict[str, float]]:
    """One meta-gradient and one outer update of ``state``, in place.

    Args:
        progress: how far the run is, 0 to 1, for the schedules of the outer rates and of the relaxation.
        rule: what a task's meta-gradient is; by default MAML's.

    Returns:
        The meta-gradient with its losses and accuracies, and the norms of its groups.
    """
    state.progress.fill_(progress)
    result = meta_gradient(
        objective, state.params, batch, inner, rates=state.rates, engine=engine, micro_batch=micro_batch, rule=rule,
        progress=state.progress,
    )  # fmt: skip
    return result, state.apply(result.gradients, progress)
