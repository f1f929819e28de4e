"""`gate`: cells of one operation, and a few mixed ones, each trained alone in each domain; then the components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metadarts.core.errors import ConfigError, DataError
from metadarts.core.progress import Watch, tell
from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch, is_alpha
from metadarts.networks import Learner
from metadarts.optim import cosine, rule_by_name
from metadarts.spaces import Genotype, SearchSpace, random_genotype
from metadarts.stats import Values
from metadarts.stats.components import Components, components
from metadarts.tasks import EpisodePlan, EpisodeSampler, Source
from metadarts.training import Experiment
from metadarts.training.environment import describe

DRAWS = 2
"""Disjoint draws of each task's support and query images."""


@dataclass(frozen=True)
class GatePlan:
    """The size of a gate.

    Args:
        steps: updates of each network.
        rate: of Adam, decayed to 0 along a cosine.
        mixed: random cells beside those of one operation.
        seeds: trainings of each network, at least 2.
        tasks: tasks of each domain that they are measured on, at least 4.
        train_ways: classes of a training task, or all of a domain if there are fewer.
        queries: query images per class, in training and for each of the `DRAWS` draws of a held-out task.
        split: "val" or "test".
        seed: of the networks, the cells, the tasks and the bootstrap.

    Raises:
        ConfigError: for numbers below those, or another split.
    """

    steps: int = 150
    rate: float = 3e-3
    mixed: int = 3
    seeds: int = 2
    tasks: int = 60
    train_ways: int = 10
    queries: int = 5
    split: str = "val"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("seeds", 2), ("tasks", 4), ("steps", 1), ("queries", 1), ("mixed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"gate: expected {name} of at least {least}, got {getattr(self, name)}")
        if self.split not in ("val", "test"):
            raise ConfigError(f"gate: expected split val or test, got {self.split!r}")


@dataclass(frozen=True)
class Gate:
    """What a gate found.

    Args:
        names: of the candidates: operations, then "mixed 1", ...
        genotypes: of the candidates.
        domains: in the order of the table.
        table: [S, D, M, C, R] accuracies, see `metadarts.stats.components`.
        parts: its components.
        facts: how it was measured.
    """

    names: tuple[str, ...]
    genotypes: tuple[Genotype, ...]
    domains: tuple[str, ...]
    table: Values
    parts: Components
    facts: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """All figures, and the mean accuracy of each candidate in each domain."""
        means = self.table.mean((0, 2, 4))
        return {
            "facts": self.facts,
            "components": {name: dict(zip(("mean", "low", "high"), part.ends, strict=True))
                           for name, part in vars(self.parts).items()},
            "accuracy": {domain: dict(zip(self.names, row.tolist(), strict=True))
                         for domain, row in zip(self.domains, means, strict=True)},
            "genotypes": {name: str(genotype) for name, genotype in zip(self.names, self.genotypes, strict=True)},
        }  # fmt: skip


def gate(experiment: Experiment, plan: GatePlan, progress: Watch | None = None) -> Gate:
    """Train every candidate in every domain of the experiment's source and split the accuracies into components.

    The networks classify by the distance to class means (Snell et al., NeurIPS 2017) without an inner loop, which is
    what an architecture contributes before adaptation. All candidates of one domain and training seed are one batch on
    the task axis: they see the same episodes.

    Args:
        experiment: of a supernet with a prototype head; its configuration sets space, macro, ways and shots.
        progress: reports the updates done and the accuracy of the last.

    Raises:
        ConfigError: for another head or a source without classes of its own (learn2learn).
        DataError: where a domain has too few classes or images.
    """
    source = _source(experiment)
    space, key = experiment.network.space, Key.from_seed(plan.seed).child("gate")
    chosen = candidates(space, plan.mixed, key.child("mixed"))
    genotypes = tuple(chosen.values())
    learner = replace(experiment.learner, weights=weights_of(space, genotypes))
    domains = tuple(name for name in source.domains if name in source.domain_classes(plan.split))
    if lost := [name for name in domains if name not in source.domain_classes("train")]:
        raise DataError(f"{source.name}: no training classes of domain {lost[0]!r}; leave it out of the gate")
    shape = (plan.seeds, len(domains), plan.tasks, len(genotypes), DRAWS)
    table = np.empty(shape)
    total = plan.seeds * len(domains)
    for number, (seed, place) in enumerate(np.ndindex(plan.seeds, len(domains))):
        train, held = _samplers(experiment, source, plan, domains[place])
        trainer = _Trainer(learner, plan, experiment.device)
        below = key.child("train", seed, domains[place])
        params = trainer.train(train, below, (progress, number, total, domains[place]))
        table[seed, place] = trainer.measure(params, held, Key.from_seed(plan.seed).child("gate tasks", domains[place]))
    facts = _facts(experiment, source, plan)
    return Gate(tuple(chosen), genotypes, domains, table, components(table, key.child("bootstrap")), facts)


def candidates(space: SearchSpace, mixed: int, key: Key) -> dict[str, Genotype]:
    """The cells by name: one of each operation, whose nodes read the latest states, and ``mixed`` random ones."""
    found = {operation: _uniform(space, operation) for operation in space.operations}
    return found | {f"mixed {n + 1}": random_genotype(space, key.child(n)) for n in range(mixed)}


def _uniform(space: SearchSpace, operation: str) -> Genotype:
    width = space.edges_per_node
    pairs = tuple(
        (operation, space.inputs + node - width + edge) for node in range(space.nodes) for edge in range(width)
    )
    cells = {cell: (pairs, space.concat) if cell in space.cell_types else ((), ()) for cell in ("normal", "reduce")}
    return Genotype(*cells["normal"], *cells["reduce"], width)


def weights_of(space: SearchSpace, genotypes: Sequence[Genotype]) -> dict[str, Tensor]:
    """cell type -> [T, E, P] mixing weights with which the supernet is the cell of the t-th genotype."""
    found = {cell: torch.zeros(len(genotypes), *space.alpha_shape) for cell in space.cell_types}
    for row, genotype in enumerate(genotypes):
        for cell, table in found.items():
            for node, source, operation in genotype.choices(cell):
                table[row, space.edge_index(node, source), space.primitives.index(operation)] = 1.0
    return found


class _Trainer:
    """All candidates at once, each with separate weights: [C, ...]."""

    def __init__(self, learner: Learner, plan: GatePlan, device: torch.device) -> None:
        self.learner, self.plan, self.device = learner, plan, device
        self.count = len(next(iter((learner.weights or {}).values())))

    def train(self, sampler: EpisodeSampler, key: Key, told: tuple[Watch | None, int, int, str]) -> Params:
        """The weights after all updates."""
        watch, number, total, name = told
        fresh = self.learner.network.init(key.child("init"))
        params = {
            n: t.to(self.device).expand(self.count, *t.shape).clone().requires_grad_()
            for n, t in fresh.items()
            if not is_alpha(n)
        }
        rule, schedule, steps = rule_by_name("adam"), cosine(0.0), self.plan.steps
        slots = rule.init(params)
        for step in range(steps):
            losses, accuracies = self._query(params, sampler.sample(key.child("tasks"), 1, step))
            found = torch.autograd.grad(losses.sum(), list(params.values()), allow_unused=True)
            grads = {n: g for n, g in zip(params, found, strict=True) if g is not None}
            with torch.no_grad():
                moved, slots = rule.update(
                    grads, slots, params, self.plan.rate * schedule(step, step / max(steps, 1)), step
                )
            params = {n: t.detach().requires_grad_() for n, t in moved.items()}
            done = number + (step + 1) / steps
            tell(watch, done, total, figures=f"{name or 'tasks'}  step {step + 1}  {float(accuracies.mean()):.1%}")
        return params

    def measure(self, params: Params, sampler: EpisodeSampler, key: Key) -> Values:
        """[M, C, R] accuracies on held-out tasks."""
        found = np.empty((self.plan.tasks, self.count, DRAWS))
        with torch.no_grad():
            for task in range(self.plan.tasks):
                whole = sampler.plan(key, 1, task)
                for draw, part in enumerate(_draws(whole)):
                    found[task, :, draw] = self._query(params, sampler.load(part))[1].cpu().numpy()
        return found

    def _query(self, params: Params, batch: TaskBatch) -> tuple[Tensor, Tensor]:
        """Losses and accuracies [C] of the candidates on one task."""
        every = batch.to(self.device).take(torch.zeros(self.count, dtype=torch.int64, device=self.device))
        every = every.channels_last()
        return self.learner.query_loss(self.learner.start(params, every), every)


def _draws(plan: EpisodePlan) -> list[EpisodePlan]:
    """The plan's images in `DRAWS` disjoint parts; the classes are the same."""
    supports, queries = (np.split(rows, DRAWS, axis=2) for rows in (plan.support_rows, plan.query_rows))
    return [EpisodePlan(plan.classes, s, q) for s, q in zip(supports, queries, strict=True)]


def _samplers(
    experiment: Experiment, source: Source, plan: GatePlan, domain: str
) -> tuple[EpisodeSampler, EpisodeSampler]:
    """Of one domain: training tasks, and held-out ones with the images of all draws."""
    ways, shots = experiment.config.tasks.ways, experiment.config.tasks.shots
    most = max(ways, len(source.domain_classes("train")[domain]))
    train = EpisodeSampler(source, "train", min(max(plan.train_ways, ways), most), shots, plan.queries, domain)
    return train, EpisodeSampler(source, plan.split, ways, DRAWS * shots, DRAWS * plan.queries, domain)


def _source(experiment: Experiment) -> Source:
    if not isinstance(experiment.source, Source):
        raise ConfigError("a gate draws its own tasks: expected a source of ours, got a taskset of learn2learn")
    if experiment.network.spec.head != "prototype" or not experiment.network.mixes:
        raise ConfigError("a gate trains the cells of a supernet with model.head prototype: leave both as they are")
    return experiment.source


def _facts(experiment: Experiment, source: Source, plan: GatePlan) -> dict[str, Any]:
    tasks = experiment.config.tasks
    return asdict(plan) | {
        "source": tasks.source,
        "data_sha256": source.content_sha256,
        "ways": tasks.ways,
        "shots": tasks.shots,
        "space": experiment.config.space.name,
        "macro": experiment.config.macro.name,
        "bn": experiment.config.model.bn,
        "environment": describe(experiment.device.type),
    }
