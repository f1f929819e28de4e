"""The state of meta-training and its one transition."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from metadarts.core.errors import ConfigError, RunError
from metadarts.core.types import ALPHA_PREFIX, FIXED, START_PREFIX, Params, TaskBatch, is_alpha
from metadarts.inner import Engine, InnerLoop, rate_shapes
from metadarts.optim import (
    Rule,
    Schedule,
    State,
    after,
    chain,
    clip_by_total_norm,
    cosine,
    l2_decay,
    product,
    require_for_weights,
    rule_by_name,
    warmup,
)
from metadarts.relaxations import CLOSED

from .gradient import MetaGradient, meta_gradient
from .rules import DEFAULT_RULE, MetaRule, Objective

ALPHA_FIRST = 0.5
"""Adam's first beta for the alphas, as in DARTS and T-NAS."""


@dataclass(frozen=True)
class OuterLoop:
    """How the shared initialisation learns (T-NAS: Adam 1e-3; alphas with betas (0.5, 0.999)).

    Args:
        weight_rate: rate of the shared weights.
        alpha_rate: rate of the shared alphas.
        rate_rate: rate of the learned inner rates, in units of their logarithm's scale (see `MetaState.create`).
        alpha_decay: L2 decay of the alphas, as part of their gradient. With Adam it is a bound: alphas converge to
            about their mean gradient divided by ``alpha_decay``, at any rate, which keeps them close to uniform. T-NAS
            uses 1e-3 (preset "tnas").
        alpha_warmup: meta-steps during which the shared alphas do not change; below 1, a fraction of the run.
        clip: maximum norm of the meta-gradient, separately for weights and alphas; None for no limit.
        final: cosine decay of all outer rates to this fraction of their initial value at the end of the run; 1 is
            constant.
        rule: a name of `metadarts.optim.RULES` ("sgd", "momentum", "adam", "adamw"), or your own rule; for all groups,
            or for all but the alphas if ``alpha_rule`` is given.
        warmup: fraction of the run over which all outer rates increase linearly from 0.
        weight_decoupled_decay: decoupled decay of the weights (as in AdamW); None for that of the rule (only "adamw"
            has one).
        alpha_decoupled_decay: the same for the alphas; it always replaces that of the rule.
        alpha_rule: the rule of the alphas: a name (also "exponentiated", GAEA) or a rule; None for ``rule``.
    """

    weight_rate: float = 1e-3
    alpha_rate: float = 1e-3
    rate_rate: float = 1e-2
    alpha_decay: float = 0.0
    alpha_warmup: float = 0
    clip: float | None = 10.0
    final: float = 1.0
    rule: str | Rule = "adam"
    warmup: float = 0.0
    weight_decoupled_decay: float | None = None
    alpha_decoupled_decay: float = 0.0
    alpha_rule: str | Rule | None = None

    def __post_init__(self) -> None:
        require_for_weights(rule_by_name(self.rule), "outer loop")
        self._alpha_rule()

    def _alpha_rule(self) -> Rule:
        """Without L2 decay."""
        rule = self.rule if self.alpha_rule is None else self.alpha_rule
        return rule_by_name(rule, decay=self.alpha_decoupled_decay, first=ALPHA_FIRST, eps_root=0.0)

    def groups(self, params: Params, log_rates: Params) -> tuple[OuterGroup, ...]:
        """How each existing group of parameters is updated.

        Raises:
            ConfigError: for an L2 decay of alphas if their rule works on the simplex.
        """
        # Nothing differentiates through the outer update, so no root of it needs to be moved away from zero.
        weights = rule_by_name(self.rule, decay=self.weight_decoupled_decay, eps_root=0.0)
        alphas = self._alpha_rule()
        if self.alpha_decay and alphas.simplex:
            raise ConfigError(
                f"outer.alpha_decay: rule {alphas.name!r} moves points of the simplex, for which L2 decay of logits "
                "has no meaning: expected 0; alpha_decoupled_decay pulls towards uniform"
            )
        if self.alpha_decay:
            alphas = chain(alphas, l2_decay(self.alpha_decay))
        rates = rule_by_name(self.rule, decay=0.0, eps_root=0.0)
        schedule = product(cosine(self.final), warmup(self.warmup))
        moving = [name for name in params if not name.startswith(START_PREFIX + FIXED)]
        names = {kind: tuple(name for name in moving if _moves_as_alpha(name) == kind) for kind in (False, True)}
        groups = (
            OuterGroup("weights", names[False], self.weight_rate, weights, schedule),
            OuterGroup("alphas", names[True], self.alpha_rate, alphas, product(schedule, after(self.alpha_warmup))),
            OuterGroup("rates", tuple(log_rates), self.rate_rate, rates, schedule),
        )
        return tuple(group for group in groups if group.names)


@dataclass(frozen=True)
class OuterGroup:
    """Parameters that are updated alike.

    Args:
        name: "weights", "alphas" or "rates".
        names: the parameters, in the order in which their norms are summed.
        rate: at a schedule of 1.
    """

    name: str
    names: tuple[str, ...]
    rate: float
    rule: Rule
    schedule: Schedule


class MetaState:
    """Shared parameters, learned inner rates, and the state of the outer rule. Mutable; one per run.

    Learned rates are stored as logarithms, so that an update multiplies them and they stay positive.

    Args:
        on_device: whether the count of updates and the outer rates are on the device of the parameters, so that an
            update needs nothing from the host and can be recorded (`CapturedStep`); None means: if the parameters are
            on a GPU.

    ``updating`` is True from the beginning of an update to its end: after an interrupted update, the state is
    inconsistent. ``progress`` is the progress of the run, 0 to 1: 0-dim, on the device of the parameters, so that a
    recorded step sees it change.
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
        self.closed = {name: tensor <= CLOSED / 2 for name, tensor in params.items() if _has_closed(name, tensor)}
        self.groups = outer.groups(params, log_rates)
        self.outer_rates = {group.name: self._number(group.rate) for group in self.groups}
        self.updates = self._number(0.0)
        self.slots: dict[str, State] = {group.name: group.rule.init(self._of(group)) for group in self.groups}

    def _number(self, value: float) -> float | Tensor:
        """``value`` where an update looks for it; in double precision, as Python's numbers are."""
        return torch.full_like(self.progress, value, dtype=torch.float64) if self.on_device else value

    def _of(self, group: OuterGroup) -> Params:
        tensors = self.params | self.log_rates
        return {name: tensors[name] for name in group.names}

    @staticmethod
    def create(
        params: Params, task_names: list[str], inner: InnerLoop, outer: OuterLoop, on_device: bool | None = None
    ) -> MetaState:
        """A new state with ``params``; ``task_names`` are the names of the task parameters that the inner loop
        changes."""
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
        progress: float = 0.0,
    ) -> MetaState:
        """The state that ``memory`` was taken from, so that it continues bit for bit.

        Args:
            memory: the result of `memory`; empty for a state without a step.
            progress: progress of the run at the last step, 0 to 1.

        Raises:
            RunError: when ``memory`` belongs to other parameters or another outer rule.
        """
        state = MetaState(params, log_rates, outer, on_device)
        state.step = step
        state.progress.fill_(progress)
        state.updates = state._number(float(step))
        expected = state.memory()
        if odd := sorted(expected.keys() ^ memory.keys()):
            raise RunError(
                f"checkpoint of another network: the optimiser's memory {odd[0]!r} is missing or fits nothing"
            )
        for entry, tensor in memory.items():
            if tensor.shape != expected[entry].shape:
                raise RunError(f"checkpoint of another network: the optimiser's memory {entry!r} fits no parameter")
            expected[entry].copy_(tensor)
        return state

    def cut(self, cut: Callable[[Params, float], Params], rates: Iterable[str]) -> MetaState:
        """The state of a part of the network, with which training continues, in the order of a new state of that part:
        parameters and memory as `metadarts.networks.cutter` extracts them, and the remaining learned ``rates``."""
        params = cut(self.params, CLOSED)
        log_rates = {name: self.log_rates[name] for name in rates if name in self.log_rates}
        state = MetaState(params, log_rates, self.outer, self.on_device)
        state.step = self.step
        state.progress.fill_(float(self.progress))
        state.updates = state._number(float(self.updates))
        for group, slots in state.slots.items():
            for slot, kept in slots.items():
                before = self.slots[group][slot]
                found = before if group == "rates" else cut(before, 0.0)
                slots[slot] = {name: found[name].clone() for name in kept}
        return state

    def memory(self) -> Params:
        """The state of the outer rule, as ``PARAMETER/KEY`` -> tensor; empty before the first update.

        Keys are "step" and the rule's slots; those of Adam have torch's names ("exp_avg", "exp_avg_sq").
        """
        updates = float(self.updates)
        return {
            f"{name}/{key}": tensor
            for group in (self.groups if updates else ())
            for name in group.names
            for key, tensor in (
                ("step", torch.tensor(updates)),
                *((slot, kept[name]) for slot, kept in self.slots[group.name].items()),
            )
        }

    @property
    def rates(self) -> Params | None:
        """Learned inner rates, or None if the configured constants apply."""
        return {name: tensor.exp() for name, tensor in self.log_rates.items()} or None

    def apply(self, gradients: Params, progress: float) -> dict[str, float]:
        """One outer update by ``gradients`` (with respect to parameters and rates). Returns the gradient norms."""
        self.schedule(progress)
        norms = self.update(gradients)
        self.step += 1
        return {name: float(norm) for name, norm in norms.items()}

    def schedule(self, progress: float) -> None:
        """Set `progress` and the outer rates for the next update; ``progress`` is the progress of the run, 0 to 1."""
        self.progress.fill_(progress)
        for group in self.groups:
            rate, kept = group.rate * group.schedule(self.step, progress), self.outer_rates[group.name]
            if isinstance(kept, Tensor):
                kept.fill_(rate)
            else:
                self.outer_rates[group.name] = rate

    @torch.no_grad()
    def update(self, gradients: Params, skip: Tensor | None = None) -> dict[str, Tensor]:
        """One step of the outer rule at the current rates; reads no number and counts no step.

        Args:
            skip: 0-dim float32, 1 to change nothing; only ``on_device``.

        Returns:
            The norms of the gradients before clipping, by group.
        """
        self.updating = True
        rates = self.rates or {}
        grads = {n: gradients[n] * rates[n] if n in rates else gradients[n] for n in self.params | self.log_rates}
        norms = {group.name: self._step(group, grads, skip) for group in self.groups}
        self.updates += 1.0 if skip is None else 1.0 - skip
        self.updating = False
        return norms

    def _step(self, group: OuterGroup, gradients: Params, skip: Tensor | None) -> Tensor:
        """The update of one group; returns the norm of its gradients."""
        own, kept = self._of(group), self.slots[group.name]
        grads, norm = clip_by_total_norm({name: gradients[name] for name in own}, self.outer.clip)
        moved, slots = group.rule.update(grads, kept, own, self.outer_rates[group.name], self.updates)
        for name, closed in self.closed.items() if group.name == "alphas" else ():  # a decay would open them
            moved[name] = torch.where(closed, CLOSED, moved[name])
        _overwrite([own, *kept.values()], [moved, *(slots[name] for name in kept)], skip)
        return norm


def _moves_as_alpha(name: str) -> bool:
    """Whether it is an alpha, or a table that is added to the alphas of some tasks."""
    return is_alpha(name) or name.startswith(START_PREFIX + ALPHA_PREFIX)


def _has_closed(name: str, tensor: Tensor) -> bool:
    """Whether some of its alphas belong to permanently dropped candidates."""
    return is_alpha(name) and bool((tensor <= CLOSED / 2).any())


def _overwrite(old: list[Params], new: list[Params], skip: Tensor | None) -> None:
    """Put the numbers of ``new`` into the memory of ``old``, unless ``skip`` is 1."""
    pairs = [(tensor, values[name]) for group, values in zip(old, new, strict=True) for name, tensor in group.items()]
    targets, sources = [target for target, _ in pairs], [source for _, source in pairs]
    if skip is not None:  # in one piece, since a GPU takes as long for a small tensor as for them all
        stay, move = (torch.cat([tensor.flatten() for tensor in tensors]) for tensors in (targets, sources))
        parts = torch.where(skip > 0, stay, move).split([tensor.numel() for tensor in targets])
        sources = [part.view(target.shape) for part, target in zip(parts, targets, strict=True)]
    torch._foreach_copy_(targets, sources)


def meta_step(
    objective: Objective,
    state: MetaState,
    batch: TaskBatch,
    inner: InnerLoop,
    *,
    progress: float = 0.0,
    engine: Engine | None = None,
    micro_batch: int | None = None,
    rule: MetaRule = DEFAULT_RULE,
) -> tuple[MetaGradient, dict[str, float]]:
    """One meta-gradient and one outer update of ``state``, in place.

    Args:
        progress: progress of the run, 0 to 1, for the schedules of the outer rates and of the relaxation.
        rule: computes a task's meta-gradient; by default MAML.

    Returns:
        The meta-gradient with its losses and accuracies, and the norms of its groups.
    """
    state.progress.fill_(progress)
    result = meta_gradient(
        objective, state.params, batch, inner, rates=state.rates, engine=engine, micro_batch=micro_batch, rule=rule,
        progress=state.progress,
    )  # fmt: skip
    return result, state.apply(result.gradients, progress)
