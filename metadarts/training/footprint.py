"""The memory of one meta-gradient, found by running a small one and measuring the memory of the process.

One task and a few inner steps are enough: everything that grows with the work grows linearly, in the tasks of a pass
and in the inner steps. Counting the tensors that are alive would not be: a heap that serves large and small blocks in
turn holds more. The shares stay the same when all blocks are so many times larger, so one task shows them. On a card it
is the caching allocator that is looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType

import torch
from torch import Tensor

from metadarts.core.errors import NumericsError
from metadarts.core.types import Params, Stage, TaskBatch
from metadarts.inner import Engine, InnerLoop
from metadarts.meta import DEFAULT_RULE, MetaRule, Objective, evaluate, meta_gradient

from .build import Experiment
from .evaluation import evaluation_inner
from .memory import resident_bytes, return_freed_memory

STORED_STEPS, PASSING_STEPS = 2, 4
"""Inner steps of the probes: those that are stored whole, and those that leave little (recomputed, or first order).

The first of the latter allocate memory that all others use again, and would pass for what each of them takes.
"""
SAMPLE_SECONDS = 0.002


class Growth:
    """Within the block, watches how much more the process holds than when it began. ``peak`` is the most, in bytes."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.peak = device, 0
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._sample, name="memory", daemon=True)

    def __enter__(self) -> Growth:
        return_freed_memory()  # so that none of it is used again unseen
        self.before = resident_bytes(self.device)
        self._watch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._watch.join()
        self.now()

    def now(self) -> int:
        """The growth at this moment."""
        grown = resident_bytes(self.device) - self.before
        self.peak = max(self.peak, grown)
        return grown

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.now()


@dataclass
class _Watched:
    """An objective that writes down the growth whenever a support or a query loss is begun, and what a step moves.

    Args:
        moved: bytes of the parameters of one task that the inner loop moves.
    """

    objective: Objective
    inner: InnerLoop
    growth: Growth
    moved: int = 0
    support: list[int] = field(default_factory=list)
    query: list[int] = field(default_factory=list)

    @property
    def start(self) -> Callable[[Params, TaskBatch, Stage], Params]:
        return self.objective.start

    def support_loss(self, params: Params, batch: TaskBatch, at: Stage) -> Tensor:
        if not self.query:  # until then each step begins its loss once; afterwards only recomputed ones do
            self.support.append(self.growth.now())
            self.moved = sum(tensor.nbytes for name, tensor in params.items() if self.inner.adapts(name))
        return self.objective.support_loss(params, batch, at)

    def query_loss(self, params: Params, batch: TaskBatch, at: Stage) -> tuple[Tensor, Tensor]:
        self.query.append(self.growth.now())
        return self.objective.query_loss(params, batch, at)


@dataclass(frozen=True)
class Footprint:
    """What one meta-gradient takes, in bytes. All but ``base`` and ``shared`` are per task of a pass.

    Args:
        base: resident before it: program, kernels, images, the state.
        shared: the sum of gradients that a pass leaves behind.
        data: images and labels.
        outside: peak of all that surrounds the inner steps (prototypes, query pass, outer backward).
        stored: what an inner step holds until its outer backward.
        recomputed: what it holds when it is to be recomputed: parameters that it moves, and the rule's memory of them.
        again: peak of all that surrounds recomputed inner steps, the recomputing of one included.
    """

    base: int
    shared: int
    data: int
    outside: int
    stored: int
    recomputed: int = 0
    again: int = 0

    def peak(self, tasks: int, micro_batch: int, steps: int, recomputed: int) -> int:
        """Predicted peak of a meta-batch of ``tasks``, ``micro_batch`` at a time, ``recomputed`` of the steps so."""
        passes = -(-tasks // micro_batch)
        inside = self.outside + (steps - recomputed) * self.stored
        if recomputed:  # the stored steps, which are the last, are gone before one is recomputed
            inside = max(inside, self.again) + recomputed * self.recomputed
        return self.base + tasks * self.data + passes * self.shared + min(tasks, micro_batch) * inside


def footprint(
    objective: Objective,
    params: Params,
    batch: TaskBatch,
    inner: InnerLoop,
    *,
    rates: Params | None = None,
    engine: Engine | None = None,
    recompute: bool = True,
    rule: MetaRule = DEFAULT_RULE,
) -> Footprint:
    """Measure the first task of ``batch``; nothing random is drawn. Arguments as in `metadarts.meta.meta_gradient`.

    Args:
        recompute: whether recomputed steps are measured too, where the inner loop has them; else ``recomputed`` and
            ``again`` are 0.
        rule: what a task's meta-gradient is.

    Raises:
        NumericsError: when the task's batch statistics cannot be taken.
    """
    one, moves = batch.task(0), inner.steps and any(inner.adapts(name) for name in params)

    def probe(steps: int, recomputed: int) -> tuple[_Watched, int]:
        own = _with_draws(one, steps)
        with Growth(one.support_images.device) as growth:
            watched, loop = _Watched(objective, inner, growth), replace(inner, steps=steps, checkpoint=recomputed)
            try:
                meta_gradient(watched, params, own, loop, rates=rates, engine=engine, rule=rule)
            except NumericsError:  # as after more steps than the search has: the memory was taken all the same
                if not watched.query:
                    raise
        return watched, growth.peak

    again = int(bool(recompute and moves and can_recompute(inner, engine, rule)))
    steps = (STORED_STEPS if inner.order == "second" and rule.stores == "graph" else PASSING_STEPS) if moves else 0
    probe(min(steps, 1), again)  # what is loaded at a first call, and kept, is part of the base
    watched, peak = probe(steps, 0)
    stored = max(0, (watched.query[0] - watched.support[steps // 2]) // (steps // 2)) if steps else 0
    base, shared = watched.growth.before, sum(tensor.nbytes for tensor in (params | (rates or {})).values())
    found = Footprint(base, shared, bytes_of(one), max(0, peak - steps * stored), stored)
    if not again:
        return found
    watched, peak = probe(PASSING_STEPS, PASSING_STEPS)
    # What it began with, and no more (`metadarts.inner.recompute`): less than a heap's growth could show.
    left = watched.moved * (1 + len(inner.make_rule().init({})))
    return replace(found, recomputed=left, again=max(0, peak - PASSING_STEPS * left))


def validation_bytes(experiment: Experiment, params: Params, batch: TaskBatch, rates: Params | None) -> int:
    """Peak of measuring one held-out task after adaptation, its data included. Arguments as in `footprint`."""
    one, inner = batch.task(0), evaluation_inner(experiment.config)
    inner = replace(inner, steps=min(inner.steps, STORED_STEPS))
    with Growth(experiment.device) as growth:
        evaluate(experiment.learner, params, lambda *_: one, inner, tasks=1, rates=rates, batch_size=1, curve_tasks=1)
    return growth.peak + bytes_of(one)


def _with_draws(batch: TaskBatch, steps: int) -> TaskBatch:
    """``batch`` with noise for ``steps`` inner steps: its own, the last draw again where it has fewer."""
    drawn = {
        name: noise[:, torch.arange(steps + 1, device=noise.device).clamp(max=noise.shape[1] - 1)]
        for name, noise in batch.noise.items()
    }
    return batch.with_noise(drawn) if drawn else batch


def can_recompute(inner: InnerLoop, engine: Engine | None, rule: MetaRule = DEFAULT_RULE) -> bool:
    """Whether inner steps can be recomputed in the outer backward."""
    return inner.order == "second" and engine is None and rule.stores == "graph"


def bytes_of(batch: TaskBatch) -> int:
    """The size of its tensors."""
    support = (batch.support_images, batch.support_labels, batch.support_mask)
    query = (batch.query_images, batch.query_labels, batch.query_mask)
    return sum(tensor.numel() * tensor.element_size() for tensor in (*support, *query))
