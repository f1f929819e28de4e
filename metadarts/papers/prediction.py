"""Does a predicted architecture help? Held-out tasks, against the meta-learned prior and shuffled tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from metadarts.core.errors import ConfigError, NumericsError
from metadarts.core.progress import Watch, tell_mean
from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch, alphas_of, batched, with_alphas
from metadarts.derive import derive_genotype, genotype_distance
from metadarts.inner import adapt
from metadarts.predictor import MetaModel, Prediction
from metadarts.predictor.head import choice_count, choices_of, of_alphas
from metadarts.stats import Estimate, Values, estimate, paired
from metadarts.training import Experiment
from metadarts.training.build import held_out
from metadarts.training.checkpoints import Checkpoint
from metadarts.training.evaluation import evaluation_inner, on_device

from .cells import as_values, finite_tasks, genotypes_of, measured_facts, require_supernet, with_choices
from .diagnosis.passes import spans

STEPS = (0, 1, 3, 5, 10)
"""Inner steps after which a start is measured."""
STARTS = {
    "meta": "the meta-learned alphas",
    "predicted": "the alphas predicted for the task",
    "shuffled": "the alphas predicted for another task",
    "overall": "the mean of the archive's adapted alphas",
}
CELLS = {
    "own": "the cell of the task's own adapted alphas",
    "predicted": "the predicted cell",
    "shuffled": "the cell predicted for another task",
    "meta": "the cell of the meta-learned alphas",
}


@dataclass(frozen=True)
class Figure:
    """One row: a mean over tasks with its interval, and the paired difference from the row that it is compared with.

    Args:
        name: of `STARTS` or `CELLS`.
        value: mean over tasks.
        difference: of the prediction from this row, over tasks; None for the prediction itself.
    """

    name: str
    value: Estimate
    difference: Estimate | None


@dataclass(frozen=True)
class PredictionStudy:
    """What came out, see `study_prediction`.

    Args:
        facts: what was measured: run, tasks, steps, model, environment.
        likelihood: of each task's adapted architecture, in nats for one choice.
        agreement: share of choices in which the most probable architecture and the adapted one are the same.
        distance: mean squared distance of alphas from the adapted ones, in spreads of the archive.
        accuracy: by number of steps: query accuracy from each start.
        cells: query accuracy of discrete cells extracted from the meta-learned supernet before any step; empty where
            not asked for.
        per_task: the values behind, lists over tasks.
    """

    facts: dict[str, Any]
    likelihood: tuple[Figure, ...]
    agreement: tuple[Figure, ...]
    distance: tuple[Figure, ...]
    accuracy: dict[str, tuple[Figure, ...]]
    cells: tuple[Figure, ...]
    per_task: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The whole as plain dictionaries, lists, numbers and text."""
        return {"format": "metadarts.prediction", "version": 1, **asdict(self)}


def study_prediction(
    experiment: Experiment,
    checkpoint: Checkpoint,
    model: MetaModel,
    tasks: int,
    split: str = "test",
    seed: int = 0,
    cells: bool = True,
    steps: Sequence[int] = STEPS,
    progress: Watch | None = None,
) -> PredictionStudy:
    """Predict the architecture of held-out tasks from their support sets, and compare with what adapting comes to.

    A prediction that carries anything is nearer to the task's adapted architecture than the same model's prediction
    for another task (shuffled), and than what all tasks of the archive have in common (overall). Warm start: weights
    and alphas adapt as ever, from other alphas.

    Args:
        experiment: of the supernet whose adapted tasks the model was fitted on.
        model: fitted, of the experiment's space.
        tasks: how many, at least 2.
        split: "val" or "test".
        seed: of the tasks and of the bootstrap.
        cells: whether to measure discrete cells too, which takes most of the time.
        steps: after which to measure; the largest is what a task's adapted alphas have.
        progress: reports the tasks done and the mean accuracy from the meta-learned alphas after all steps.

    Raises:
        ConfigError: with fewer than two tasks, a network without alphas, or a model of another space.
        DataError: when the model sees images of other channels.
        NumericsError: when fewer than two tasks stay in the finite numbers; those that do not are left out.
    """
    require_supernet(experiment)
    if model.space != experiment.network.space:
        raise ConfigError(
            f"the meta-model is of the space {model.space.name!r} with {model.space.nodes} nodes, the run of "
            f"{experiment.network.space.name!r} with {experiment.network.space.nodes}: give one fitted on such a run"
        )
    episodes = held_out(experiment, split, seed)
    parts: list[dict[str, Values]] = []
    for first, last in spans(tasks, experiment.config.evaluate.batch):
        parts.append(_measured(experiment, checkpoint, model, episodes.batch(first, last), tuple(steps), cells))
        done = np.concatenate([part[f"accuracy {max(steps)} meta"] for part in parts])
        tell_mean(progress, last, tasks, float(done.mean()))
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    finite = values.pop("finite").astype(bool)
    if finite.sum() < 2:
        raise NumericsError(
            f"expected at least 2 tasks whose adaptation stays in the finite numbers, got {finite.sum()} of {tasks}; "
            "lower inner.weight_rate or inner.alpha_rate"
        )
    values = {name: each[finite] for name, each in values.items()}
    facts = measured_facts(experiment, checkpoint, episodes, tasks, split, seed) | {
        "steps": max(steps),
        "cell_steps": experiment.config.evaluate.steps,
        "finite_tasks": int(finite.sum()),
        "fitted_on_tasks": model.fitted,
        "spec": asdict(model.spec),
    }
    return _summarised(values, facts, tuple(steps), Key.from_seed(seed).child("prediction"))


def _measured(
    experiment: Experiment,
    checkpoint: Checkpoint,
    model: MetaModel,
    batch: TaskBatch,
    steps: tuple[int, ...],
    cells: bool,
) -> dict[str, Values]:
    """Everything about the tasks of one batch, each [T]."""
    space, count, network = model.space, batch.tasks, experiment.network
    meta = {kind: t.cpu() for kind, t in alphas_of(checkpoint.params).items()}
    with torch.no_grad():
        own = model.predict(batch.to("cpu"))
        predictions = {
            "predicted": own,
            "shuffled": _turned(own),
            "overall": model.head.overall(count),
            "meta": of_alphas(batched(meta, count), space, network.relaxation),
        }
    found: dict[str, Values] = {}
    adapted: Params = {}
    unadapted: Params = {}
    for name in STARTS:
        curve, params, start = _curve(experiment, checkpoint, batch, predictions[name].alphas, steps)
        if name == "meta":
            adapted, unadapted = params, start
        found |= {f"accuracy {step} {name}": curve[step] for step in steps}
    target = {kind: t.detach().cpu().float() for kind, t in alphas_of(adapted).items()}
    genotypes = genotypes_of(adapted, network)
    chosen = choices_of(genotypes, space)
    found["finite"] = np.asarray(finite_tasks(adapted).double())
    choices = choice_count(space)
    most = len(space.cell_types) * space.nodes * space.edges_per_node
    derived = derive_genotype(meta, space, network.relaxation).canonical()
    said_cells = {name: each.genotypes() for name, each in predictions.items()} | {"meta": [derived] * count}
    for name, prediction in predictions.items():
        found[f"likelihood {name}"] = as_values(prediction.log_likelihood(chosen) / choices)
        found[f"agreement {name}"] = np.array(
            [1.0 - genotype_distance(a, b) / most for a, b in zip(said_cells[name], genotypes, strict=True)]
        )
        said, wanted = model.head.standardised(prediction.alphas), model.head.standardised(target)
        distances = [(said[kind] - wanted[kind]).square().flatten(1).mean(1) for kind in wanted]
        found[f"distance {name}"] = as_values(torch.stack(distances).mean(0))
    if cells:
        tried = {"own": genotypes} | {n: said_cells[n] for n in CELLS if n != "own"}
        pairs = [(task, cell) for name in CELLS for task, cell in enumerate(tried[name])]
        accuracies = with_choices(experiment, checkpoint, unadapted, batch, pairs).view(len(CELLS), count)
        found |= {f"cells {name}": as_values(row) for name, row in zip(CELLS, accuracies, strict=True)}
    return found


def _turned(prediction: Prediction) -> Prediction:
    """To every task what was said of the next one of its batch."""
    parts = (
        {kind: t.roll(-1, 0) for kind, t in each.items()}
        for each in (prediction.alphas, prediction.operations, prediction.edges)
    )
    return Prediction(prediction.space, *parts)


def _curve(
    experiment: Experiment, checkpoint: Checkpoint, batch: TaskBatch, alphas: Any, steps: tuple[int, ...]
) -> tuple[dict[int, Values], Params, Params]:
    """Query accuracies [T] after each of ``steps`` from ``alphas``, the parameters after the last, and the first."""
    learner, device = experiment.learner, experiment.device
    given = {kind: table.to(device).contiguous() for kind, table in alphas.items()}
    shared = with_alphas(batched(on_device(experiment, checkpoint.params) or {}, batch.tasks), given)
    rates = on_device(experiment, checkpoint.rates)
    own = None if rates is None else batched(rates, batch.tasks)
    inner = replace(evaluation_inner(experiment.config), steps=max(steps))
    curve: dict[int, Values] = {}

    def observe(step: int, now: Params) -> None:
        if step in steps:
            loss, accuracy = learner.query_loss(now, batch)
            curve[step] = as_values(torch.where(torch.isfinite(loss), accuracy, 0.0))

    with torch.no_grad():
        start = learner.start(shared, batch)
        params = adapt(learner.support_loss, start, batch, inner, rates=own, observe=observe).params
    return curve, {name: tensor.detach() for name, tensor in params.items()}, start


def _summarised(values: dict[str, Values], facts: dict[str, Any], steps: tuple[int, ...], key: Key) -> PredictionStudy:
    def rows(about: str, names: Sequence[str]) -> tuple[Figure, ...]:
        own = values[f"{about} predicted"][None]
        return tuple(
            Figure(
                name,
                estimate(values[f"{about} {name}"][None], key.child(about, name)),
                None if name == "predicted" else paired(own, values[f"{about} {name}"][None], key.child(about, name)),
            )
            for name in names
        )

    names = list(STARTS)
    return PredictionStudy(
        facts,
        rows("likelihood", names),
        rows("agreement", names),
        rows("distance", names),
        {str(step): rows(f"accuracy {step}", names) for step in steps},
        rows("cells", list(CELLS)) if "cells own" in values else (),
        {name: [round(float(v), 6) for v in each] for name, each in values.items()},
    )
