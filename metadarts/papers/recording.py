"""Tasks of a run's split, each adapted and recorded in an archive of task records."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from metadarts.core.errors import ConfigError
from metadarts.core.progress import Watch, tell_mean
from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch, alphas_of
from metadarts.papers.cells import adapt_batch, finite_tasks, genotypes_of, require_supernet
from metadarts.predictor.archive import Archive
from metadarts.predictor.archive_rows import json_text, space_text
from metadarts.predictor.rebuild import episode_origins
from metadarts.predictor.task_record import ADAPTED, RELAXED_BY, TaskRecord
from metadarts.relaxations import DEFAULT_RELAXATION
from metadarts.tasks import EpisodePlan, EpisodeSampler, Source
from metadarts.training import Config, Experiment, with_settings
from metadarts.training.checkpoints import Checkpoint
from metadarts.training.evaluation import VALIDATION_ADVICE, evaluation_inner
from metadarts.training.memory import fitted


@dataclass(frozen=True)
class Recorded:
    """What `record_tasks` did.

    Args:
        names: of the new records, in the order of the tasks.
        known: tasks that were in the archive already.
        diverged: tasks with non-finite values, which are not recorded.
        before: mean accuracy of the new ones before the first step; NaN without any.
        after: the same after the last step.
    """

    names: tuple[str, ...]
    known: int
    diverged: int
    before: float
    after: float


def record_tasks(
    experiment: Experiment,
    checkpoint: Checkpoint,
    archive: Archive,
    tasks: int,
    split: str = "train",
    seed: int = 0,
    progress: Watch | None = None,
) -> Recorded:
    """Adapt ``checkpoint`` to the first ``tasks`` tasks of a split and record each; those recorded before are skipped.

    Tasks have the ways, shots and queries of the test, on the training classes too; of "val" and "test" they are those
    on which `metadarts evaluate` measures. A pass of ``evaluate.batch`` tasks is recorded when it is done, so that a
    call that was killed goes on where it stopped.

    Args:
        archive: opened to be written.
        tasks: how many, at least 1.
        split: "train", "val" or "test".
        seed: of the choice of tasks, and what the records call their seed: adapting is not random.
        progress: reports the tasks done, those known before included, and the mean accuracy after adaptation of those
            adapted now.

    Raises:
        ConfigError: when the network has no alphas, or the source keeps no rows (learn2learn's).
        DataError: when the split is too small, or the archive cannot be written or cannot hold the network's space.
        ResourceError: when memory runs out.
    """
    require_supernet(experiment)
    sampler = recorded_episodes(experiment, split)
    plan = sampler.plan(Key.from_seed(seed).child("held out", split), tasks)
    work = _Work(experiment, checkpoint, archive, sampler, plan, seed, progress)
    config = experiment.config
    fitted(work.run, config.evaluate.batch, config.training.fit_memory, VALIDATION_ADVICE)
    return work.recorded()


def recorded_episodes(experiment: Experiment, split: str) -> EpisodeSampler:
    """Episodes of ``split`` as at test time: ``tasks.ways`` ways, not the training's, and the evaluation's queries.

    Raises:
        ConfigError: when the network is no whole supernet, or the source keeps no rows.
        DataError: when the split is too small, or an archive cannot hold the network's space.
    """
    config, network = experiment.config, experiment.network
    require_supernet(experiment)
    space_text(network.space)
    if network.kept is not None:
        raise ConfigError("the supernet has dropped candidates, whose alphas say nothing: record one that has them all")
    if not isinstance(experiment.source, Source):
        raise ConfigError(
            f"{config.tasks.source} keeps no rows to build a task again from: record the run of another --data"
        )
    return EpisodeSampler(experiment.source, split, config.tasks.ways, config.tasks.shots, config.evaluate.queries)


class _Work:
    """The passes over the tasks that are not in the archive yet; begun again, it goes on."""

    def __init__(
        self,
        experiment: Experiment,
        checkpoint: Checkpoint,
        archive: Archive,
        sampler: EpisodeSampler,
        plan: EpisodePlan,
        seed: int,
        progress: Watch | None,
    ) -> None:
        self._experiment, self._checkpoint, self._archive = experiment, checkpoint, archive
        self._sampler, self._plan, self._seed, self._progress = sampler, plan, seed, progress
        self._origins = episode_origins(sampler, plan)
        self._run, self._settings = run_of(checkpoint), settings_of(experiment, checkpoint)
        self._known = archive.known_tasks(ADAPTED, self._run, json_text("settings", self._settings))
        self._open = [number for number, origin in enumerate(self._origins) if origin.sha256 not in self._known]
        self._skipped = plan.tasks - len(self._open)
        self._names: list[str] = []
        self._before: list[float] = []
        self._after: list[float] = []
        self._diverged = 0

    def run(self, size: int) -> None:
        """Adapt and record what is left, ``size`` tasks at once."""
        while self._open:
            numbers = self._open[:size]
            found = self._adapted(numbers)
            self._names += self._archive.add(found)
            self._open = self._open[len(numbers) :]
            self._diverged += len(numbers) - len(found)
            self._before += [record.before for record in found]
            self._after += [record.after for record in found]
            tell_mean(self._progress, self._plan.tasks - len(self._open), self._plan.tasks, _mean(self._after))

    def recorded(self) -> Recorded:
        return Recorded(tuple(self._names), self._skipped, self._diverged, _mean(self._before), _mean(self._after))

    def _adapted(self, numbers: Sequence[int]) -> list[TaskRecord]:
        """The records of the tasks ``numbers`` that stayed in the finite numbers."""
        plan = self._plan
        rows = [array[numbers] for array in (plan.classes, plan.support_rows, plan.query_rows)]
        batch = self._sampler.load(EpisodePlan(*rows)).to(self._experiment.device)
        network = self._experiment.network
        before = before_adaptation(self._experiment, self._checkpoint, batch).tolist()
        params, accuracies = adapt_batch(self._experiment, self._checkpoint, batch)
        finite, after, genotypes = finite_tasks(params).tolist(), accuracies.tolist(), genotypes_of(params, network)
        tables = {kind: table.detach().cpu().float().numpy() for kind, table in alphas_of(params).items()}
        return [
            TaskRecord(
                self._origins[number],
                network.space,
                {kind: table[task].copy() for kind, table in tables.items()},
                genotypes[task],
                before[task],
                after[task],
                ADAPTED,
                self._seed,
                self._run,
                self._settings,
            )
            for task, number in enumerate(numbers)
            if finite[task]
        ]


def before_adaptation(experiment: Experiment, checkpoint: Checkpoint, batch: TaskBatch) -> Tensor:
    """Query accuracies [T], 0 to 1, before the first inner step."""
    still = replace(experiment, config=with_settings(experiment.config, {"evaluate.steps": 0}))
    return adapt_batch(still, checkpoint, batch)[1]


def run_of(checkpoint: Checkpoint) -> str:
    """The SHA-256 of the checkpoint's file; of its tensors, where it never was a file."""
    told = checkpoint.facts.get("sha256")
    return told if isinstance(told, str) and told else tensors_sha256(checkpoint.params, checkpoint.rates)


def tensors_sha256(params: Params, rates: Params | None) -> str:
    """SHA-256 of parameters and learned rates: names, shapes and float32 numbers."""
    digest = hashlib.sha256(b"metadarts tensors 1")
    for group, tensors in (("param", params), ("rate", rates or {})):
        for name in sorted(tensors):
            content = tensors[name].detach().cpu().float().contiguous().numpy().astype("<f4").tobytes()
            digest.update(f" {group} {name} {tuple(tensors[name].shape)} ".encode() + content)
    return digest.hexdigest()


def settings_of(experiment: Experiment, checkpoint: Checkpoint) -> Mapping[str, Any]:
    """How tasks are adapted, and how their data were opened: JSON values; equal for records that can be compared."""
    config, inner = experiment.config, evaluation_inner(experiment.config)
    return {
        "steps": inner.steps,
        **inner.facts,
        "learned_rates": checkpoint.rates is not None,
        "bn": config.model.bn,
        "precision": config.model.precision,
        "data": {"source": config.tasks.source, "size": config.tasks.size, "channels": config.tasks.channels},
        **relaxation_facts(config),
    }


def relaxation_facts(config: Config) -> dict[str, Any]:
    """What a record's settings say of the run's relaxation: nothing of the softmax, else its name and all options."""
    if config.build_relaxation() == DEFAULT_RELAXATION:
        return {}
    return {RELAXED_BY: config.relaxation.settings(config.catalogue.relaxations, 0)}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
