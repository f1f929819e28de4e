"""Episodes: the classes and images of a task. Sampling (`plan`) is separate from reading the pixels (`load`)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from metadarts.core.errors import DataError, nearest
from metadarts.core.rng import Key
from metadarts.core.types import TaskBatch
from metadarts.tasks.raw import RawBatch, finish
from metadarts.tasks.source import Rows, Source

PADDING = -1
"""Row number that stands for "no image": a class with fewer shots than the most a class may have is filled with it."""


class Episodes(Protocol):
    """The interface of task samplers for training: `EpisodeSampler`, or an adapter for another library's tasks."""

    @property
    def ways(self) -> int: ...

    @property
    def queries(self) -> int: ...

    def sample(self, key: Key, tasks: int, first: int = 0) -> TaskBatch:
        """Tasks ``first`` to ``first + tasks``; task i depends only on ``key.child(i)``. Equals `finish` of `raw`."""
        ...

    def raw(self, key: Key, tasks: int, first: int = 0) -> RawBatch:
        """The same tasks before the work that a GPU may do. May be called from any thread."""
        ...

    def sha256(self, key: Key, tasks: int) -> str:
        """Hex digest of the first ``tasks`` tasks: equal digests, equal episodes."""
        ...


@dataclass(frozen=True, eq=False)
class EpisodePlan:
    """The choices that define T tasks; no pixels.

    Args:
        classes: [T, N] int64 class numbers of the source; a class's position is its label in the task.
        support_rows: [T, N, K] int64 image rows; `PADDING` where a class has fewer than K shots.
        query_rows: [T, N, Q] int64 image rows.
    """

    classes: NDArray[np.int64]
    support_rows: NDArray[np.int64]
    query_rows: NDArray[np.int64]

    @property
    def tasks(self) -> int:
        return len(self.classes)

    def domains(self, source: Source) -> list[str]:
        """The domain of each task in ``source``."""
        return [source.classes[number].domain for number in self.classes[:, 0].tolist()]


@dataclass(frozen=True)
class EpisodeSampler:
    """Draws few-shot tasks from one split of a source; pure in its key, on every machine and numpy version.

    Args:
        source: where images and classes come from.
        split: 'train', 'val' or 'test'.
        ways: classes per task.
        shots: support images per class, or (low, high) to draw a count from low..high for every class of every task;
            supports are then padded to ``high`` per class and masked.
        queries: query images per class.
        domain: draw tasks of this domain only; None to draw each task's domain, all with equal probability.

    Raises DataError on construction when any class of the split is too small, so that no error occurs during a run.
    """

    source: Source
    split: str
    ways: int
    shots: int | tuple[int, int]
    queries: int
    domain: str | None = None

    def __post_init__(self) -> None:
        low, high = self._shot_range
        for field, value in (("ways", self.ways), ("shots", low), ("queries", self.queries)):
            if value < 1:
                raise DataError(f"{field} must be at least 1, given {value}")
        if high < low:
            raise DataError(f"shots must be (low, high) with low <= high, given ({low}, {high})")
        where = f"{self.source.name}, split {self.split!r}"
        if not self._classes_of:
            known = tuple(self.source.domain_classes(self.split))
            hint = nearest(self.domain, known) if self.domain is not None and known else "it has no classes"
            raise DataError(f"{where}: no classes of domain {self.domain!r}; {hint}")
        for domain, numbers in self._classes_of.items():
            if self.ways > len(numbers):
                of = f", domain {domain!r}" if domain else ""
                raise DataError(
                    f"{where}{of}: {self.ways}-way tasks need as many classes, it has {len(numbers)}; lower ways"
                )
        every = (self.source.classes[number] for numbers in self._classes_of.values() for number in numbers)
        smallest = min(every, key=lambda entry: len(entry.rows))
        if len(smallest.rows) < high + self.queries:
            raise DataError(
                f"{where}: class {smallest.name!r} has {len(smallest.rows)} images, but {high} shots and "
                f"{self.queries} queries need {high + self.queries}; lower shots or queries"
            )

    @cached_property
    def _classes_of(self) -> dict[str, tuple[int, ...]]:
        """domain -> the class numbers that its tasks are drawn from."""
        found = self.source.domain_classes(self.split)
        return found if self.domain is None else {name: found[name] for name in found if name == self.domain}

    @property
    def _shot_range(self) -> tuple[int, int]:
        return (self.shots, self.shots) if isinstance(self.shots, int) else self.shots

    def sample(self, key: Key, tasks: int, first: int = 0) -> TaskBatch:
        """``tasks`` episodes, class by class: supports [T, ways * shots, C, H, W], queries [T, ways * queries, ...].

        Task i depends on ``key.child(first + i)`` only, so a batch of k tasks is the start of any longer batch.
        """
        return self.load(self.plan(key, tasks, first))

    def raw(self, key: Key, tasks: int, first: int = 0) -> RawBatch:
        """The images of ``sample(key, ...)`` as the source stores them."""
        return self.read(self.plan(key, tasks, first))

    def sha256(self, key: Key, tasks: int) -> str:
        """Hex digest of the first ``tasks`` episodes, see `episodes_sha256`."""
        return episodes_sha256(self.plan(key, tasks), self.source)

    def plan(self, key: Key, tasks: int, first: int = 0) -> EpisodePlan:
        """The choices behind ``sample(key, ...)``, for ``tasks`` episodes from number ``first`` on.

        Raises DataError when ``tasks`` is below 1.
        """
        if tasks < 1:
            raise DataError(f"tasks must be at least 1, given {tasks}")
        classes = np.stack([self._classes(key.child(first + task)) for task in range(tasks)])
        shape = (tasks, self.ways)
        support = np.full((*shape, self._shot_range[1]), PADDING, dtype=np.int64)
        query = np.empty((*shape, self.queries), dtype=np.int64)
        for task, way in np.ndindex(shape):
            below = key.child(first + task, "way", way)
            count = self._shot_count(below)
            support[task, way, :count], query[task, way] = self._rows(below, int(classes[task, way]), count)
        return EpisodePlan(classes, support, query)

    def load(self, plan: EpisodePlan) -> TaskBatch:
        """Read the images of a plan: float32 in [0, 1], or normalised where the source has a mean; padding is 0."""
        return finish(self.read(plan))

    def read(self, plan: EpisodePlan) -> RawBatch:
        """Read the images of a plan, as the source stores them."""
        source = self.source
        support, support_labels, support_mask = self._read(plan.support_rows)
        query, query_labels, query_mask = self._read(plan.query_rows)
        support_turns = query_turns = None
        if any(entry.quarter_turns for entry in source.classes):
            turns = np.array([entry.quarter_turns for entry in source.classes], dtype=np.uint8)[plan.classes]
            support_turns, query_turns = (
                torch.from_numpy(turns.repeat(rows.shape[2], axis=1)) for rows in (plan.support_rows, plan.query_rows)
            )
        mean, std = (None if v is None else torch.tensor(v, dtype=torch.float32) for v in (source.mean, source.std))
        domain = None
        if len(source.domains) > 1:
            domain = torch.tensor([source.domains.index(name) for name in plan.domains(source)])
        return RawBatch(
            support, support_labels, support_mask, query, query_labels, query_mask, self.ways,
            ragged=bool((plan.support_rows == PADDING).any()), support_turns=support_turns, query_turns=query_turns,
            mean=mean, std=std, domain=domain,
        )  # fmt: skip

    def _classes(self, key: Key) -> NDArray[np.int64]:
        domains = tuple(self._classes_of)
        place = int(key.child("domain").choose(len(domains), 1)[0]) if len(domains) > 1 else 0
        numbers = np.array(self._classes_of[domains[place]], dtype=np.int64)
        chosen: NDArray[np.int64] = numbers[key.child("classes").choose(len(numbers), self.ways)]
        return chosen

    def _shot_count(self, key: Key) -> int:
        low, high = self._shot_range
        return low + int(key.child("shots").choose(high - low + 1, 1)[0])

    def _rows(self, key: Key, number: int, shots: int) -> tuple[Rows, Rows]:
        rows = self.source.classes[number].rows
        rows = rows[key.child("rows").permutation(len(rows))]
        if self.source.variety is None:
            return rows[:shots], rows[shots : shots + self.queries]
        return split_by_variety(rows, self.source.variety[rows], shots, self.queries)

    def _read(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """rows [T, N, K] -> pixels [T, N * K, C, H, W], labels [T, N * K], mask [T, N * K]."""
        tasks, ways, count = rows.shape
        rows = rows.reshape(tasks, -1)
        mask = torch.from_numpy(rows != PADDING)
        labels = torch.arange(ways).repeat_interleave(count).expand(tasks, -1)
        return torch.from_numpy(self.source.images[rows]), labels * mask, mask  # padding reads the last image


def _variety_orders(kinds: NDArray[np.int64]) -> Iterator[list[tuple[int, int]]]:
    sizes = list(Counter(kinds.tolist()).items())  # in order of first appearance, which is random
    yield sizes
    yield sorted(sizes, key=lambda item: item[1])
    yield sorted(sizes, key=lambda item: -item[1])


def split_by_variety(rows: Rows, kinds: NDArray[np.int64], shots: int, queries: int) -> tuple[Rows, Rows]:
    """Support and query rows of one class, from different varieties where that can be.

    The rule: whole varieties go to the support side until it holds ``shots`` images; the query side is the rest. The
    varieties are taken in random order; if the rest is too small, the smallest first; then the largest first. If that
    fails too, or there is one variety only, the images are merely distinct.

    Args:
        rows: [R] image rows in random order, at least ``shots + queries`` of them.
        kinds: [R] the variety of each.
    """
    for order in _variety_orders(kinds):
        side: set[int] = set()
        held = 0
        for kind, size in order:
            if held >= shots:
                break
            side.add(kind)
            held += size
        if held >= shots and len(rows) - held >= queries:
            inside = np.array([kind in side for kind in kinds.tolist()])
            return rows[inside][:shots], rows[~inside][:queries]
    return rows[:shots], rows[shots : shots + queries]


def episodes_sha256(plan: EpisodePlan, source: Source) -> str:
    """Hex digest of the chosen classes, rows and labels and of the source's content: equal digests, equal episodes."""
    digest = hashlib.sha256(f"metadarts episodes {source.content_sha256}".encode())
    for array in (plan.classes, plan.support_rows, plan.query_rows):
        digest.update(repr(array.shape).encode() + array.astype("<i8").tobytes())
    return digest.hexdigest()
