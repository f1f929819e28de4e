"""What every reader of a table must know, whatever came out."""

from __future__ import annotations

from collections.abc import Sequence

from metadarts.papers.rows import HEADLINE, SHORT

from .job import Findings, Job
from .recipes import OMNIGLOT_RECIPE
from .tables import SMOKE_TASKS, TASKS, WAYS

UNFINISHED = "Unfinished:"
"""How a note about missing rows begins."""
NAMED = 5
"""Rows that are missing are named up to here, and counted beyond."""


def setting(shots: int) -> str:
    """As a reader reads it."""
    return f"{WAYS}-way {shots}-shot"


def unfinished(missing: Sequence[str]) -> str:
    """That the rows ``missing``, at least one, are not there."""
    more = len(missing) - NAMED
    named = "; ".join(missing[:NAMED]) + (f"; and {more} more" if more > 0 else "")
    what = "1 row is" if len(missing) == 1 else f"{len(missing)} rows are"
    return f"{UNFINISHED} {what} not measured yet: {named}."


def notes(job: Job, findings: Findings) -> tuple[str, ...]:
    """Sentences; no times among them, since they count in the table's digest."""
    told = [unfinished(findings.missing)] if findings.missing else []
    if len(job.seeds) == 1:
        told.append("One training a row: the intervals are over test tasks and say nothing of another training.")
    if job.budget == "smoke":
        told.append(f"Smoke budget: a few updates and {SMOKE_TASKS} tasks. It shows that the command works, no more.")
    if job.budget == "hour":
        counts = job.spec.recipe.steps["hour"]
        told.append(
            f"Hour budget: the headline has {counts[HEADLINE]:,} meta-updates, the shorter search {counts[SHORT]:,}; "
            "T-NAS has 12,500. Our recipe is not T-NAS's: training tasks of more ways, a prototype head, one exact "
            "inner step, outer rates that fall."
        )
    told.append(
        "MAML after its paper, and where it is not: one learned head row, copied to every class of a task; no biases "
        "before batch norm (128 weights fewer than its papers count); 32 filters and max pooling on Omniglot too"
        + ("; outer rates that fall, 8 tasks a meta-batch on Omniglot." if job.budget != "full" else ".")
    )
    if job.spec.recipe is OMNIGLOT_RECIPE:
        told.append(
            "MAML after its paper is tested with one inner step, as it is trained; its paper takes 3, which lose where "
            "head rows begin equal: the first step then moves the head alone, and no training saw the body move."
        )
    if job.budget == "full":
        told.append(
            "Full budget: T-NAS's numbers of updates, its inner rate of 0.1 (its code has 0.01), its training classes "
            "without the validation classes that the paper adds, and a limit of 10 on the norm of the meta-gradient."
        )
    for shots, episodes in findings.episodes.items():
        known = job.spec.episodes.get((job.split, shots))
        if known is not None and episodes.tasks == TASKS and known != episodes.sha256:
            told.append(
                f"The {shots}-shot test episodes are not those of docs/results.md ({known[:12]}…): these images are "
                "other images, decoded or shrunk otherwise. Rows cannot be paired with those there."
            )
    if job.budget != "full" and len(job.shots) > 1:
        told.append(
            f"One training serves all settings, on {job.spec.trained_shots}-shot tasks; MAML after its paper has one "
            "for each."
        )
    return tuple(told)
