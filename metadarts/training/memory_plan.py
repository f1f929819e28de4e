"""The memory plan of a search: tasks per pass and recomputed steps, so that the peak fits; chosen before a run.

Plans in order of increasing time: everything at once; more and more inner steps recomputed in the outer backward (about
one more forward and backward each; bit-equal); fewer tasks per pass (the sum over tasks is rounded differently).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from metadarts.core.errors import ResourceError
from metadarts.store.fields import Positive
from metadarts.store.schema import fitting

from .build import Experiment, held_out
from .config import Config
from .footprint import Footprint, can_recompute, footprint, validation_bytes
from .memory import usable_bytes
from .records import RunFolder

SHARE = 0.8
"""Of the memory a machine has free, how much a search may plan for: others live there too."""
GB = 1e9


@dataclass(frozen=True)
class Budget:
    """How many bytes a search may hold, None for no known limit, and whose word that is."""

    limit: int | None
    asked: bool = False

    def allows(self, size: int) -> bool:
        """Whether so many bytes are within it."""
        return self.limit is None or size <= self.limit

    def __str__(self) -> str:
        if self.limit is None:
            return "(no limit)" if self.asked else "(free memory unknown)"
        if self.asked:
            return f"of {_gb(self.limit)} allowed"
        return f"of {_gb(self.limit / SHARE)} free"


@dataclass(frozen=True)
class MemoryPlan:
    """How a meta-batch is computed.

    Args:
        tasks: T, tasks of a meta-batch.
        steps: K inner steps.
        micro_batch: tasks per pass.
        recomputed: of the K steps, how many are recomputed in the outer backward.
        evaluation_batch: held-out tasks per pass.
        peak: predicted bytes, of the meta-gradient or of a validation, whichever is more.
        budget: what it was to fit into.
    """

    tasks: int
    steps: int
    micro_batch: int
    recomputed: int
    evaluation_batch: int
    peak: int
    budget: Budget

    def __str__(self) -> str:
        at_once = f"{self.micro_batch} of {self.tasks} tasks" if self.micro_batch < self.tasks else _tasks(self.tasks)
        again = f", {self.recomputed} of {self.steps} inner steps recomputed" if self.recomputed else ""
        return f"memory: predicted peak {_gb(self.peak)} {self.budget}: {at_once} at once{again}"

    def apply(self, config: Config) -> Config:
        """``config`` carried out by this plan: the same search but for rounding."""
        return replace(
            config,
            inner=replace(config.inner, checkpoint=max(config.inner.checkpoint, self.recomputed)),
            training=replace(config.training, micro_batch=self.micro_batch),
            evaluate=replace(config.evaluate, batch=self.evaluation_batch),
        )

    def facts(self) -> dict[str, Any]:
        """For env.json."""
        numbers = asdict(self)
        budget = numbers.pop("budget")
        return numbers | {"limit": budget["limit"]}


def plan_search(experiment: Experiment, run: RunFolder | None = None) -> MemoryPlan:
    """The first plan that fits, by `choose`; the search then runs by ``plan.apply(experiment.config)``.

    It runs one task's meta-gradient and validates on one task, a few inner steps each, to see what they take.

    Args:
        experiment: as configured.
        run: a run to go on with. Its tasks per pass, of training and validation, are kept, so that no bit depends on
            the plan; only training.fit_memory allows fewer.

    Raises:
        ResourceError: when no plan fits; says what the smallest would take and what to lower.
        NumericsError: when the network cannot take its statistics on these images.
    """
    config, state = experiment.config, experiment.fresh_state()
    begun = None if run is None else _as_begun(run, config)
    keep = begun is not None and not config.training.fit_memory
    config = begun or config
    batch, budget = experiment.training_batch(0).task(0), budget_of(experiment)

    def measured(recompute: bool) -> Footprint:
        engine, rule = config.engine(), config.meta_rule()
        return footprint(
            experiment.learner,
            state.params,
            batch,
            config.inner,
            rates=state.rates,
            engine=engine,
            rule=rule,
            recompute=recompute,
        )

    found = measured(config.inner.checkpoint > 0)
    held = held_out(experiment, "val", purpose="selection").batch(0, 1)
    validation = validation_bytes(experiment, state.params, held, state.rates)
    if not found.again and not budget.allows(_peak(config, found, next(_ways(config, keep)))):
        found = measured(recompute=True)
    return choose(config, found, validation, budget, keep)


def _as_begun(run: RunFolder, config: Config) -> Config | None:
    """``config`` with the tasks per pass of training and validation that ``run`` goes on with; None if it says none."""
    facts = run.load("last").facts if run.has("last") else run.environment().get("memory")
    names = ("micro_batch", "evaluation_batch")
    sizes = fitting([facts.get(name) for name in names], tuple[Positive, Positive]) if isinstance(facts, dict) else None
    if sizes is None:
        return None
    training, evaluate = replace(config.training, micro_batch=sizes[0]), replace(config.evaluate, batch=sizes[1])
    return replace(config, training=training, evaluate=evaluate)


def budget_of(experiment: Experiment) -> Budget:
    """What ``training.memory_gb`` says, else a share of what is free."""
    asked = experiment.config.training.memory_gb
    if asked is not None:
        return Budget(None if math.isinf(asked) else int(asked * GB), asked=True)
    usable = usable_bytes(experiment.device)
    return Budget(None if usable is None else int(SHARE * usable))


def choose(config: Config, found: Footprint, validation: int, budget: Budget, keep: bool = False) -> MemoryPlan:
    """The first of the plans, cheapest in time first, whose predicted peak is within ``budget``.

    Args:
        config: inner.checkpoint is the least number of recomputed steps, training.micro_batch the most tasks per pass,
            evaluate.batch the most per pass of a validation.
        found: what a meta-gradient takes.
        validation: what measuring one held-out task takes, in bytes.
        budget: the limit.
        keep: whether the tasks per pass, of training and validation, must stay as they are.

    Raises:
        ResourceError: when none is.
    """
    batch = _validation_size(config.evaluate.batch, found.base, validation, budget, keep)
    for way in _ways(config, keep):
        peak = max(_peak(config, found, way), found.base + batch * validation)
        plan = MemoryPlan(config.training.tasks, config.inner.steps, *way, batch, peak, budget)
        if budget.allows(peak):
            return plan
    raise ResourceError(_refusal(plan, config, keep))


def _peak(config: Config, found: Footprint, way: tuple[int, int]) -> int:
    micro_batch, recomputed = way
    return found.peak(config.training.tasks, micro_batch, config.inner.steps, recomputed)


def _ways(config: Config, keep: bool) -> Iterator[tuple[int, int]]:
    """(tasks per pass, recomputed steps), cheapest in time first; in passes of about equal size."""
    inner, training = config.inner, config.training
    most = min(training.micro_batch or training.tasks, training.tasks)
    sizes = [most]
    if not keep:
        sizes += [size for size in _equal_parts(training.tasks) if size < most]
    recomputes = can_recompute(inner, config.engine(), config.meta_rule())
    least, last = (min(inner.checkpoint, inner.steps), inner.steps) if recomputes else (0, 0)
    for size in sizes:
        for recomputed in range(least, last + 1):
            yield size, recomputed


def _equal_parts(tasks: int) -> list[int]:
    """Sizes of parts that ``tasks`` can be cut into, largest first."""
    return sorted({-(-tasks // parts) for parts in range(1, tasks + 1)}, reverse=True)


def _validation_size(most: int, base: int, validation: int, budget: Budget, keep: bool) -> int:
    if budget.limit is None or keep:
        return most
    return max(1, min(most, (budget.limit - base) // max(validation, 1)))


def _refusal(plan: MemoryPlan, config: Config, keep: bool) -> str:
    steps = f", {plan.recomputed} of {plan.steps} inner steps recomputed" if plan.recomputed else ""
    whose = "training.memory_gb" if plan.budget.asked else f"{SHARE:.0%} of what is free"
    found = (
        f"({_tasks(plan.micro_batch)} at once{steps}) is predicted to peak at {_gb(plan.peak)}, more than the "
        f"{_gb(plan.budget.limit or 0)} there may be ({whose})"
    )
    if keep:  # the settings of a run are fixed
        return (
            f"memory: the way this run was begun {found}: free memory, or go on with --fit-memory, which takes fewer "
            "tasks at once (sums are then rounded otherwise than without the stop)"
        )
    first = ", use --order first" if config.inner.order == "second" else ""
    more = "raise training.memory_gb" if plan.budget.asked else "free memory, or set training.memory_gb"
    return (
        f"memory: the smallest plan {found}: lower macro.channels, tasks.queries or evaluate.queries{first}, or {more}"
    )


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _gb(size: float) -> str:
    return f"{size / GB:.2f} GB" if size < GB else f"{size / GB:.1f} GB"
