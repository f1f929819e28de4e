"""`diagnose`: pass after pass over the held-out tasks, then the figures and the answer."""

from __future__ import annotations

import numpy as np

from metadarts.core.errors import ConfigError, NumericsError
from metadarts.core.progress import Watch, tell_mean
from metadarts.core.rng import Key
from metadarts.core.types import alphas_of, batched
from metadarts.derive import derive_genotype
from metadarts.papers.cells import measured_facts, require_supernet
from metadarts.spaces import Genotype
from metadarts.training import Experiment
from metadarts.training.build import HeldOutTasks, held_out
from metadarts.training.checkpoints import Checkpoint
from metadarts.training.evaluation import VALIDATION_ADVICE
from metadarts.training.memory import fitted

from .distances import shares_of
from .figures import Diagnosis
from .passes import TaskResults, joined, measure, spans
from .summary import summarised


def diagnose(
    experiment: Experiment,
    checkpoint: Checkpoint,
    tasks: int,
    split: str = "test",
    seed: int = 0,
    progress: Watch | None = None,
) -> Diagnosis:
    """Test whether the architectures of a run are specific to their tasks, always on the same held-out tasks.

    Each task is adapted to twice, to two support sets of its classes; its alphas, then its discrete cell, are replaced
    by those of another task, of the meta-learned start, by equal or random ones. "Another task" is the next in cyclic
    order within a pass of about ``evaluate.batch`` tasks. Intervals are of 95 %, over tasks of the one training.

    Args:
        experiment: of a supernet; its configuration sets ways, shots, queries and steps.
        checkpoint: the checkpoint that the search selected.
        tasks: number of held-out tasks, at least 2.
        split: "val" or "test".
        seed: seed of the held-out tasks, the random cells and the bootstrap.
        progress: reports the tasks done and the mean accuracy of the usual adaptation.

    Raises:
        ConfigError: when the network has no alphas or has alphas for inputs, there are fewer than two tasks, or there
            are fewer queries than shots per class.
        NumericsError: when fewer than two tasks are finite.
        ResourceError: when memory runs out.
    """
    require_diagnosable(experiment)
    spans(tasks, experiment.config.evaluate.batch)
    episodes, key = held_out(experiment, split, seed), Key.from_seed(seed).child("diagnosis")
    meta_alphas = {kind: table.detach().cpu() for kind, table in alphas_of(checkpoint.params).items()}
    network = experiment.network
    meta = derive_genotype(meta_alphas, network.space, network.relaxation).canonical()

    def work(size: int) -> TaskResults:
        return _all(experiment, checkpoint, episodes, spans(tasks, size), meta, key.child("random"), progress)

    config = experiment.config
    found, _ = fitted(work, config.evaluate.batch, config.training.fit_memory, VALIDATION_ADVICE)
    if (finite := int(found.finite.sum())) < 2:
        raise NumericsError(
            f"expected at least 2 tasks whose adaptation stays in the finite numbers, got {finite} of {tasks}; lower "
            "inner.weight_rate, inner.alpha_rate or evaluate.steps"
        )
    facts = measured_facts(experiment, checkpoint, episodes, tasks, split, seed) | {"finite_tasks": finite}
    start = shares_of(batched(meta_alphas, 1), network.relaxation)
    return summarised(found, meta, start, key, facts)


def require_diagnosable(experiment: Experiment) -> None:
    """Require a supernet whose alphas choose only operations. Raises ConfigError."""
    require_supernet(experiment)
    space = experiment.network.space
    if space.inputs_by != "rule":
        raise ConfigError(
            f"a diagnosis swaps operations of edges; space {space.name!r} has alphas for inputs too: diagnose the run "
            "of a space whose inputs_by is 'rule'"
        )


def _all(
    experiment: Experiment,
    checkpoint: Checkpoint,
    episodes: HeldOutTasks,
    passes: list[tuple[int, int]],
    meta: Genotype,
    key: Key,
    progress: Watch | None,
) -> TaskResults:
    parts: list[TaskResults] = []
    for first, last in passes:
        parts.append(measure(experiment, checkpoint, episodes.batch(first, last), meta, key, first))
        own = np.concatenate([part.soft["own"] for part in parts])
        tell_mean(progress, last, passes[-1][1], float(own.mean()))
    return joined(parts)
