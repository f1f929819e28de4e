"""From what was measured to the table: means with intervals, paired comparisons, facts and notes."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import RunError
from metadarts.core.rng import Key
from metadarts.papers.rows import Comparison, Paper, ResultTable, Row
from metadarts.spaces import Genotype
from metadarts.stats import estimate, paired
from metadarts.store.fields import NotNegative
from metadarts.store.schema import Schema
from metadarts.training import Config, RunFolder
from metadarts.training.build import assemble
from metadarts.training.environment import describe

from .job import Finding, Findings, Job
from .notes import notes, setting
from .plans import ComparisonPlan, comparisons_of
from .recipes import AUTO_MAML_CELLS
from .tables import WAYS

BOOTSTRAP = Key.from_seed(0).child("reproduce", "bootstrap")
Groups = dict[tuple[int, str], list[Finding]]
"""(shots, row) -> its findings, one for each seed."""


@dataclass(frozen=True)
class Finished:
    """What is used of finished.json: the wall time of a search."""

    seconds: NotNegative
    more: dict[str, Any]


FINISHED = Schema(Finished, RunError, "remove it, and the search ends once more")


def tabulate(job: Job, findings: Findings) -> ResultTable:
    """The table of ``job``."""
    groups: Groups = {}
    for finding in findings.found:
        groups.setdefault((finding.shots, finding.row.name), []).append(finding)
    rows = {key: _row(job, group) for key, group in groups.items()}
    comparisons = [
        _compare(job, groups, rows, shots, plan)
        for shots in job.shots
        for plan in comparisons_of(job.budget)
        if _can_compare(groups.get((shots, plan.first)), groups.get((shots, plan.second)))
    ]
    return ResultTable(
        name=job.spec.name,
        title=job.spec.title,
        paper=job.spec.citation,
        budget=job.budget,
        source=job.source.name,
        split=f"{job.split}: {job.spec.splits[job.split]}",
        episodes={setting(shots): episodes.sha256 for shots, episodes in findings.episodes.items()},
        rows=tuple(rows.values()),
        comparisons=tuple(comparisons),
        environment=describe(job.device) | _hours(findings),
        notes=notes(job, findings),
    )


def _row(job: Job, group: list[Finding]) -> Row:
    first = group[0]
    row, config = first.row, first.runs[0].config() if first.runs else None
    weights, alphas = _sizes(job, group)
    paper = _paper(job, row.paper, first.shots)
    return Row(
        setting=setting(first.shots),
        name=row.name,
        method=row.method,
        protocol=row.protocol,
        paper=paper,
        unlike="" if paper is None else _unlike(job, row.name, row.protocol),
        estimate=estimate(_values(group), BOOTSTRAP.child(setting(first.shots), row.name)),
        seeds=tuple(finding.seed for finding in group),
        tasks=first.measured.accuracies.size,
        bn=first.measured.bn or "none",
        selection="none" if config is None else _selection(config),
        weights=weights,
        alphas=alphas,
        steps=first.measured.steps * (2 if row.mode == "cells" else 1),
        meta_steps=first.steps,
        search_seconds=sum(seconds_of(run) for run in {run.path: run for f in group for run in f.runs}.values()),
        measure_seconds=sum(finding.measured.seconds for finding in group),
        device=_device(first.runs[0]) if first.runs else "any",
        covers="; ".join(_by_seed(group, [finding.covers for finding in group])),
        note="; ".join(_note(group, 0 if config is None else config.tasks.shots)),
    )


def _sizes(job: Job, group: list[Finding]) -> tuple[int, int]:
    """(weights, alphas) of what answers a query: of discrete cells the median over tasks and seeds."""
    if not group[0].runs:
        return 0, 0
    network = assemble(group[0].runs[0].config(), job.source).network
    cells = [(cell, count) for finding in group for cell, count in finding.cells]
    if not cells:
        return network.count(WAYS)
    sizes = {cell: network.discrete(cell).count(WAYS)[0] for cell, _ in cells}
    return int(median(sizes[cell] for cell, count in cells for _ in range(count))), 0


def _paper(job: Job, method: str, shots: int) -> Paper | None:
    printed = job.spec.printed.get(method, {}).get(shots)
    return None if printed is None else Paper(method, *printed)


def _unlike(job: Job, name: str, protocol: str) -> str:
    """Why the paper's value is of something else; empty where it is not."""
    if job.split != next(iter(job.spec.sources)):
        return "another split"
    if protocol in ("A", "B"):
        return "another protocol"
    return "released cell, transferred" if name in AUTO_MAML_CELLS and not job.spec.own_cells else ""


def _values(group: list[Finding]) -> NDArray[np.float64]:
    return np.stack([finding.measured.accuracies for finding in group])


def _selection(config: Config) -> str:
    count, tasks = config.training.validations, config.training.validation_tasks
    # "look" means a validation. The words stay: kept tables, which have a digest, hold them.
    times = "one look" if count == 1 else f"the best of {count} looks"
    return f"{times} at {tasks} tasks of validation classes"


def seconds_of(run: RunFolder) -> float:
    """Wall time of a finished search, its validations included. Raises RunError."""
    return FINISHED.read(run.path / "finished.json").seconds


def _device(run: RunFolder) -> str:
    told = run.environment()
    threads = told.get("threads", "?")
    return f"{told.get('device', 'unknown')}, {threads} thread{'' if threads == 1 else 's'}"


def _by_seed(group: list[Finding], texts: list[str]) -> list[str]:
    """``texts``, one for each finding, with its seed where they differ; once where they are alike."""
    if len(set(texts)) == 1:
        return [texts[0]] if texts[0] else []
    return [f"seed {finding.seed}: {text}" for finding, text in zip(group, texts, strict=True) if text]


def _note(group: list[Finding], trained_at: int) -> list[str]:
    derived = [finding for finding in group if finding.row.mode == "cells"]
    parts = [f"trained on {trained_at}-shot tasks"] if trained_at not in (0, group[0].shots) else []
    parts += _by_seed(derived, [_spread(finding.cells) for finding in derived]) if derived else []
    named = [] if derived else [finding for finding in group if finding.cells]
    return parts + (_by_seed(named, [", ".join(f"cell {cell}" for cell, _ in f.cells) for f in named]) if named else [])


def _spread(cells: tuple[tuple[Genotype, int], ...]) -> str:
    tasks, most = sum(count for _, count in cells), max(count for _, count in cells)
    distinct = "1 distinct cell" if len(cells) == 1 else f"{len(cells)} distinct cells"
    return f"{distinct} over {tasks} tasks, the most frequent one is that of {most}; weights: the median"


def _can_compare(one: list[Finding] | None, other: list[Finding] | None) -> bool:
    """Whether both are there, and where they are of the same trainings, of the same seeds."""
    if not one or not other:
        return False
    alike = one[0].row.training == other[0].row.training
    return not alike or bool({f.seed for f in one} & {f.seed for f in other})


def _share_trainings(one: list[Finding], other: list[Finding]) -> bool:
    """Whether what was measured was measured on the same runs, so that their spread is in both, and cancels."""
    first, second = ({f.seed: [run.path for run in f.runs] for f in group} for group in (one, other))
    return any(first[seed] and first[seed][0] == second[seed][0] for seed in first.keys() & second.keys())


def _compare(
    job: Job, groups: Groups, rows: dict[tuple[int, str], Row], shots: int, plan: ComparisonPlan
) -> Comparison:
    a, b = rows[shots, plan.first], rows[shots, plan.second]
    one, other = groups[shots, plan.first], groups[shots, plan.second]
    key = BOOTSTRAP.child(setting(shots), plan.first, plan.second)
    if _share_trainings(one, other):
        both = {finding.seed for finding in one} & {finding.seed for finding in other}
        one, other = ([finding for finding in group if finding.seed in both] for group in (one, other))
        difference = estimate(_values(one) - _values(other), key)
    else:
        difference = paired(_values(one), _values(other), key)
    return Comparison(
        setting=setting(shots),
        first=plan.first,
        second=plan.second,
        about=plan.about,
        difference=difference,
        overlaps=a.estimate.overlaps(b.estimate),
        seconds=(a.search_seconds, b.search_seconds),
        meta_steps=(a.meta_steps, b.meta_steps),
        same=one[0].row.mode == other[0].row.mode and one[0].row.bn == other[0].row.bn and _are_same(one, other),
        recipes_differ=plan.recipes_differ,
        paper=_paper_difference(job, plan, shots),
    )


def _are_same(one: list[Finding], other: list[Finding]) -> bool:
    """Whether both rows are the same trained networks on the same tasks."""
    return [finding.cells for finding in one] == [finding.cells for finding in other] and [
        finding.runs[0].path for finding in one
    ] == [finding.runs[0].path for finding in other]


def _paper_difference(job: Job, plan: ComparisonPlan, shots: int) -> float | None:
    printed = [job.spec.printed.get(method, {}).get(shots) for method in plan.papers or ()]
    values = [value[0] for value in printed if value is not None]
    return values[0] - values[1] if len(values) == 2 else None


def _hours(findings: Findings) -> dict[str, float]:
    """Time in all, each training counted once."""
    runs = {run.path: run for finding in findings.found for run in finding.runs}
    measuring = sum(finding.measured.seconds for finding in findings.found)
    return {
        "training_hours": round(sum(map(seconds_of, runs.values())) / 3600, 2),
        "measuring_hours": round(measuring / 3600, 2),
    }
