"""Episodes as origins, and back: a task of an archive is rebuilt from its stored image rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from metadarts.core.errors import DataError
from metadarts.core.types import TaskBatch
from metadarts.store.schema import Schema
from metadarts.tasks import EpisodePlan, EpisodeSampler, Source
from metadarts.tasks.sampler import PADDING

from .task_record import EPISODE, Origin

Name = Annotated[str, Meta(min_length=1)]
ClassNumber = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Row = Annotated[int, Meta(ge=PADDING, le=2**63 - 1)]
Rows = Annotated[tuple[Row, ...], Meta(min_length=1)]


@dataclass(frozen=True)
class EpisodeFacts:
    """The facts of an origin of kind `EPISODE` in JSON, see `Episode`."""

    source: Name
    content_sha256: Name
    split: Name
    classes: Annotated[tuple[ClassNumber, ...], Meta(min_length=1)]
    support: tuple[Rows, ...]
    query: tuple[Annotated[tuple[ClassNumber, ...], Meta(min_length=1)], ...]


def _check(told: EpisodeFacts) -> None:
    ways = len(told.classes)
    if not len(set(told.classes)) == len(told.support) == len(told.query) == ways:
        raise ValueError(
            f"expected distinct classes and the rows of each, got {ways} classes, {len(told.support)} lists of support "
            f"and {len(told.query)} of query rows"
        )
    if any(len({len(rows) for rows in side}) > 1 for side in (told.support, told.query)):
        raise ValueError("support, query: expected equally many rows of each class")


FACTS = Schema(EpisodeFacts, DataError, check=_check)


@dataclass(frozen=True, eq=False)
class Episode:
    """What an origin of kind `EPISODE` says.

    Args:
        source: the source's name.
        content_sha256: of its content, see `Source.content_sha256`.
        split: "train", "val" or "test".
        classes: [N] class numbers; a class's position is its label.
        support: [N, K] image rows, `PADDING` where a class has fewer shots.
        query: [N, Q] image rows.
    """

    source: str
    content_sha256: str
    split: str
    classes: NDArray[np.int64]
    support: NDArray[np.int64]
    query: NDArray[np.int64]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(ways, shots, queries)."""
        return len(self.classes), self.support.shape[1], self.query.shape[1]


def episode_origins(sampler: EpisodeSampler, plan: EpisodePlan) -> list[Origin]:
    """One origin for each of the T tasks that ``sampler`` chose as ``plan``."""
    known = {
        "source": sampler.source.name,
        "content_sha256": sampler.source.content_sha256,
        "split": sampler.split,
    }
    tasks = zip(plan.classes.tolist(), plan.support_rows.tolist(), plan.query_rows.tolist(), strict=True)
    return [
        Origin(EPISODE, {**known, "classes": classes, "support": support, "query": query})
        for classes, support, query in tasks
    ]


def read_episode(origin: Origin) -> Episode:
    """What ``origin`` says, its form checked. Raises DataError when it is of another kind or form."""
    if origin.kind != EPISODE:
        raise DataError(f"expected the origin of an {EPISODE}, got one of kind {origin.kind!r}: give tasks of a source")
    told = FACTS.convert(dict(origin.facts), "an episode's facts")
    classes, support, query = (np.array(rows, np.int64) for rows in (told.classes, told.support, told.query))
    return Episode(told.source, told.content_sha256, told.split, classes, support, query)


def rebuild(origins: Sequence[Origin], source: Source) -> TaskBatch:
    """The tasks of ``origins``, task axis first, with exactly the recorded images and labels.

    Args:
        origins: of kind `EPISODE`, at least one, all with as many classes, shots and queries.
        source: the source that they were drawn from, opened in the same way.

    Raises:
        DataError: for an origin of another kind, other data, or other numbers than the first one's.
    """
    if not origins:
        raise DataError("expected at least one origin to build a task from, got none")
    episodes = [read_episode(origin) for origin in origins]
    sizes = {episode.sizes for episode in episodes}
    if len(sizes) > 1:
        raise DataError(
            f"expected tasks of as many classes, shots and queries, got {sorted(sizes)}: give those of one size at once"
        )
    for episode in episodes:
        require_rows(episode, source)
    plan = EpisodePlan(
        np.stack([episode.classes for episode in episodes]),
        np.stack([episode.support for episode in episodes]),
        np.stack([episode.query for episode in episodes]),
    )
    return EpisodeSampler(source, episodes[0].split, *episodes[0].sizes).load(plan)


def require_rows(episode: Episode, source: Source) -> None:
    """Require that ``source`` is the episode's own, and has its classes in its split and its rows in its classes.

    Raises:
        DataError: naming the first difference.
    """
    if episode.source != source.name:
        raise DataError(f"the task is of {episode.source!r}, the data given are {source.name!r}: open {episode.source}")
    if episode.content_sha256 != source.content_sha256:
        raise DataError(
            f"{source.name}: the task's data hash to {episode.content_sha256[:12]}…, those given to "
            f"{source.content_sha256[:12]}…: open the data it was recorded on, with the same size and channels"
        )
    allowed = set(source.class_numbers(episode.split))
    if odd := [number for number in episode.classes.tolist() if number not in allowed]:
        raise DataError(f"{source.name}: split {episode.split!r} has no class {odd[0]}; the record was changed")
    for number, rows in _rows_of_classes(episode):
        entry = source.classes[number]
        if len(np.unique(rows)) < len(rows) or not np.isin(rows, entry.rows).all():
            raise DataError(
                f"{source.name}: a task has an image of class {entry.name!r} twice, or one that is not of it; the "
                "record was changed"
            )


def _rows_of_classes(episode: Episode) -> Iterator[tuple[int, NDArray[np.int64]]]:
    for place, number in enumerate(episode.classes.tolist()):
        rows = np.concatenate([episode.support[place], episode.query[place]])
        yield number, rows[rows != PADDING]


class Rebuilder:
    """Rebuilds tasks of several sources; the source of each task is found by the hash of its content.

    Args:
        sources: opened as they were when the tasks were recorded.
    """

    def __init__(self, *sources: Source) -> None:
        self._sources = {source.content_sha256: source for source in sources}

    def __call__(self, origins: Sequence[Origin]) -> TaskBatch:
        """The tasks of ``origins``, see `rebuild`; all of one source. Raises DataError."""
        episode = read_episode(origins[0]) if origins else None
        if episode is None:
            raise DataError("expected at least one origin to build a task from, got none")
        if episode.content_sha256 not in self._sources:
            known = ", ".join(f"{s.name} ({digest[:12]}…)" for digest, s in self._sources.items()) or "none"
            raise DataError(
                f"a task is of {episode.source} ({episode.content_sha256[:12]}…), opened are {known}: open the data "
                "that it was recorded on, with the same size and channels"
            )
        return rebuild(origins, self._sources[episode.content_sha256])
