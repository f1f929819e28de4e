"""What a diagnosis consists of: the nouns, no computation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from metadarts.stats import Estimate


@dataclass(frozen=True)
class Architecture:
    """What the N adapted tasks chose. Distances of cells count choices, those of alphas are total variations.

    Args:
        meta: the genotype of the meta-learned alphas, as text.
        distinct: different genotypes among the adapted tasks.
        commonest: the most frequent of them, as text.
        commonest_count: how many tasks have it.
        choices: of one genotype: the largest distance there can be.
        cells_from_meta: choices in which a task's genotype differs from the meta-genotype.
        cells_between: choices in which the genotypes of two tasks differ, mean over pairs.
        meta_share: largest share of an edge at the meta-learned alphas, mean over edges, 0 to 1.
        adapted_share: the same after adaptation.
        alphas_moved: total variation distance from the meta-learned to the adapted shares, mean over edges, 0 to 1.
        alphas_between: the same between the adapted shares of two tasks, mean over pairs.
        moved_over_between: the ratio of the last two; None where tasks do not differ at all.
    """

    meta: str
    distinct: int
    commonest: str
    commonest_count: int
    choices: int
    cells_from_meta: Estimate
    cells_between: Estimate
    meta_share: float
    adapted_share: Estimate
    alphas_moved: Estimate
    alphas_between: Estimate
    moved_over_between: float | None


@dataclass(frozen=True)
class Contrast:
    """A distance within a task (same classes, other images) against that between tasks.

    Args:
        within: between a task's two adaptations.
        between: between the first adaptation of one task and the second of another, mean over pairs.
        difference: between less within, per task.
    """

    within: Estimate
    between: Estimate
    difference: Estimate


@dataclass(frozen=True)
class Rate:
    """A share of tasks with its 95 % Wilson interval, and what chance alone would give; all from 0 to 1."""

    rate: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True)
class Control:
    """Every task adapted twice, to two support sets of the same classes that share no image.

    Args:
        alphas: total variation distances of the shares.
        cells: numbers of differing choices of the genotypes.
        retrieval: how often the second adaptation points from the meta-learned alphas in the direction of the first of
            the same task rather than of any other.
    """

    alphas: Contrast
    cells: Contrast
    retrieval: Rate


@dataclass(frozen=True)
class Variant:
    """One way to use the checkpoint, on all tasks.

    Args:
        name: as the arrays per task are called.
        meaning: what is done, in a few words.
        accuracy: query accuracy, 0 to 1.
        difference: paired difference from the task's own architecture; None for that itself.
    """

    name: str
    meaning: str
    accuracy: Estimate
    difference: Estimate | None


@dataclass(frozen=True)
class Diagnosis:
    """Whether a run's architectures are the tasks' own, see `diagnose`.

    Args:
        verdict: the answer in one or two sentences.
        facts: what was measured: run, tasks, steps, environment.
        architecture: parts (a) and (b): how much the tasks' choices differ.
        control: part (c): whether they follow the task or the draw of its images.
        soft: part (d): the supernet with its alphas replaced, ``own`` first.
        alphas_swapped: of part (d): another task's alphas less the own ones, both fixed from the first step on.
        discrete: part (e): discrete cells with inherited weights, ``own`` first.
        per_task: lists over all tasks; None where a task has non-finite values and has no architecture.
    """

    verdict: str
    facts: dict[str, Any]
    architecture: Architecture
    control: Control
    soft: tuple[Variant, ...]
    alphas_swapped: Estimate
    discrete: tuple[Variant, ...]
    per_task: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The whole as plain dictionaries, lists, numbers and text."""
        plain = asdict(self)
        return {"format": "metadarts.diagnosis", "version": 1} | plain | {n: list(plain[n]) for n in VARIANTS}


VARIANTS = ("soft", "discrete")
"""The fields of a `Diagnosis` that list variants."""
