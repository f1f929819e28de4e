"""Which rows a table has, and which of them are compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

from metadarts.papers.rows import HEADLINE, META_CELL, RANDOM_CELL, SHORT, TASK_CELL

from .tables import TableSpec

SUPPORT, NO_STEPS, OWN_CELLS = "headline, support statistics", "headline, no steps", "headline, cells"


@dataclass(frozen=True)
class RowPlan:
    """One row to measure.

    Args:
        name: short.
        training: the training it is measured on; empty for none.
        mode: "adapted", "unadapted" (no inner step), "cells" (each task's own cell, inherited weights) or "pixels".
        method: what a reader reads.
        protocol: "A", "B", "C" or "".
        paper: the method of the paper that it stands beside; empty for none.
        bn: another batch-norm policy than the training's.
    """

    name: str
    training: str
    mode: str
    method: str
    protocol: str = ""
    paper: str = ""
    bn: str = ""


def rows_of(spec: TableSpec, budget: str, shots: int) -> list[RowPlan]:
    """The rows of one setting, in the order of the table."""
    trainings = {training.name: training for training in spec.trainings(budget, shots)}
    title = trainings[HEADLINE].title
    rows = [
        RowPlan(HEADLINE, HEADLINE, "adapted", title, "A", "T-NAS"),
        RowPlan(SUPPORT, HEADLINE, "adapted", f"{title}; batch norm of the support set", "A",
                bn="support"),
        RowPlan(NO_STEPS, HEADLINE, "unadapted", "supernet, no inner step", "A"),
        RowPlan(OWN_CELLS, HEADLINE, "cells", "each task's own cell, inherited weights", "B", "T-NAS"),
    ]  # fmt: skip
    papers = {
        TASK_CELL: "T-NAS",
        "maml": "MAML",
        "maml-first": "MAML, first order",
        f"auto-maml-{shots}-shot": "Auto-MAML",
    }
    protocols = {SHORT: "A"} | dict.fromkeys((TASK_CELL, META_CELL, RANDOM_CELL), "C")
    for name, training in trainings.items():
        if name != HEADLINE:
            rows.append(RowPlan(name, name, "adapted", training.title, protocols.get(name, ""), papers.get(name, "")))
    rows.append(RowPlan("pixels", "", "pixels", "nearest class mean of pixels"))
    return rows


@dataclass(frozen=True)
class ComparisonPlan:
    """Two rows to hold against each other.

    Args:
        first, second: names of rows.
        about: what was held equal, or what is asked.
        recipes_differ: whether they differ in more than the network.
        papers: the two methods of the paper that they stand for; none where it has no such pair.
    """

    first: str
    second: str
    about: str
    recipes_differ: bool = False
    papers: tuple[str, str] | None = None


_PAPERS = ("T-NAS", "MAML")
_LENGTHS = {
    "hour": (
        ComparisonPlan(SHORT, "maml", "wall-clock meant to be equal", True, _PAPERS),
        ComparisonPlan(SHORT, "maml-equal", "equal meta-updates", True, _PAPERS),
        ComparisonPlan(SHORT, "maml-ours", "wall-clock meant to be equal, equal recipe", False, _PAPERS),
        ComparisonPlan(HEADLINE, "maml-ours", "equal meta-updates, equal recipe", False, _PAPERS),
        ComparisonPlan(HEADLINE, "maml", "the headline has six times MAML's time", True, _PAPERS),
        ComparisonPlan(HEADLINE, SHORT, "six times the time"),
    ),
    "full": (ComparisonPlan(HEADLINE, "maml", "each for its paper's number of updates", True, _PAPERS),),
}
_SMOKE = tuple(replace(plan, about="a few updates each, nothing held equal") for plan in _LENGTHS["hour"])
_NETWORKS = (
    ComparisonPlan(HEADLINE, NO_STEPS, "what the inner steps add"),
    ComparisonPlan(HEADLINE, OWN_CELLS, "what discretising costs: A against B"),
    ComparisonPlan(HEADLINE, TASK_CELL, "A against C"),
    ComparisonPlan(OWN_CELLS, TASK_CELL, "B against C"),
    ComparisonPlan(TASK_CELL, META_CELL, "C: what adapting the architecture to tasks adds"),
    ComparisonPlan(META_CELL, RANDOM_CELL, "C: what the search adds to chance, its cost apart"),
    ComparisonPlan(
        HEADLINE, SUPPORT, "what is lost where it may not use the queries' statistics, on which it was trained"
    ),
)


def comparisons_of(budget: str) -> tuple[ComparisonPlan, ...]:
    """What is compared under ``budget``, where both rows are there."""
    return _LENGTHS.get(budget, _SMOKE) + _NETWORKS
