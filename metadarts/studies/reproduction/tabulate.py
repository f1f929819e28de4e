"""From what was measured to the table: means with intervals, paired comparisons, facts and notes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadarts.core.described import number, read_json
from metadarts.core.errors import RunError
from metadarts.core.rng import Key
from metadarts.experiments import Config, RunFolder
from metadarts.experiments.build import assemble
from metadarts.experiments.environment import describe
from metadarts.studies.rows import Comparison, Paper, Row, Table
from metadarts.studies.statistics import estimate, overlap, paired

from .recipes import HEADLINE, TASK_CELL
from .runner import Finding, Findings, Job, most_frequent
from .tables import SMOKE_TASKS, TASKS, WAYS, comparisons_of

BOOTSTRAP = Key.from_seed(0).child("reproduce", "bootstrap")


def tabulate(job: Job, findings: Findings) -> Table:
    """The table of ``job``."""
    groups: dict[tuple[int, str], list[Finding]] = {}
    for finding in findings.found:
        groups.setdefault((finding.shots, finding.row.name), []).append(finding)
    rows = {key: _row(job, group) for key, group in groups.items()}
    comparisons = [
        _compare(job, groups, rows, shots, *names)
        for shots in job.shots
        for names in comparisons_of(job.budget)
        if (shots, names[0]) in rows and (shots, names[1]) in rows
    ]
    return Table(
        name=job.spec.name,
        title=job.spec.title,
        paper=job.spec.citation,
        budget=job.budget,
        source=job.source.name,
        split=f"{job.split}: {job.spec.splits[job.split]}",
        episodes={_setting(shots): episodes.sha256 for shots, episodes in findings.episodes.items()},
        rows=tuple(rows.values()),
        comparisons=tuple(comparisons),
        environment=describe(job.device),
        notes=_notes(job, findings),
    )


def _setting(shots: int) -> str:
    return f"{WAYS}-way {shots}-shot"


def _row(job: Job, group: list[Finding]) -> Row:
    first = group[0]
    row, config = first.row, None if first.run is None else first.run.config()
    weights, alphas = (0, 0) if config is None else _sizes(job, config, first)
    return Row(
        setting=_setting(first.shots),
        name=row.name,
        method=row.method,
        protocol=row.protocol,
        paper=_paper(job, row.paper, first.shots),
        estimate=estimate(_values(group), BOOTSTRAP.child(_setting(first.shots), row.name)),
        seeds=tuple(finding.seed for finding in group),
        tasks=first.measured.accuracies.size,
        bn=first.measured.bn or "none",
        selection="none" if config is None else _selection(config),
        weights=weights,
        alphas=alphas,
        steps=first.measured.steps,
        meta_steps=first.steps,
        search_seconds=sum(seconds_of(finding.run) for finding in group if finding.run is not None),
        device="" if first.run is None else _device(first.run),
        note=_note(job, group, config),
    )


def _sizes(job: Job, config: Config, finding: Finding) -> tuple[int, int]:
    """(weights, alphas) of what answers a query; of discretised cells the mean over the tasks would say little."""
    network = assemble(config, job.source).network
    weights, alphas = network.count(WAYS)
    return (weights, alphas) if finding.row.mode != "cells" else (weights, 0)


def _paper(job: Job, method: str, shots: int) -> Paper | None:
    printed = job.spec.printed.get(method, {}).get(shots)
    return None if printed is None else Paper(method, *printed)


def _values(group: list[Finding]) -> NDArray[np.float64]:
    return np.stack([finding.measured.accuracies for finding in group])


def _selection(config: Config) -> str:
    training = config.training
    return f"best of {training.validations} looks at {training.validation_tasks} tasks of validation classes"


def seconds_of(run: RunFolder) -> float:
    """Wall time of a finished search, its looks included."""
    path = run.path / "finished.json"
    try:
        return number(read_json(path.read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}); remove it, and the search ends once more") from error


def _device(run: RunFolder) -> str:
    told: dict[str, Any] = run.environment()
    return f"{told.get('device', 'unknown')}, {told.get('threads', '?')} thread(s)"


def _note(job: Job, group: list[Finding], config: Config | None) -> str:
    parts = []
    for finding in group:
        if finding.measured.genotypes:
            _, count, distinct = most_frequent(finding.measured.genotypes)
            tasks = len(finding.measured.genotypes)
            parts.append(
                f"seed {finding.seed}: {distinct} distinct cells over {tasks} tasks, the most frequent {count} times"
            )
    if group[0].row.name == TASK_CELL:
        parts.append("one training for all tasks, in place of one for each task's own cell")
    if config is not None:
        trained_at = config.tasks.shots
        if trained_at != group[0].shots:
            parts.append(f"trained on {trained_at}-shot tasks")
        if config.model.genotype:
            parts.append(f"cell {config.model.genotype}")
    return "; ".join(parts)


def _compare(
    job: Job,
    groups: dict[tuple[int, str], list[Finding]],
    rows: dict[tuple[int, str], Row],
    shots: int,
    first: str,
    second: str,
    about: str,
) -> Comparison:
    a, b = rows[shots, first], rows[shots, second]
    printed = a.paper.accuracy - b.paper.accuracy if a.paper and b.paper and a.paper.method != b.paper.method else None
    one, other, key = groups[shots, first], groups[shots, second], BOOTSTRAP.child(_setting(shots), first, second)
    if one[0].row.training == other[0].row.training:  # the same trainings: their spread is in both, and cancels
        both = {finding.seed for finding in one} & {finding.seed for finding in other}
        one, other = ([finding for finding in group if finding.seed in both] for group in (one, other))
        difference = estimate(_values(one) - _values(other), key)
    else:
        difference = paired(_values(one), _values(other), key)
    return Comparison(
        setting=_setting(shots),
        first=first,
        second=second,
        about=about,
        difference=difference,
        overlaps=overlap(a.estimate, b.estimate),
        seconds=(a.search_seconds, b.search_seconds),
        meta_steps=(a.meta_steps, b.meta_steps),
        paper=printed,
    )


def _notes(job: Job, findings: Findings) -> tuple[str, ...]:
    """What every reader of the table must know, whatever came out."""
    notes = []
    if findings.missing:
        notes.append(f"Unfinished: not measured yet are {'; '.join(findings.missing)}.")
    if len(job.seeds) == 1:
        notes.append("One training a row: the intervals are over test tasks and say nothing of another training.")
    if job.budget == "smoke":
        notes.append(f"Smoke budget: a few updates and {SMOKE_TASKS} tasks. It shows that the command works, no more.")
    if job.budget == "hour":
        counts = job.spec.recipe.steps["hour"]
        notes.append(
            f"Hour budget: the headline has {counts[HEADLINE]:,} meta-updates where T-NAS has 12,500, and not its "
            "recipe: tasks of more ways in training, a prototype head, one exact inner step, outer rates that fall."
        )
    for shots, episodes in findings.episodes.items():
        known = job.spec.episodes.get((job.split, shots))
        if known is not None and episodes.tasks == TASKS and known != episodes.sha256:
            notes.append(
                f"The {shots}-shot test episodes are not those of docs/results.md ({known[:12]}…): these images are "
                "other images, decoded or shrunk otherwise. Rows cannot be paired with those there."
            )
    if job.budget != "full" and len(job.shots) > 1:
        notes.append(f"One training serves all settings, on {job.spec.trained_shots}-shot tasks.")
    return tuple(notes)
