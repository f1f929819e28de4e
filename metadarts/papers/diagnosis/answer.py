"""From intervals to a verdict in one or two sentences. It says yes only if the intervals do."""

from __future__ import annotations

from dataclasses import dataclass

from metadarts.stats import Estimate

from .figures import Contrast

NEGLIGIBLE = 0.02
"""An interval that holds 0 and reaches beyond so much accuracy says nothing; within it, it says "no"."""


@dataclass(frozen=True)
class Evidence:
    """The evidence for the verdict. Accuracies are from 0 to 1.

    Args:
        tasks: number of evaluated tasks.
        finite: number of tasks with finite values.
        moved: total variation distance from the meta-learned to the adapted shares, mean over tasks.
        cells_swapped: accuracy with another task's cell minus that with the task's own.
        alphas_swapped: accuracy with another task's fixed alphas minus that with the task's own fixed alphas.
        cells_meta: accuracy with the meta-learned cell minus that with the task's own.
        draws: distances of alphas within a task and between tasks.
    """

    tasks: int
    finite: int
    moved: float
    cells_swapped: Estimate
    alphas_swapped: Estimate
    cells_meta: Estimate
    draws: Contrast


def verdict(evidence: Evidence) -> str:
    """Whether architectures are specific to their tasks, in one or two sentences.

    They are if three conditions hold, each with its whole interval: another task's cell is worse, the one meta-learned
    cell for all tasks is worse, and two draws of one task's images give alphas that are nearer to each other than those
    of two tasks.
    """
    if unclear := _beforehand(evidence):
        return unclear
    swap = f"giving each task the cell of another changes accuracy by {points(evidence.cells_swapped)}"
    if evidence.cells_swapped.high < 0:
        return _matters(evidence, swap)
    if evidence.alphas_swapped.high < 0 and _follows_task(evidence):
        return (
            f"Only as a mixture: another task's alphas change the supernet's accuracy by "
            f"{points(evidence.alphas_swapped)}, but {swap}: what is the task's own is lost in the discrete cell."
        )
    if evidence.cells_swapped.low > 0:
        return f"No: {swap}, so that another task's cell does even better. {_origin(evidence)}"
    if max(-evidence.cells_swapped.low, evidence.cells_swapped.high) > NEGLIGIBLE:
        return f"Not shown: {swap}, an interval too wide to tell; measure more tasks. {_origin(evidence)}"
    return f"No: {swap}. {_origin(evidence)}"


def points(estimate: Estimate) -> str:
    """A difference in accuracy in percentage points, with its interval."""
    return f"{estimate.scaled(100).text(2, '+')} points"


def _beforehand(evidence: Evidence) -> str:
    """The answer where nothing needs comparing, or "" where it does."""
    if 2 * evidence.finite < evidence.tasks:
        return (
            f"Cannot say: only {evidence.finite} of {evidence.tasks} tasks stayed in the finite numbers; the inner "
            "rates or steps of this run are too large."
        )
    if evidence.moved == 0:
        return "No: the alphas do not move on a task, so that all tasks have the one meta-learned architecture."
    return ""


def _matters(evidence: Evidence, swap: str) -> str:
    if not _follows_task(evidence):
        return f"Only in part: {swap}, but the cell suits the images drawn rather than their task. {_origin(evidence)}"
    meta = evidence.cells_meta
    if meta.high < 0:
        return f"Yes: {swap}, giving all the one meta-learned cell by {points(meta)}. {_origin(evidence)}"
    better = "better" if meta.low > 0 else "as well"
    return f"Only in part: {swap}, but the one meta-learned cell for all does {better} ({points(meta)})."


def _follows_task(evidence: Evidence) -> bool:
    return evidence.draws.difference.low > 0


def _origin(evidence: Evidence) -> str:
    draws = evidence.draws
    distances = f"distance of alphas {draws.within.mean:.4f} against {draws.between.mean:.4f}"
    if _follows_task(evidence):
        return f"Two draws of one task's images do give alphas nearer to each other than two tasks ({distances})."
    return f"Two draws of one task's images give alphas no nearer to each other than two tasks ({distances})."
