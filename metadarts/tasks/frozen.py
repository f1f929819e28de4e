"""Test episodes as a file: chosen once, identified by a hash, the same for every method; an edited file is rejected.

Line 1 is JSON with the source of the episodes and their hash; each further line is one task: its class numbers, and per
class the image rows of its support and query images. Rows are numbers into the source, so the file is small and holds
no pixels; the hash covers the source's content too (`episodes_sha256`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from metadarts.core.errors import DataError
from metadarts.core.rng import Key
from metadarts.core.types import TaskBatch
from metadarts.store.fields import Digest, Text
from metadarts.store.files import write_atomically
from metadarts.store.schema import Schema, content
from metadarts.tasks.sampler import EpisodePlan, EpisodeSampler, episodes_sha256

FORMAT, VERSION = "metadarts.episodes", 1
LONGEST = 1_000_000
"""Bytes that a line may have; a 20-way task of 20 images a class has some 3,000."""

MOST_BYTES = 2**28
Row = Annotated[int, Meta(ge=-1, le=2**62)]


@dataclass(frozen=True, eq=False)
class FrozenEpisodes:
    """A fixed list of tasks.

    Args:
        sampler: whose source, split and numbers they have.
        plan: the T tasks.
        sha256: their hash, see `episodes_sha256`.
    """

    sampler: EpisodeSampler
    plan: EpisodePlan
    sha256: str

    @property
    def tasks(self) -> int:
        return self.plan.tasks

    def batch(self, first: int, last: int) -> TaskBatch:
        """Tasks ``first`` to ``last`` (exclusive)."""
        plan = self.plan
        return self.sampler.load(
            EpisodePlan(plan.classes[first:last], plan.support_rows[first:last], plan.query_rows[first:last])
        )


def freeze(path: Path, sampler: EpisodeSampler, key: Key, tasks: int) -> FrozenEpisodes:
    """The episodes in ``path``; if there is no such file, the first ``tasks`` of ``key`` are drawn and written.

    Raises:
        DataError: when the file does not match its hash, belongs to other data or numbers, or cannot be read.
        RunError: when it cannot be written.
    """
    if not path.exists():
        plan = sampler.plan(key, tasks)
        write_atomically(path, "".join(f"{json.dumps(line)}\n" for line in _lines(plan, sampler)).encode())
    return thaw(path, sampler, tasks)


@dataclass(frozen=True)
class Header:
    """The first line of the file: whose episodes follow, and what they hash to."""

    source: Text
    content_sha256: Text
    split: Text
    ways: int
    shots: int
    queries: int
    tasks: int
    sha256: Digest


@dataclass(frozen=True)
class Episode:
    """Each further line: N class numbers, and for each class its support and query rows, numbers into the source."""

    classes: tuple[Row, ...]
    support: tuple[tuple[Row, ...], ...]
    query: tuple[tuple[Row, ...], ...]


ADVICE = "restore the file, or remove it to draw the episodes anew"
HEADER = Schema(Header, DataError, ADVICE, (FORMAT, VERSION), LONGEST)
EPISODE = Schema(Episode, DataError, ADVICE, limit=LONGEST)


def thaw(path: Path, sampler: EpisodeSampler, tasks: int) -> FrozenEpisodes:
    """Read what `freeze` wrote: ``tasks`` episodes of ``sampler``. Raises DataError."""
    with HEADER.refusing(str(path)):
        first, *lines = content(path, MOST_BYTES).splitlines()[: tasks + 2] or [b""]
    told = HEADER.read(first, f"{path}, line 1")
    expected = _header(sampler, tasks)
    if odd := [name for name in expected if getattr(told, name) != expected[name]]:
        raise DataError(
            f"{path} holds other episodes: {odd[0]} is {str(getattr(told, odd[0]))[:80]!r}, expected "
            f"{str(expected[odd[0]])[:80]!r}; give another folder, or the data they were drawn from"
        )
    plan = _plan(path, [EPISODE.read(line, f"{path}, line {place}") for place, line in enumerate(lines, 2)])
    _require_fit(path, plan, sampler, tasks)
    found = episodes_sha256(plan, sampler.source)
    if found != told.sha256:
        raise DataError(
            f"{path} was changed: its episodes hash to {found[:12]}…, its first line says {told.sha256[:12]}…; {ADVICE}"
        )
    return FrozenEpisodes(sampler, plan, found)


def _lines(plan: EpisodePlan, sampler: EpisodeSampler) -> list[dict[str, Any]]:
    digest = episodes_sha256(plan, sampler.source)
    tasks = zip(plan.classes.tolist(), plan.support_rows.tolist(), plan.query_rows.tolist(), strict=True)
    return [
        {"format": FORMAT, "version": VERSION} | _header(sampler, plan.tasks) | {"sha256": digest},
        *({"classes": classes, "support": support, "query": query} for classes, support, query in tasks),
    ]


def _header(sampler: EpisodeSampler, tasks: int) -> dict[str, Any]:
    return {
        "source": sampler.source.name,
        "content_sha256": sampler.source.content_sha256,
        "split": sampler.split,
        "ways": sampler.ways,
        "shots": sampler.shots,
        "queries": sampler.queries,
        "tasks": tasks,
    }


def _plan(path: Path, episodes: list[Episode]) -> EpisodePlan:
    """Raises DataError where the tasks are not all of one size."""
    with EPISODE.refusing(str(path)):
        lists = [[getattr(episode, name) for episode in episodes] for name in ("classes", "support", "query")]
        return EpisodePlan(*(np.array(numbers, np.int64) for numbers in lists))


def _require_fit(path: Path, plan: EpisodePlan, sampler: EpisodeSampler, tasks: int) -> None:
    """Require the shapes that ``sampler`` would give, and rows that the classes have."""
    shapes = [array.shape for array in (plan.classes, plan.support_rows, plan.query_rows)]
    shape = (tasks, sampler.ways)
    expected = [shape, (*shape, sampler.shots), (*shape, sampler.queries)]
    if shapes != expected:
        raise DataError(f"{path} was changed: expected arrays of the shapes {expected}, found {shapes}; restore it")
    classes, allowed = sampler.source.classes, set(sampler.source.class_numbers(sampler.split))
    if not set(plan.classes.ravel().tolist()) <= allowed:
        raise DataError(f"{path} was changed: it names a class that split {sampler.split!r} does not have; restore it")
    for task, way in np.ndindex(shape):
        rows = np.concatenate([plan.support_rows[task, way], plan.query_rows[task, way]])
        if len(np.unique(rows)) < len(rows) or not np.isin(rows, classes[plan.classes[task, way]].rows).all():
            raise DataError(f"{path} was changed: task {task} has an image twice or of another class; restore it")
