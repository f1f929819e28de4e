"""Tasks that learn2learn draws, as the `Episodes` that our loops ask for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from metadarts.core.errors import DataError, nearest
from metadarts.core.rng import Key
from metadarts.core.types import TaskBatch
from metadarts.tasks import RawBatch, finish

from .randomness import seeded_globals
from .rebuild import rebuilt

PROBES = 4
"""Episodes of every split that enter `Tasksets.content_sha256`."""


@dataclass(frozen=True, eq=False)
class TasksetEpisodes:
    """Few-shot tasks from one taskset. Task i depends only on ``key.child(i)``; no global generator changes.

    Args:
        name: readable name of the data and the split, for messages.
        taskset: a learn2learn Taskset of ``ways`` classes with ``shots + queries`` images each, see `rebuilt`.
        ways: classes per task.
        shots: support images per class.
        queries: query images per class.
    """

    name: str
    taskset: Any
    ways: int
    shots: int
    queries: int

    def sample(self, key: Key, tasks: int, first: int = 0) -> TaskBatch:
        """Tasks ``first`` to ``first + tasks``: supports [T, ways * shots, C, H, W], queries [T, ways * queries, ...].

        Images are float32, with the values that the taskset's transforms give, class by class. No row is padding.

        Raises:
            DataError: when ``tasks`` is below 1, or the taskset returns something other than requested.
        """
        return finish(self.raw(key, tasks, first))

    def raw(self, key: Key, tasks: int, first: int = 0) -> RawBatch:
        """The same tasks; their images are already finished. Raises the errors of `sample`."""
        if tasks < 1:
            raise DataError(f"tasks must be at least 1, given {tasks}")
        images = torch.stack([self._task(key.child(first + task)) for task in range(tasks)])
        support, query = images[:, :, : self.shots].flatten(1, 2), images[:, :, self.shots :].flatten(1, 2)
        return RawBatch(
            support, *_labels_and_mask(tasks, self.ways, self.shots),
            query, *_labels_and_mask(tasks, self.ways, self.queries), self.ways, ragged=False,
        )  # fmt: skip

    def sha256(self, key: Key, tasks: int) -> str:
        """Hex digest of the pixels of the first ``tasks`` tasks: equal digests, equal episodes. It draws them all."""
        digest = hashlib.sha256(f"metadarts taskset episodes {self.ways} {self.shots} {self.queries}".encode())
        for task in range(tasks):
            images = self._task(key.child(task))
            digest.update(repr(tuple(images.shape)).encode() + images.numpy().tobytes())
        return digest.hexdigest()

    def _task(self, key: Key) -> Tensor:
        """[ways, shots + queries, C, H, W], by label; within a class in the order drawn, which is random."""
        with seeded_globals(key):
            images, labels = self.taskset.sample()
        count = self.shots + self.queries
        counts = torch.bincount(labels, minlength=self.ways).tolist()
        if counts != [count] * self.ways:
            raise DataError(
                f"{self.name}: expected {self.ways} classes labelled from 0 on with {count} images each, the taskset "
                f"gave {counts}; its transforms need NWays, KShots, LoadData and RemapLabels"
            )
        if images.dim() != 4 or not images.is_floating_point():
            raise DataError(
                f"{self.name}: expected float images [C, H, W], given {str(images.dtype).removeprefix('torch.')} "
                f"{list(images.shape[1:])}; give the data set a transform such as torchvision's ToTensor"
            )
        by_label: Tensor = images[labels.argsort(stable=True)].float()
        return by_label.view(self.ways, count, *images.shape[1:])


def _labels_and_mask(tasks: int, ways: int, count: int) -> tuple[Tensor, Tensor]:
    labels = torch.arange(ways).repeat_interleave(count).repeat(tasks, 1)
    return labels, torch.ones_like(labels, dtype=torch.bool)


@dataclass(frozen=True, eq=False)
class Tasksets:
    """A learn2learn taskset for every split, from which episodes of any size can be drawn.

    Args:
        name: short name of the data.
        splits: 'train', 'val', 'test' -> a learn2learn Taskset (or TaskDataset). Only its data set and the types of its
            transforms matter; `episodes` sets ways and images per class.
    """

    name: str
    splits: Mapping[str, Any]
    _made: dict[tuple[str, int, int, int], TasksetEpisodes] = field(default_factory=dict, init=False, repr=False)

    def episodes(self, split: str, ways: int, shots: int, queries: int) -> TasksetEpisodes:
        """Tasks of one split. The same arguments give the same object, because learn2learn takes long to index the
        labels.

        Raises:
            DataError: for an unknown split, or when it has too few classes or images.
        """
        asked = (split, ways, shots, queries)
        if asked not in self._made:
            self._check(*asked)
            taskset = rebuilt(self.splits[split], ways, shots + queries)
            self._made[asked] = TasksetEpisodes(f"{self.name}, split {split!r}", taskset, ways, shots, queries)
        return self._made[asked]

    @cached_property
    def channels(self) -> int:
        """Channels of an image."""
        return int(self._probe(next(iter(self.splits)), 1).support_images.shape[2])

    @cached_property
    def content_sha256(self) -> str:
        """Hex digest of the name, of the class sizes of all splits, and of the pixels of a few episodes of each.

        The episodes' keys are fixed, so the digest distinguishes data sets, splits, orders of files and transforms. It
        does not detect a difference in an image that none of these episodes drew; `TasksetEpisodes.sha256` reads every
        pixel that is used.
        """
        digest = hashlib.sha256(f"metadarts tasksets {self.name}".encode())
        for split in sorted(self.splits):
            digest.update(f"split {split} {self._sizes(split)}".encode())
            probe = self._probe(split, PROBES)
            for images in (probe.support_images, probe.query_images):
                digest.update(repr(tuple(images.shape)).encode() + images.numpy().tobytes())
        return digest.hexdigest()

    def _probe(self, split: str, tasks: int) -> TaskBatch:
        sizes = self._sizes(split)
        episodes = self.episodes(split, min(5, len(sizes)), 1, min(5, min(sizes, default=0) - 1))
        return episodes.sample(Key(("learn2learn", "probe", split)), tasks)

    def _sizes(self, split: str) -> list[int]:
        """Images per class."""
        indices = self.splits[split].dataset.labels_to_indices
        return [len(indices[label]) for label in self.splits[split].dataset.labels]

    def _check(self, split: str, ways: int, shots: int, queries: int) -> None:
        if split not in self.splits:
            raise DataError(f"{self.name}: unknown split {split!r}; {nearest(split, self.splits)}")
        for field_name, value in (("ways", ways), ("shots", shots), ("queries", queries)):
            if not isinstance(value, int) or value < 1:
                raise DataError(f"{self.name}: {field_name} must be one whole number, at least 1, given {value}")
        sizes = self._sizes(split)
        if ways > len(sizes) or shots + queries > min(sizes):
            raise DataError(
                f"{self.name}, split {split!r}: {ways}-way tasks of {shots} shots and {queries} queries need as many "
                f"classes of {shots + queries} images, it has {len(sizes)} of at least {min(sizes, default=0)}; "
                "lower ways, shots or queries"
            )
