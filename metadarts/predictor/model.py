"""The meta-model: fitted on an archive of (task, best architecture), predicts the architecture of a new task."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metadarts.core.errors import ConfigError, DataError, NumericsError
from metadarts.core.progress import Watch, tell
from metadarts.core.rng import Key
from metadarts.core.types import TaskBatch
from metadarts.spaces import Genotype, SearchSpace

from .encoder import Seen, TaskEncoder
from .head import ArchitectureHead, Prediction, choices_of
from .losses import alphas_loss, architecture_loss, ranking_loss
from .meta_dataset import FeatureExtractor, MetaDataset, Support, meta_datasets, seen_of
from .task_record import TaskRecord

"""Told of (epochs done, training loss)."""


@dataclass(frozen=True)
class PredictorSpec:
    """Settings of a meta-model.

    Args:
        width: of hidden layers.
        embedding: D, the length of a task's vector.
        rate: learning rate of Adam, with cosine decay to 0.
        decay: of the weights (AdamW).
        epochs: epochs of the rate schedule.
        stop: stop after this number of epochs, 0 for all; `tune` chooses it and keeps the schedule.
        batch: tasks per update.
        architecture: weight of the cross-entropy to the best architecture.
        alphas: weight of the distance to its alphas.
        ranking: weight of the ranking of a task's architectures, if it has several.
        seed: seed of the initial weights and of the order of tasks.

    Raises:
        ConfigError: for a number out of range.
    """

    width: int = 64
    embedding: int = 32
    rate: float = 1e-3
    decay: float = 1e-2
    epochs: int = 30
    stop: int = 0
    batch: int = 32
    architecture: float = 1.0
    alphas: float = 1.0
    ranking: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"width": 1, "embedding": 1, "epochs": 1, "stop": 0, "batch": 1, "rate": 1e-9, "decay": 0.0}
        least |= dict.fromkeys(("architecture", "alphas", "ranking"), 0.0)
        faults = [
            f"{name}: expected {low} or more, got {getattr(self, name)}"
            for name, low in least.items()
            if not low <= getattr(self, name) < float("inf")
        ]
        if not self.architecture + self.alphas + self.ranking > 0:
            faults.append("architecture, alphas, ranking: expected at least one above 0")
        if faults:
            raise ConfigError("meta-model: " + "; ".join(faults))

    @property
    def length(self) -> int:
        """Number of epochs to run."""
        return min(self.stop or self.epochs, self.epochs)


@dataclass(frozen=True)
class Scores:
    """Means over tasks; each says nothing more than all tasks together at its value there, lower is better.

    Args:
        architecture: cross-entropy to the best architecture, nats per choice.
        alphas: squared distance of alphas in standardised units.
        ranking: loss of pairs of a task's architectures; None without such pairs.
        loss: their weighted sum.
    """

    architecture: float
    alphas: float
    ranking: float | None
    loss: float


class MetaModel:
    """Encoder and head; see `fit` and `predict`. Mutable: fitting changes it.

    Args:
        space: of the architectures.
        extractor: computes the features of images.
        spec: its settings.
    """

    def __init__(self, space: SearchSpace, extractor: FeatureExtractor, spec: PredictorSpec | None = None) -> None:
        self.space, self.extractor, self.spec = space, extractor, spec or PredictorSpec()
        key = Key.from_seed(self.spec.seed).child("metamodel")
        self.encoder = TaskEncoder(extractor.features, self.spec.width, self.spec.embedding, key.child("encoder"))
        self.head = ArchitectureHead(space, self.spec.embedding)
        self.fitted = 0
        """Tasks that it was fitted on; 0 before."""

    @property
    def modules(self) -> nn.ModuleDict:
        """All modules with parameters: encoder and head."""
        return nn.ModuleDict({"encoder": self.encoder, "head": self.head})

    def fit(
        self,
        archive: Iterable[TaskRecord],
        support: Support,
        progress: Watch | None = None,
        told: Watch | None = None,
    ) -> MetaModel:
        """Learn from records: theta <- theta - rate * grad of the mean loss over their tasks.

        Args:
            archive: records of one space; a task may have several.
            support: rebuilds the support sets of origins, see `Rebuilder`.
            progress: reports the tasks read.
            told: reports the epochs done and the mean training loss.

        Returns:
            Itself.

        Raises:
            DataError: without records, or with some of another space.
            NumericsError: when the loss is not finite.
        """
        return self.learn(meta_datasets(archive, support, self.extractor, self.space, progress), told)

    def learn(self, datasets: Sequence[MetaDataset], told: Watch | None = None) -> MetaModel:
        """`fit` on existing datasets."""
        for _ in self.epochs(datasets, told):
            pass
        return self

    def epochs(self, datasets: Sequence[MetaDataset], told: Watch | None = None) -> Iterator[int]:
        """Learn, and yield the number of each epoch after it, from 1 on. Raises as `fit`."""
        self._centre(datasets)
        key = Key.from_seed(self.spec.seed).child("metamodel", "order")
        parameters = list(self.modules.parameters())
        optimiser = torch.optim.AdamW(parameters, self.spec.rate, weight_decay=self.spec.decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.spec.epochs)
        for epoch in range(self.spec.length):
            total = count = 0.0
            for part in _batches(datasets, self.spec.batch, key.child(epoch)):
                optimiser.zero_grad(set_to_none=True)
                loss = self._losses(part)[-1]
                loss.backward()
                optimiser.step()
                total, count = total + float(loss.detach()) * len(part), count + len(part)
            schedule.step()
            if not total < float("inf"):
                raise NumericsError(f"the meta-model's loss is not finite after epoch {epoch + 1}: lower its rate")
            self.fitted = int(count)
            tell(told, epoch + 1, self.spec.length, total / count, f"loss {total / count:.4f}")
            yield epoch + 1

    def _centre(self, datasets: Sequence[MetaDataset]) -> None:
        if not datasets:
            raise DataError("expected datasets to learn from, got none")
        self.encoder.standardise([each.seen for each in datasets])
        alphas = {cell: torch.cat([each.alphas[cell] for each in datasets]) for cell in self.space.cell_types}
        genotypes = [each.best for each in datasets]
        self.head.centre(alphas, genotypes)

    def _losses(self, dataset: MetaDataset) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        prediction, spec = self._forward(dataset.seen), self.spec
        architecture = architecture_loss(prediction, dataset).mean()
        said, target = self.head.standardised(prediction.alphas), self.head.standardised(dataset.alphas)
        alphas = alphas_loss(said, target).mean()
        ranking = ranking_loss(prediction, dataset)
        total = spec.architecture * architecture + spec.alphas * alphas
        return architecture, alphas, ranking, total if ranking is None else total + spec.ranking * ranking

    def _forward(self, seen: Seen) -> Prediction:
        prediction: Prediction = self.head(self.encoder(seen))
        return prediction

    def scores(self, datasets: Sequence[MetaDataset]) -> Scores:
        """Its scores on ``datasets``, without learning from them."""
        found, sizes = [], []
        with torch.no_grad():
            for part in _batches(datasets, self.spec.batch, None):
                found.append(self._losses(part))
                sizes.append(len(part))
        means = [
            None if None in values else sum(float(v) * n for v, n in zip(values, sizes, strict=True)) / sum(sizes)
            for values in zip(*found, strict=True)
        ]
        architecture, alphas, ranking, loss = means
        return Scores(architecture or 0.0, alphas or 0.0, ranking, loss or 0.0)

    def predict(self, batch: TaskBatch) -> Prediction:
        """Its predictions for T tasks from their support sets only; queries are not used.

        Raises:
            ConfigError: when it was never fitted.
        """
        self._require_fitted()
        return self.predict_seen(seen_of(batch, self.extractor))

    def predict_seen(self, seen: Seen) -> Prediction:
        """`predict` for tasks with existing features."""
        with torch.no_grad():
            return self._forward(seen)

    def rank(self, batch: TaskBatch, candidates: Sequence[Genotype]) -> Tensor:
        """Scores [T, M] of candidate architectures for each of T tasks, higher for more likely ones, without an
        adaptation step.

        Raises:
            ConfigError: when it was never fitted.
            GenotypeError: for a candidate of another space.
        """
        prediction = self.predict(batch)
        rows = [task for task in range(batch.tasks) for _ in candidates]
        chosen = choices_of(list(candidates) * batch.tasks, self.space, rows)
        return prediction.log_likelihood(chosen).view(batch.tasks, len(candidates))

    def with_spec(self, **changes: object) -> MetaModel:
        """A new, unfitted model with the same space and extractor."""
        return MetaModel(self.space, self.extractor, dataclasses.replace(self.spec, **changes))  # type: ignore[arg-type]

    def _require_fitted(self) -> None:
        if not self.fitted:
            raise ConfigError("this meta-model has learnt from nothing yet: fit it on an archive first")


def _batches(datasets: Sequence[MetaDataset], size: int, key: Key | None) -> Iterator[MetaDataset]:
    """Parts of at most ``size`` tasks of one kind; in random order where there is a key."""
    parts: list[tuple[MetaDataset, Tensor]] = []
    for number, each in enumerate(datasets):
        rows = torch.arange(len(each)) if key is None else torch.from_numpy(key.child(number).permutation(len(each)))
        parts += [(each, part) for part in rows.split(size)]
    order = range(len(parts)) if key is None else key.child("parts").permutation(len(parts)).tolist()
    for at in order:
        each, rows = parts[at]
        yield each.take(rows)
