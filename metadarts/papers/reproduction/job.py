"""The request of a reproduction, and its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from metadarts.core.progress import Progress
from metadarts.spaces import Genotype
from metadarts.tasks import Source
from metadarts.tasks.frozen import FrozenEpisodes
from metadarts.training import RunFolder

from .plans import RowPlan
from .results_cache import Measured
from .tables import TableSpec


class Stopped(Exception):
    """The work stopped on request; the same call resumes it."""


class NotYet(Exception):
    """Not measured yet, and nothing is to be measured now."""


@dataclass(frozen=True)
class Job:
    """The request for one table.

    Args:
        spec: which.
        budget: "smoke", "hour" or "full".
        split: of its splits.
        source: its data, open.
        place: where they lie, for the run folders' config.yaml; empty for their usual place.
        out: the folder.
        seeds: of the trainings.
        shots: settings to measure.
        device: "cpu" or "cuda".
        tell: reports the current work and its progress.
        stop: polled; when it returns True, `Stopped` is raised.
        so_far: train and measure nothing; use the existing results, even while another process is working.
        rows: names of the rows to measure; empty for all.
    """

    spec: TableSpec
    budget: str
    split: str
    source: Source
    place: str
    out: Path
    seeds: tuple[int, ...]
    shots: tuple[int, ...]
    device: str
    tell: Callable[[str, Progress], None]
    stop: Callable[[], bool]
    so_far: bool = False
    rows: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Finding:
    """One row of one seed.

    Args:
        row, shots, seed: which.
        measured: what it came to.
        steps: meta-updates of its training.
        runs: every training behind it, the one that was measured first; none for a row of pixels.
        cells: the discrete cells that answer queries, with how many tasks each; empty where none do.
        covers: how many tasks have their own cell among those trained, in words; empty where that is no question.
    """

    row: RowPlan
    shots: int
    seed: int
    measured: Measured
    steps: int = 0
    runs: tuple[RunFolder, ...] = ()
    cells: tuple[tuple[Genotype, int], ...] = ()
    covers: str = ""


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything a table is made of.

    Args:
        episodes: shots -> the frozen episodes.
        found: all rows of all seeds, in the order of the table.
        missing: what is not there yet, where only what is there was asked for.
    """

    episodes: dict[int, FrozenEpisodes]
    found: tuple[Finding, ...]
    missing: tuple[str, ...] = ()
