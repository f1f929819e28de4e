"""Evaluation of a finished run. The checkpoint is fixed before this module is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metadarts.core.progress import Watch
from metadarts.core.types import Params
from metadarts.inner import InnerLoop
from metadarts.meta import Evaluation, evaluate
from metadarts.stats import interval95

from .build import Experiment, held_out
from .checkpoints import Checkpoint
from .config import Config
from .environment import describe
from .memory import fitted

CURVE_TASKS = 100
VALIDATION_ADVICE = "lower evaluate.batch, or let --fit-memory do it; else lower evaluate.queries or macro.channels"


def evaluation_inner(config: Config) -> InnerLoop:
    """The inner loop at test time: the training one with its own number of steps and no outer gradient."""
    return replace(config.inner, steps=config.evaluate.steps, order="first", checkpoint=0)


def on_device(experiment: Experiment, params: Params | None) -> Params | None:
    """``params`` where the experiment computes; None stays None."""
    return None if params is None else {name: tensor.to(experiment.device) for name, tensor in params.items()}


@dataclass(frozen=True)
class Report:
    """One evaluation and the facts that identify it."""

    evaluation: Evaluation
    facts: dict[str, Any]


def evaluate_run(
    experiment: Experiment,
    checkpoint: Checkpoint,
    split: str,
    tasks: int,
    progress: Watch | None = None,
    seed: int = 0,
) -> Report:
    """Adapt ``checkpoint`` to ``tasks`` fixed tasks of ``split`` and evaluate them; ``seed`` is the seed of the
    tasks."""
    config = experiment.config
    inner, episodes = evaluation_inner(config), held_out(experiment, split, seed)

    def work(size: int) -> Evaluation:
        return evaluate(
            experiment.learner,
            on_device(experiment, checkpoint.params) or {},
            episodes.batch,
            inner,
            tasks=tasks,
            rates=on_device(experiment, checkpoint.rates),
            batch_size=size,
            curve_tasks=CURVE_TASKS,
            progress=progress,
            run_progress=checkpoint.facts.get("progress", 1.0),
        )

    result, _ = fitted(work, config.evaluate.batch, config.training.fit_memory, VALIDATION_ADVICE)
    domains = episodes.domains(tasks)
    facts = {
        "accuracy": result.accuracy,
        "interval95": result.interval95,
        "tasks": tasks,
        "ways": config.tasks.ways,
        "shots": config.tasks.shots,
        "queries": config.evaluate.queries,
        "steps": inner.steps,
        "bn": config.model.bn,
        "split": split,
        "source": config.tasks.source,
        "data_sha256": getattr(experiment.source, "content_sha256", None),
        "episodes_sha256": episodes.sha256(tasks),
        "checkpoint_step": checkpoint.facts["step"],
        "validation_accuracy": checkpoint.facts.get("validation_accuracy"),
        "finite_tasks": result.finite_tasks,
        "precision": config.model.precision,
        "engine": "batched",
        "training_seed": config.training.seed,
        "environment": describe(experiment.device.type),
        "curve": result.curve.mean(1).tolist(),
        "curve_tasks": result.curve.shape[1],
        **({"domains": by_domain(result.accuracies, domains)} if len(set(domains)) > 1 else {}),
    }
    return Report(result, facts)


def by_domain(accuracies: Tensor, domains: Sequence[str]) -> dict[str, dict[str, float]]:
    """Mean accuracy, its interval (from two tasks on) and number of the tasks of each domain.

    Args:
        accuracies: [T] of tasks.
        domains: of each task.
    """
    found = {}
    for name in dict.fromkeys(domains):
        own = accuracies.cpu()[torch.tensor([domain == name for domain in domains])]
        interval = {"interval95": interval95(own)} if len(own) > 1 else {}
        found[name] = {"accuracy": float(own.mean()), **interval, "tasks": len(own)}
    return found
