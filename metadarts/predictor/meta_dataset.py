"""An archive as tensors: what the meta-model sees of each task, and what it is to say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from metadarts.core.errors import DataError
from metadarts.core.progress import Watch, tell
from metadarts.core.types import TaskBatch
from metadarts.spaces import SearchSpace

from .encoder import Seen, class_moments
from .head import Choices, Tables, choices_of
from .task_record import ADAPTED, Origin, TaskRecord

Support = Callable[[Sequence[Origin]], TaskBatch]
"""The tasks of some origins, all of equal numbers of classes and support images, in their order."""
AT_ONCE = 64
"""Tasks whose images are in memory together."""


class FeatureExtractor(Protocol):
    """How images are seen: `Stem` or `Footprints`."""

    @property
    def in_channels(self) -> int:
        """Of an image."""
        ...

    @property
    def features(self) -> int:
        """F, the numbers that stand for an image."""
        ...

    def describe(self, batch: TaskBatch) -> Tensor:
        """[T, S, F] of the support images."""
        ...


@dataclass(frozen=True, eq=False)
class MetaDataset:
    """N tasks with their best architectures, and all that were tried on them.

    Args:
        seen: the tasks.
        alphas: by cell type [N, E, P] of the best record of each.
        best: their N genotypes as numbers, row i for task i.
        tried: M genotypes of all records as numbers, with the task of each.
        worth: [M] query accuracies after adaptation or training.
        origins: of the N tasks.
    """

    seen: Seen
    alphas: Tables
    best: Choices
    tried: Choices
    worth: Tensor
    origins: tuple[Origin, ...]

    def __len__(self) -> int:
        return len(self.seen)

    def take(self, rows: Tensor) -> MetaDataset:
        """The tasks ``rows`` (distinct), renumbered from 0 on."""
        place = torch.full((len(self),), -1)
        place[rows] = torch.arange(len(rows))
        of = place[self.tried.rows]
        there = (of >= 0).nonzero().flatten()
        return MetaDataset(
            self.seen.take(rows),
            {cell: table[rows] for cell, table in self.alphas.items()},
            self.best.take(rows, torch.arange(len(rows))),
            self.tried.take(there, of[there]),
            self.worth[there],
            tuple(self.origins[row] for row in rows.tolist()),
        )

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Places in ``tried`` (better, worse) of every two architectures of one task of which one was worth more."""
        rows = self.tried.rows
        better, worse = ((rows[:, None] == rows[None]) & (self.worth[:, None] > self.worth[None])).nonzero(
            as_tuple=True
        )
        return better, worse


def meta_datasets(
    records: Iterable[TaskRecord],
    support: Support,
    extractor: FeatureExtractor,
    space: SearchSpace,
    progress: Watch | None = None,
) -> list[MetaDataset]:
    """The datasets of ``records``, one for each size of task.

    The best record of a task is its most accurate one; of equals, the one adapted, then the one given first.

    Args:
        progress: reports the tasks read.

    Raises:
        DataError: without a record, or when one is of another space.
    """
    by_task: dict[str, list[TaskRecord]] = {}
    for each in records:
        if each.space != space:
            raise DataError(
                f"the archive holds records of the space {each.space.name!r} with {each.space.nodes} nodes, "
                f"expected {space.name!r} with {space.nodes}: choose those of one space"
            )
        by_task.setdefault(each.origin.sha256, []).append(each)
    if not by_task:
        raise DataError("the archive holds no record to learn from: add some first (metadarts archive add)")
    groups: dict[tuple[object, ...], list[list[TaskRecord]]] = {}
    for found in by_task.values():
        groups.setdefault(_size(found[0].origin), []).append(found)
    done, datasets = 0, []
    for group in groups.values():
        parts = []
        for first in range(0, len(group), AT_ONCE):
            part = group[first : first + AT_ONCE]
            parts.append(seen_of(support([each[0].origin for each in part]), extractor))
            done += len(part)
            tell(progress, done, len(by_task), figures=f"{done}/{len(by_task)} tasks")
        datasets.append(_meta_dataset(group, Seen.joined(parts), space))
    return datasets


def seen_of(batch: TaskBatch, extractor: FeatureExtractor) -> Seen:
    """What is seen of T tasks: their support sets, no query.

    Raises:
        DataError: for images of other channels than ``extractor`` takes, or tasks of a single class.
    """
    channels = batch.support_images.shape[2]
    if channels != extractor.in_channels:
        raise DataError(
            f"the meta-model sees images of {extractor.in_channels} channels, the tasks have {channels}: give the "
            "start (or the run) whose stem takes them"
        )
    if batch.ways < 2:
        raise DataError("expected tasks of at least 2 classes, which an architecture has to tell apart, got 1")
    with torch.no_grad():
        return class_moments(extractor.describe(batch), batch.support_labels, batch.support_mask, batch.ways)


def _size(origin: Origin) -> tuple[object, ...]:
    """What tasks of one batch have in common: data, classes, images; of tasks that do not say, all are alike."""
    facts = origin.facts
    sides = [facts.get(side) for side in ("support", "query")]
    if not all(isinstance(side, list) and all(isinstance(rows, list) for rows in side) for side in sides):
        return ()
    return facts.get("content_sha256"), *(tuple(map(len, side)) for side in sides if isinstance(side, list))


def _meta_dataset(group: list[list[TaskRecord]], seen: Seen, space: SearchSpace) -> MetaDataset:
    best = [max(found, key=lambda each: (each.after, each.role == ADAPTED)) for found in group]
    tried = [(row, each) for row, found in enumerate(group) for each in found]
    tables = {
        cell: torch.stack([torch.from_numpy(each.alphas[cell].copy()) for each in best]) for cell in space.cell_types
    }
    return MetaDataset(
        seen,
        tables,
        choices_of([each.genotype for each in best], space),
        choices_of([each.genotype for _, each in tried], space, [row for row, _ in tried]),
        torch.tensor([each.after for _, each in tried]),
        tuple(found[0].origin for found in group),
    )
