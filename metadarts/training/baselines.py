"""Simple baselines on the same held-out tasks, which adaptation must beat."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metadarts.core.progress import Watch, within
from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch, alphas_of, batched
from metadarts.derive import derive_genotype
from metadarts.spaces import random_genotype
from metadarts.stats import interval95
from metadarts.tasks import nearest_class_mean

from .build import Experiment, held_out
from .checkpoints import Checkpoint
from .discrete import discretised
from .evaluation import evaluate_run

RANDOM_CELLS = 4
AT_THE_CUT = 2 + RANDOM_CELLS
"""Networks that are measured as they were when the cell was extracted."""
SUPERNET_ROW, CUT_ROW = "supernet when the cell was cut out, adapted", "the cell at that moment, adapted"
RANDOM_ROW = f"{RANDOM_CELLS} random cells at that moment, adapted"
UNADAPTED_ROW, PIXELS_ROW = "un-adapted network: the meta-learned start, 0 steps", "pixels, nearest class mean"


def compare(
    experiment: Experiment,
    checkpoint: Checkpoint,
    tasks: int,
    progress: Watch | None = None,
    cut: tuple[Experiment, Checkpoint] | None = None,
) -> dict[str, Any]:
    """The adapted network beside its own un-adapted start and nearest class means, on the same test tasks.

    Args:
        cut: of a run that committed, the supernet just before its cell was extracted, with all of its candidates: it is
            compared too, and at that moment the run's cell with random ones.

    Returns:
        "rows": method, accuracy, interval95 and by how much the first, the adapted network, is ahead, paired;
        "curve" and the facts of `evaluate_run`.
    """
    episodes = held_out(experiment, "test")
    watch = progress if cut is None else within(progress, 0.0, 1 / (1 + AT_THE_CUT))
    report = evaluate_run(experiment, checkpoint, "test", tasks, watch)
    unadapted, means, pixels = [], [], []
    size = experiment.config.evaluate.batch
    with torch.no_grad():
        for first in range(0, tasks, size):
            batch = episodes.batch(first, min(first + size, tasks))
            unadapted.append(_unadapted(experiment, checkpoint.params, batch))
            means.append(_feature_means(experiment, checkpoint.params, batch))
            pixels.append(nearest_class_mean(batch))
    steps = report.facts["steps"]
    chance = torch.full((tasks,), 1.0 / experiment.config.tasks.ways)
    adapted = report.evaluation.accuracies
    what = "weights and alphas" if experiment.network.mixes else "weights"
    earlier = {} if cut is None else _at_the_cut(*cut, tasks, progress)
    rows = [
        _row(f"adapted: {steps} inner steps on {what}", adapted, adapted),
        *(_row(name, own, adapted) for name, own in earlier.items()),
        _row(UNADAPTED_ROW, torch.cat(unadapted), adapted),
        _row("un-adapted features, nearest class mean", torch.cat(means), adapted),
        _row(PIXELS_ROW, torch.cat(pixels), adapted),
        _row("chance", chance, adapted),
    ]
    return {"rows": rows, **report.facts}


def _at_the_cut(
    experiment: Experiment, checkpoint: Checkpoint, tasks: int, progress: Watch | None
) -> dict[str, Tensor]:
    """Method -> accuracies [tasks] of the supernet, of its own cell and of random ones with the same weights."""
    network = experiment.network
    own = derive_genotype(alphas_of(checkpoint.params), network.space, network.relaxation)
    drawn = [random_genotype(network.space, Key.from_seed(0).child("random cells", n)) for n in range(RANDOM_CELLS)]

    found = []
    for place, genotype in enumerate((None, own, *drawn), start=1):
        one = (experiment, checkpoint) if genotype is None else discretised(experiment, checkpoint, genotype)
        watch = within(progress, place / (1 + AT_THE_CUT), 1 / (1 + AT_THE_CUT))
        found.append(evaluate_run(*one, "test", tasks, watch).evaluation.accuracies)
    return {SUPERNET_ROW: found[0], CUT_ROW: found[1], RANDOM_ROW: torch.stack(found[2:]).mean(0)}


def _row(method: str, accuracies: Tensor, adapted: Tensor) -> dict[str, Any]:
    """One method, and by how much the adapted network beats it, task by task."""
    gain = adapted.cpu() - accuracies.cpu()
    return {
        "method": method,
        "accuracy": float(accuracies.mean()),
        "interval95": interval95(accuracies),
        "adapted_gains": float(gain.mean()),
        "adapted_gains_interval95": interval95(gain),
    }


def _expanded(params: Params, batch: TaskBatch) -> Params:
    device = batch.support_images.device
    return batched({name: tensor.to(device) for name, tensor in params.items()}, batch.tasks)


def _unadapted(experiment: Experiment, params: Params, batch: TaskBatch) -> Tensor:
    learner = experiment.learner
    return learner.query_loss(learner.start(_expanded(params, batch), batch), batch)[1]


def _feature_means(experiment: Experiment, params: Params, batch: TaskBatch) -> Tensor:
    """Nearest class mean on the features of the un-adapted network: a prototype network without adaptation."""
    start = experiment.learner.start(_expanded(params, batch), batch)
    support, query = experiment.learner.features(start, batch)
    embedded = TaskBatch(
        support, batch.support_labels, batch.support_mask, query, batch.query_labels, batch.query_mask, batch.ways
    )
    return nearest_class_mean(embedded)
