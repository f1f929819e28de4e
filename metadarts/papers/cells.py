"""Supernet and discrete cells on many tasks at once: the same tasks, the same checkpoint, other architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metadarts.core.errors import ConfigError
from metadarts.core.types import Params, TaskBatch, alphas_of, batched, group_of, is_alpha, with_alphas
from metadarts.derive import derive_genotype
from metadarts.inner import InnerLoop, adapt
from metadarts.networks import Learner, Network, inherit
from metadarts.spaces import Genotype
from metadarts.stats import Values
from metadarts.training import Experiment
from metadarts.training.build import HeldOutTasks
from metadarts.training.checkpoints import Checkpoint
from metadarts.training.environment import describe
from metadarts.training.evaluation import evaluation_inner, on_device

Choice = tuple[int, Genotype]
"""A task by its place in the batch, and the cell that it is to be learnt with."""


def require_supernet(experiment: Experiment) -> None:
    """Require a network whose tasks start from shared alphas. Raises ConfigError."""
    if (name := experiment.config.alphas.name) != "shared":
        raise ConfigError(
            f"a study replaces the alphas that all tasks start from, and this run's are {name}: give a run of "
            "alphas.name shared"
        )
    if not any(map(is_alpha, experiment.network.shapes())):
        kind = "a discrete cell" if experiment.network.genotype is not None else "no cells"
        raise ConfigError(
            f"expected the run of a supernet, whose alphas choose a cell for each task; the network of this one has "
            f"{kind}: give the run folder of a search that stays a supernet, as the presets *-supernet do"
        )


def measured_facts(
    experiment: Experiment, checkpoint: Checkpoint, episodes: HeldOutTasks, tasks: int, split: str, seed: int
) -> dict[str, Any]:
    """What identifies a study of held-out tasks: tasks, how they are adapted to, checkpoint, machine."""
    config = experiment.config
    inner = evaluation_inner(config)
    return {
        "source": config.tasks.source,
        "split": split,
        "tasks": tasks,
        "ways": config.tasks.ways,
        "shots": config.tasks.shots,
        "queries": config.evaluate.queries,
        "steps": inner.steps,
        **{name: value for name, value in inner.facts.items() if name not in ("rule", "clip")},
        "learned_rates": checkpoint.rates is not None,
        "bn": config.model.bn,
        "precision": config.model.precision,
        "seed": seed,
        "training_seed": config.training.seed,
        "checkpoint_step": checkpoint.facts["step"],
        "episodes_sha256": episodes.sha256(tasks),
        "environment": describe(experiment.device.type),
    }


def adapt_batch(experiment: Experiment, checkpoint: Checkpoint, batch: TaskBatch) -> tuple[Params, Tensor]:
    """The soft supernet after ``evaluate.steps`` inner steps on every task's support set.

    Returns:
        The task parameters [T, ...], without graph, and the query accuracies [T], 0 to 1; a task with non-finite values
        has no predictions and scores 0.

    Raises:
        ConfigError: when the network has no alphas.
    """
    require_supernet(experiment)
    shared = batched(on_device(experiment, checkpoint.params) or {}, batch.tasks)
    return _learnt(experiment.learner, shared, batch, evaluation_inner(experiment.config), checkpoint.rates)


def with_fixed_alphas(experiment: Experiment, checkpoint: Checkpoint, batch: TaskBatch, alphas: Params) -> Tensor:
    """Query accuracies [T] when the alphas are given and stand still while the weights take their inner steps.

    Args:
        alphas: decision -> raw alphas, [T, rows, candidates] or [rows, candidates] for all tasks alike.

    Raises:
        ConfigError: when the network has no alphas.
    """
    require_supernet(experiment)
    given = {name: t.to(experiment.device).expand(batch.tasks, *t.shape[-2:]) for name, t in alphas.items()}
    shared = with_alphas(batched(on_device(experiment, checkpoint.params) or {}, batch.tasks), given)
    inner = replace(evaluation_inner(experiment.config), alpha_rate=0.0)
    return _learnt(experiment.learner, shared, batch, inner, checkpoint.rates)[1]


def genotypes_of(params: Params, network: Network) -> list[Genotype]:
    """The cell that every task's alphas stand for under the network's relaxation, in canonical form, so that equal
    cells compare equal.

    A task with an alpha that is not finite has nothing to choose by: its alphas count as all equal. `with_cells` scores
    it 0 whatever its cell.

    Args:
        params: task parameters; the alphas among them are [T, rows, candidates].
        network: the supernet that they are parameters of.
    """
    tables = {kind: tensor.detach().cpu() for kind, tensor in alphas_of(params).items()}
    finite = _finite_rows(tables).tolist()
    found = []
    for task, usable in enumerate(finite):
        own = {kind: table[task] if usable else torch.zeros_like(table[task]) for kind, table in tables.items()}
        found.append(derive_genotype(own, network.space, network.relaxation).canonical())
    return found


def as_values(tensor: Tensor) -> Values:
    """Float64 on the CPU, without graph."""
    return np.asarray(tensor.detach().cpu().double())


def finite_tasks(params: Params) -> Tensor:
    """[T] bool on the CPU: which tasks' parameters [T, ...] are finite numbers, every one of them."""
    return _finite_rows(params).cpu()


def with_cells(
    experiment: Experiment, checkpoint: Checkpoint, adapted: Params, batch: TaskBatch, genotypes: Sequence[Genotype]
) -> Tensor:
    """Query accuracy of each task's discrete cell, with the weights it inherits; see `with_choices`.

    Args:
        adapted: the supernet's task parameters [T, ...], as `adapt_batch` leaves them.
        genotypes: one per task.

    Returns:
        [T], 0 to 1; 0 for tasks with non-finite values.

    Raises:
        ConfigError: when the network has no alphas, or there is not one genotype per task.
        GenotypeError: when one is not a point of the network's space.
    """
    if len(genotypes) != batch.tasks:
        raise ConfigError(f"expected one genotype for each of {batch.tasks} tasks, got {len(genotypes)}")
    return with_choices(experiment, checkpoint, adapted, batch, list(enumerate(genotypes)))


def with_choices(
    experiment: Experiment, checkpoint: Checkpoint, adapted: Params, batch: TaskBatch, choices: Sequence[Choice]
) -> Tensor:
    """Query accuracies of (task, cell) pairs: the weights that the cell inherits, and ``evaluate.steps`` more steps.

    A cell inherits from the adapted supernet of ITS task and gets a new head, see `inherited_start`. The further steps
    move the weights at the configured rate, as the finish "inherited" of `metadarts adapt` does: learned rates were
    learned for the supernet's steps. Pairs with the same cell are learnt in one pass, and a pair that is asked for
    twice is learnt once.

    Returns:
        [pairs], 0 to 1; 0 for tasks with non-finite values, in the supernet or after.

    Raises:
        ConfigError: when the network has no alphas.
        GenotypeError: when a cell is not a point of the network's space.
    """
    require_supernet(experiment)
    found: dict[Choice, float] = {}
    finite = finite_tasks(adapted).tolist()
    for genotype, tasks in _grouped(choices).items():
        rows = torch.tensor(tasks)
        own = {name: tensor[rows.to(tensor.device)] for name, tensor in adapted.items()}
        accuracies = _with_cell(experiment, checkpoint, own, batch.take(rows.to(batch.support_images.device)), genotype)
        found |= {
            (task, genotype): accuracy if finite[task] else 0.0
            for task, accuracy in zip(tasks, accuracies.tolist(), strict=True)
        }
    return torch.tensor([found[choice] for choice in choices])


def inherited_start(
    experiment: Experiment, checkpoint: Checkpoint, adapted: Params, batch: TaskBatch, network: Network
) -> Params:
    """Task parameters [T, ...] of the discrete ``network`` before its first step.

    The body is extracted from the adapted supernet. The head is new: made of the support set's class means where it is
    a prototype head; a shared head keeps its adapted rows, which know the classes as a copied row does not.
    """
    fresh = batched(on_device(experiment, checkpoint.params) or {}, batch.tasks)
    shared = {name: tensor for name, tensor in adapted.items() if not _of_head(name)}
    shared |= {name: tensor for name, tensor in fresh.items() if _of_head(name)}
    learner = replace(experiment.learner, network=network)
    with torch.no_grad():
        start = learner.start(inherit(network, shared, experiment.network), batch)
    if network.spec.head == "shared":
        start |= {name: tensor for name, tensor in adapted.items() if _of_head(name)}
    return start


def _with_cell(
    experiment: Experiment, checkpoint: Checkpoint, adapted: Params, batch: TaskBatch, genotype: Genotype
) -> Tensor:
    network = experiment.network.discrete(genotype)
    start = inherited_start(experiment, checkpoint, adapted, batch, network)
    learner = replace(experiment.learner, network=network)
    return _stepped(learner, start, batch, evaluation_inner(experiment.config), None)[1]


def _learnt(
    learner: Learner, shared: Params, batch: TaskBatch, inner: InnerLoop, rates: Params | None
) -> tuple[Params, Tensor]:
    """From shared parameters on the task axis [T, ...] to task parameters and query accuracies [T]."""
    with torch.no_grad():
        start = learner.start(shared, batch)
    device = batch.support_images.device
    own = None if rates is None else batched({n: rate.to(device) for n, rate in rates.items()}, batch.tasks)
    return _stepped(learner, start, batch, inner, own)


def _stepped(
    learner: Learner, start: Params, batch: TaskBatch, inner: InnerLoop, rates: Params | None
) -> tuple[Params, Tensor]:
    with torch.no_grad():
        moved = adapt(learner.support_loss, start, batch, inner, rates=rates).params
        loss, accuracy = learner.query_loss(moved, batch)
    params = {name: tensor.detach() for name, tensor in moved.items()}
    return params, torch.where(torch.isfinite(loss), accuracy, 0.0)


def _grouped(choices: Sequence[Choice]) -> dict[Genotype, list[int]]:
    """Genotype -> the tasks that ask for it, each once, in order."""
    groups: dict[Genotype, dict[int, None]] = {}
    for task, genotype in choices:
        groups.setdefault(genotype, {})[task] = None
    return {genotype: sorted(tasks) for genotype, tasks in groups.items()}


def _finite_rows(params: Params) -> Tensor:
    """[T] bool: where every entry of every tensor [T, ...] is finite."""
    return torch.stack([torch.isfinite(tensor).flatten(1).all(1) for tensor in params.values()]).all(0)


def _of_head(name: str) -> bool:
    return group_of(name) == "head"
