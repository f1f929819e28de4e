"""From a configuration to the objects that run it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from metadarts.core.errors import ConfigError, DataError
from metadarts.core.machine import allow_tf32
from metadarts.core.progress import Watch
from metadarts.core.rng import Key
from metadarts.core.types import Params, TaskBatch, batched, group_of
from metadarts.integrations import Tasksets, open_tasksets
from metadarts.meta import MetaState
from metadarts.networks import Image, Learner, Network
from metadarts.spaces import Genotype
from metadarts.store.tensors import require_tensors
from metadarts.tasks import Episodes, EpisodeSampler, RawBatch, Source, finish, open_source

from .checkpoints import Checkpoint
from .config import Config, with_settings

COMMITTED = "genotype"
"""The field of a checkpoint's facts that names the cell which is left of a run."""
PREPARED = 64
"""Training tasks that a start of the alphas may look at before the first step."""
LIBRARY = "learn2learn"
"""``learn2learn:NAME`` as a source is one of that library's tasksets."""


@dataclass(frozen=True)
class Experiment:
    """The objects of a configuration, on one device."""

    config: Config
    source: Source | Tasksets
    learner: Learner
    device: torch.device

    @property
    def network(self) -> Network:
        return self.learner.network

    @property
    def key(self) -> Key:
        return Key.from_seed(self.config.training.seed)

    def sampler(self, split: str) -> Episodes:
        """A sampler of episodes: with the number of queries of training or, for held-out tasks, of evaluation.

        Raises:
            DataError: when the split cannot provide them; names the settings that require them.
        """
        tasks, evaluate = self.config.tasks, self.config.evaluate
        training = split == "train"
        own = training and tasks.train_ways > 0
        ways, queries = tasks.train_ways if own else tasks.ways, tasks.queries if training else evaluate.queries
        try:
            if isinstance(self.source, Source):
                fewest = min((len(numbers) for numbers in self.source.domain_classes(split).values()), default=0)
                most = max(tasks.ways, fewest)
                return EpisodeSampler(self.source, split, min(ways, most), tasks.shots, queries)
            return self.source.episodes(split, ways, tasks.shots, queries)
        except DataError as error:
            named = (f"tasks.{'train_ways' if own else 'ways'}={ways}", f"tasks.shots={tasks.shots}")
            asked = f"{'tasks' if training else 'evaluate'}.queries={queries}"
            raise DataError(f"{error} (asked for by {', '.join(named)} and {asked}; change them with --set)") from error

    def training_batch(self, step: int) -> TaskBatch:
        """The meta-batch of outer step ``step``: a pure function of the seed and the step."""
        return self.with_noise(finish(self.training_raw(step)).to(self.device), step)

    def with_noise(self, batch: TaskBatch, step: int) -> TaskBatch:
        """``batch`` with the draws of the relaxation for outer step ``step``; unchanged if it draws nothing."""
        key = self.key.child("relaxation", step)
        noise = self.learner.noise(batch.tasks, self.config.inner.steps, key)
        return batch.with_noise({name: drawn.to(self.device) for name, drawn in noise.items()}) if noise else batch

    def training_raw(self, step: int) -> RawBatch:
        """The same batch as its source stores it, on the CPU, for a `Prefetcher`. May be called from any thread."""
        return self.sampler("train").raw(self.key.child("train", step), self.config.training.tasks)

    def fresh_state(self) -> MetaState:
        """The state before the first outer step."""
        params = {name: t.to(self.device) for name, t in self.network.init(self.key.child("init")).items()}
        params = self.network.prepared(params, self._prepared())
        return MetaState.create(params, task_names(params), self.config.inner, self.config.outer)

    def _prepared(self) -> Iterator[TaskBatch]:
        """Training tasks that a start of the alphas may look at before the first step, drawn when asked for."""
        sampler, key = self.sampler("train"), self.key.child("prepare")
        yield from (sampler.sample(key, 1, number).to(self.device) for number in range(PREPARED))

    def of_checkpoint(self, checkpoint: Checkpoint) -> Experiment:
        """The experiment with the network of ``checkpoint``, without the candidates that the run dropped.

        Raises GenotypeError if the checkpoint names a cell of another space.
        """
        genotype, network = checkpoint.facts.get(COMMITTED), self.network
        if not network.mixes:
            return self
        if genotype is None:
            left = network.fitting(checkpoint.params)
        else:
            left = network.discrete(Genotype.parse(genotype))
        return replace(self, learner=replace(self.learner, network=left))

    def committed_facts(self) -> dict[str, str]:
        """The facts of a checkpoint about the cell to which a run has committed; empty if its network mixes, or was one
        cell from the beginning."""
        genotype = self.network.genotype
        return {} if genotype is None or self.config.model.network == "cell" else {COMMITTED: str(genotype)}

    def check_params(self, params: Params) -> None:
        """Require that ``params`` fit the network, see `require_fit`."""
        require_fit(self.network, params)

    def rehearse(self) -> None:
        """Create the initial state and compute one training task's support loss, so that errors occur before the run
        begins.

        Raises NumericsError for images too small for the network, and torch's error when memory runs out.
        """
        state, batch = self.fresh_state(), self.training_batch(0).task(0)
        own = batched(state.params, 1)
        with torch.no_grad():
            self.learner.support_loss(self.learner.start(own, batch), batch)


def task_names(shared: Iterable[str]) -> list[str]:
    """The names of a task's parameters, which the inner loop moves: those of ``shared`` with a task's own head."""
    return [name for name in shared if group_of(name) not in ("head", "start")] + ["head.weight", "head.bias"]


def require_fit(network: Network, params: Params) -> None:
    """Require that shared ``params`` are those of ``network``. Raises ConfigError naming the first difference."""
    try:
        require_tensors(params, network.shapes())
    except ValueError as error:
        raise ConfigError(f"checkpoint of another space or network: {error}") from error


@dataclass(frozen=True)
class HeldOutTasks:
    """A fixed list of held-out tasks, the same for every run and method with this source and these numbers."""

    sampler: Episodes
    key: Key
    device: torch.device

    def batch(self, first: int, last: int) -> TaskBatch:
        """Tasks ``first`` to ``last`` (exclusive)."""
        return self.sampler.sample(self.key, last - first, first).to(self.device)

    def sha256(self, tasks: int) -> str:
        """The hash of the first ``tasks`` of them."""
        return self.sampler.sha256(self.key, tasks)

    def domains(self, tasks: int) -> list[str]:
        """The domain of each of the first ``tasks`` of them; empty texts in a source without."""
        if not isinstance(self.sampler, EpisodeSampler) or len(self.sampler.source.domains) < 2:
            return [""] * tasks
        return self.sampler.plan(self.key, tasks).domains(self.sampler.source)


def held_out(experiment: Experiment, split: str, seed: int = 0, purpose: str = "measure") -> HeldOutTasks:
    """The held-out tasks of ``split``. Their seed is not the run's: every run meets the same ones.

    Args:
        purpose: "measure", or "selection" for the tasks on which a search chooses its checkpoint: other tasks, so that
            measuring on the same split later is not flattered by the choice.
    """
    names = ("held out", split) if purpose == "measure" else ("held out", split, purpose)
    return HeldOutTasks(experiment.sampler(split), Key.from_seed(seed).child(*names), experiment.device)


def build(config: Config, device: str = "cpu", progress: Watch | None = None) -> Experiment:
    """Open the data and build the learner of ``config``.

    Args:
        progress: reports the images read if reading takes long.

    Raises:
        MetadartsError: a missing or unfit data set, or a configuration out of range.
    """
    source = _open(config, progress)
    return assemble(config, source, device)


def assemble(config: Config, source: Source | Tasksets, device: str = "cpu") -> Experiment:
    """The experiment of ``config`` on a source that is open already; sets torch's precision on a GPU.

    Raises ConfigError.
    """
    if device == "cuda":
        allow_tf32(config.training.tf32)
    config = _with_domains(config, source)
    image = Image(source.channels, *(source.size if isinstance(source, Source) else (0, 0)))
    network = config.build_network(image)
    penalty = config.penalty(image)
    learner = Learner(network, config.model.bn, config.model.precision, penalty=penalty)
    return Experiment(config, source, learner, torch.device(device))


def _with_domains(config: Config, source: Source | Tasksets) -> Config:
    """The configuration whose alphas know how many domains there are, so that a run can be opened without its data."""
    if config.alphas.name != "per-domain":
        return config
    names = source.domains if isinstance(source, Source) else ("",)
    if len(names) < 2:
        raise ConfigError(f"alphas per-domain: expected a source of several domains, got {config.tasks.source!r}")
    told = config.alphas.options.get("domains")
    if told and tuple(told) != names:
        raise ConfigError(
            f"alphas.domains: the run's domains are {', '.join(told)}, those of the data {', '.join(names)}: give data "
            "of the same domains in the same order"
        )
    return with_settings(config, {"alphas.domains": list(names)})


def _open(config: Config, progress: Watch | None) -> Source | Tasksets:
    tasks = config.tasks
    place = Path(tasks.file) if tasks.file else None
    library, _, name = tasks.source.partition(":")
    if library == LIBRARY and name:
        if tasks.size or tasks.channels:
            raise ConfigError(f"tasks.size, tasks.channels: {LIBRARY}'s tasksets keep their own form; leave both 0")
        return open_tasksets(name, place)
    return open_source(
        tasks.source, place, size=tasks.size, channels=tasks.channels, progress=progress,
        sources=config.catalogue.sources,
    )  # fmt: skip
