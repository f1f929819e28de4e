"""From a start and a support set to a solution: adapt the supernet, derive its cell, finish it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from numbers import Integral, Real

import torch
from torch import Tensor

from metadarts.core.errors import ConfigError, DataError, NumericsError
from metadarts.core.types import Params, alphas_of, group_of
from metadarts.derive import derive_genotype
from metadarts.inner import InnerLoop, adapt
from metadarts.networks import Learner, Network, inherit
from metadarts.spaces import Genotype
from metadarts.store.schema import require_printable

from .start import Start
from .task import CELL, INHERITED, MOST_AT_ONCE, RETRAINED, SUPERNET, Solution, Step, Support, hits, logits

MOST_CLASSES = 20
RETRAIN_STEPS, RETRAIN_RATE = 100, 3e-3
StepWatch = Callable[[Step], bool | None]
"""Called with every state; True takes no further step."""


@dataclass(frozen=True)
class HeldOutImages:
    """Images that are only looked at: uint8 pixels [Q, C, H, W] and labels [Q]."""

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True)
class AdaptSettings:
    """Settings of the adaptation of a task.

    Args:
        steps: inner steps.
        seconds: take no step that would end later, and keep the best so far; evaluation on held-out images does not
            count. None for no limit.
        weight_rate: of the weights, the head's among them; None is the start's.
        alpha_rate: of the alphas; None is the start's. Setting either disables learned rates.
    """

    steps: int = 10
    seconds: float | None = None
    weight_rate: float | None = None
    alpha_rate: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, Integral) or self.steps < 0:
            raise ConfigError(f"steps: expected a whole number from 0 on, got {self.steps!r}")
        object.__setattr__(self, "steps", int(self.steps))  # numpy's among them
        for name in ("seconds", "weight_rate", "alpha_rate"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
                raise ConfigError(f"{name}: expected a number or none, got {value!r}")
        if self.seconds is not None and not self.seconds > 0:
            raise ConfigError(f"seconds: expected a positive number, got {self.seconds}")

    def inner(self, start: Start) -> InnerLoop:
        inner = replace(start.config.inner, steps=self.steps, order="first", checkpoint=0)
        if self.weight_rate is not None:
            inner = replace(inner, weight_rate=self.weight_rate, head_rate=None)
        return inner if self.alpha_rate is None else replace(inner, alpha_rate=self.alpha_rate)

    def rates(self, start: Start) -> Params | None:
        """Learned rates of one task, unless rates are set."""
        if start.rates is None or self.weight_rate is not None or self.alpha_rate is not None:
            return None
        return {name: rate.unsqueeze(0) for name, rate in start.rates.items()}


def check_support(support: Support) -> None:
    """Require 2 to 20 classes, each with an image. Raises DataError."""
    count = len(support.classes)
    if not 2 <= count <= MOST_CLASSES:
        raise DataError(
            f"expected 2 to {MOST_CLASSES} classes, got {count}: {', '.join(map(_shown, support.classes[:5]))}"
        )
    require_printable(support.classes)
    counts = torch.bincount(support.labels, minlength=count).tolist()
    if 0 in counts:
        raise DataError(f"class {support.classes[counts.index(0)]!r} has no image to learn from")


def _shown(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


def adapt_start(
    start: Start,
    support: Support,
    settings: AdaptSettings,
    held_out: HeldOutImages | None = None,
    watch: StepWatch | None = None,
) -> Solution:
    """The finish "supernet": weights and alphas of the supernet adapted together; "cell" of a start that is one.

    Raises:
        DataError: for fewer than 2 or more than 20 classes, or a class without images.
        NumericsError: when the first support loss is not finite already.
    """
    check_support(support)
    params, rates = _task_params(start.learner, start.params, support), settings.rates(start)
    rates = None if rates is None else support.placed(rates)
    finish = CELL if start.is_cell else SUPERNET
    return _learn(finish, start.network, params, support, settings.inner(start), settings, held_out, watch, rates)


def derive(solution: Solution) -> Genotype:
    """The cell that the adapted alphas stand for, or the one that was adapted."""
    network = solution.network
    if network.genotype is not None:
        return network.genotype
    return derive_genotype(alphas_of(solution.params), network.space, network.relaxation)


def inherited(
    start: Start,
    support: Support,
    adapted: Solution,
    settings: AdaptSettings,
    genotype: Genotype | None = None,
    held_out: HeldOutImages | None = None,
    watch: StepWatch | None = None,
) -> Solution:
    """The derived cell (or ``genotype``): the adapted supernet's weights, a new head, ``settings.steps`` more steps."""
    parent = adapted.network
    network = parent.discrete(genotype or derive(adapted))
    shared = {name: tensor for name, tensor in adapted.params.items() if group_of(name) != "head"}
    shared |= {name: tensor for name, tensor in start.params.items() if group_of(name) == "head"}
    params = _task_params(Learner(network, "support"), inherit(network, shared, parent), support)
    if start.network.spec.head == "shared":  # its adapted rows know the classes; a copied row does not
        params |= support.placed({name: adapted.with_axis()[name] for name in ("head.weight", "head.bias")})
    return _learn(INHERITED, network, params, support, settings.inner(start), settings, held_out, watch)


def retrained(
    start: Start,
    support: Support,
    genotype: Genotype,
    settings: AdaptSettings,
    held_out: HeldOutImages | None = None,
    watch: StepWatch | None = None,
) -> Solution:
    """The cell trained from fresh weights on the support set alone, with Adam: what meta-learning is worth."""
    parent = start.network
    network = parent.discrete(genotype)
    fresh = network.init(support.key.child("scratch"))  # as version 0.1 named it: the same seed, the same weights
    params = _task_params(Learner(network, "support"), fresh, support)
    inner = InnerLoop(settings.steps, "adam", weight_rate=RETRAIN_RATE, alpha_rate=0.0, order="first")
    return _learn(RETRAINED, network, params, support, inner, settings, held_out, watch)


def _task_params(learner: Learner, shared: Params, support: Support) -> Params:
    """[1, ...] on the device, with the head that the support set's class means make, or copies of the shared row."""
    own = support.placed({name: tensor.unsqueeze(0) for name, tensor in shared.items()})
    with torch.no_grad():
        return learner.start(own, support.batch(support.frozen))


def _learn(
    finish: str,
    network: Network,
    params: Params,
    support: Support,
    inner: InnerLoop,
    settings: AdaptSettings,
    held_out: HeldOutImages | None,
    watch: StepWatch | None,
    rates: Params | None = None,
) -> Solution:
    learner = Learner(network, "support")
    judge = support.batch(support.balanced(MOST_AT_ONCE))
    small = len(support.labels) <= MOST_AT_ONCE
    batches = None if small else lambda step: support.batch(support.minibatch(step))
    if settings.seconds is not None and inner.steps:  # the first call of a kernel compiles it, which is no step's time
        first = replace(inner, steps=1)
        adapt(learner.support_loss, params, judge, first, rates=rates, batches=batches)
        if support.device == "cuda":
            torch.cuda.synchronize()
    keeper = _Keeper(settings.seconds)

    def observe(step: int, now: Params) -> bool:
        now = {name: tensor.detach() for name, tensor in now.items()}
        with torch.no_grad():
            loss = float(learner.support_loss(now, judge))
        return keeper.see(step, loss, now, _look(network, now, support, held_out), watch)

    adapt(learner.support_loss, params, judge, inner, rates=rates, observe=observe, batches=batches)
    best = {name: tensor[0].to("cpu", copy=True) for name, tensor in keeper.best.items()}
    return Solution(finish, network, best, tuple(keeper.history), keeper.kept)


def _look(
    network: Network, params: Params, support: Support, held_out: HeldOutImages | None
) -> Callable[[], float | None]:
    if held_out is None:
        return lambda: None
    return lambda: float(hits(logits(support, network, params, held_out.pixels), held_out.labels).mean())


class _Keeper:
    """The history of an adaptation, and its best parameters so far."""

    def __init__(self, seconds: float | None) -> None:
        self.history: list[Step] = []
        self.best: Params = {}
        self.kept, self._lowest, self._seconds = 0, math.inf, seconds
        self._begun, self._looking = time.monotonic(), 0.0

    def see(
        self, step: int, loss: float, params: Params, look: Callable[[], float | None], watch: StepWatch | None
    ) -> bool:
        """Note a state; whether to stop."""
        if loss < self._lowest:  # so that NaN is never the best
            self.best, self.kept, self._lowest = params, step, loss
        elif not self.best:
            raise NumericsError(
                f"the support loss is {loss} before the first step: the start does not suit these images"
            )
        spent = time.monotonic() - self._begun - self._looking
        before = time.monotonic()
        self.history.append(Step(step, loss, spent, look()))
        self._looking += time.monotonic() - before
        stop = watch is not None and watch(self.history[-1]) is True
        longest = max((b.seconds - a.seconds for a, b in pairwise(self.history)), default=0.0)
        late = self._seconds is not None and spent + longest > self._seconds
        return stop or late or not math.isfinite(loss)
