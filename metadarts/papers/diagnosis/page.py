"""A diagnosis as one page: Markdown for a file, lines for a terminal. Both show the same tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap
from typing import NamedTuple

from metadarts.papers.statistics import Estimate

from .answer import points
from .figures import Contrast, Diagnosis, Variant

WIDTH = 100


class Table(NamedTuple):
    """One question with its figures.

    Args:
        title: the question.
        note: how its rows were made and how to read them.
        header: of the columns.
        rows: one text per column.
    """

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def as_markdown(diagnosis: Diagnosis) -> str:
    """The answer first, then the tables with what each row means."""
    parts = ["# Is the architecture the task's own?", f"**{diagnosis.verdict}**", _measured(diagnosis)]
    for table in tables(diagnosis):
        lines = [table.header, tuple("---" for _ in table.header), *table.rows]
        parts += [f"## {table.title}", "\n".join(f"| {' | '.join(line)} |" for line in lines), table.note]
    shown = diagnosis.architecture
    parts.append(
        f"The cell of the meta-learned alphas:\n\n    {shown.meta}\n\n"
        f"The most frequent cell of the adapted tasks ({shown.commonest_count} of them):\n\n    {shown.commonest}"
    )
    return "\n\n".join(parts) + "\n"


def as_text(diagnosis: Diagnosis) -> str:
    """The same without notes, no line longer than `WIDTH`."""
    lines = [*wrap(diagnosis.verdict, WIDTH), "", *wrap(_measured(diagnosis), WIDTH)]
    for table in tables(diagnosis):
        lines += ["", table.title, *_aligned((table.header, *table.rows))]
    return "\n".join(lines)


def tables(diagnosis: Diagnosis) -> list[Table]:
    """All tables, in the order of the page."""
    return [
        _accuracies(
            "Discrete cells",
            "Every task adapts the supernet; then one cell is cut out of its adapted weights, gets a new head, and "
            "its weights take as many steps again. If cells were the task's own, another task's would do worse.",
            diagnosis.discrete,
        ),
        _soft(diagnosis),
        _draws(diagnosis),
        _choices(diagnosis),
    ]


def _measured(diagnosis: Diagnosis) -> str:
    facts = diagnosis.facts
    finite, tasks = facts["finite_tasks"], facts["tasks"]
    lost = "" if finite == tasks else f" {tasks - finite} tasks left the finite numbers: they score 0 and have no cell."
    return (
        f"Measured on {tasks} held-out tasks ({facts['source']} {facts['split']}, {facts['ways']}-way "
        f"{facts['shots']}-shot, {facts['queries']} queries per class, {facts['steps']} steps, batch norm "
        f"{facts['bn']}, checkpoint of step {facts['checkpoint_step']}), the same for every row; 95 % intervals over "
        f"tasks, of this one training.{lost}"
    )


def _accuracies(title: str, note: str, variants: Iterable[Variant], more: tuple[str, ...] = ()) -> Table:
    rows = [
        (v.meaning, _percent(v.accuracy), "" if v.difference is None else _bare_points(v.difference)) for v in variants
    ]
    return Table(title, note, ("architecture", "accuracy, %", "change, points"), (*rows, *([more] if more else [])))


def _soft(diagnosis: Diagnosis) -> Table:
    note = (
        "The weights always adapt. Alphas that are given stand still from the first step on. The last row compares "
        "two rows above that differ in nothing but whose alphas were given."
    )
    swapped = ("another task's against the own, both so given", "", _bare_points(diagnosis.alphas_swapped))
    return _accuracies("The supernet with its alphas replaced", note, diagnosis.soft, swapped)


def _bare_points(estimate: Estimate) -> str:
    return points(estimate).removesuffix(" points")


def _draws(diagnosis: Diagnosis) -> Table:
    control = diagnosis.control
    contrasts = (("of alphas", control.alphas, 4), ("of cells, in choices", control.cells, 2))
    rows = tuple(_contrast_row(name, contrast, digits) for name, contrast, digits in contrasts)
    note = (
        "Every task adapts a second time, to other images of the same classes. Only where two draws of one task are "
        "nearer than two tasks (last column above 0) does the architecture follow the task rather than the images "
        "drawn. Distances are those of the next table, between a first and a second adaptation."
    )
    header = ("distance", "same task", "two tasks", "two tasks less same")
    return Table("The task, or the draw of its images?", note, header, rows)


def _contrast_row(name: str, contrast: Contrast, digits: int) -> tuple[str, ...]:
    return (name, *(_number(part, digits) for part in (contrast.within, contrast.between, contrast.difference)))


def _choices(diagnosis: Diagnosis) -> Table:
    shown = diagnosis.architecture
    tasks = diagnosis.facts["finite_tasks"]
    rate = diagnosis.control.retrieval
    found_again = Estimate(rate.rate, rate.low, rate.high)
    ratio = "no distance" if shown.moved_over_between is None else f"{shown.moved_over_between:.2f}"
    rows = (
        ("different cells among the adapted tasks", f"{shown.distinct} of {tasks}"),
        ("tasks with the most frequent cell", f"{shown.commonest_count} of {tasks}"),
        (f"choices (of {shown.choices}) that differ from the meta-learned cell", _number(shown.cells_from_meta, 2)),
        (f"choices (of {shown.choices}) that differ between two tasks", _number(shown.cells_between, 2)),
        ("largest share of an edge, meta-learned", f"{shown.meta_share:.4f}"),
        ("largest share of an edge, adapted", _number(shown.adapted_share, 4)),
        ("distance of alphas from the meta-learned ones", _number(shown.alphas_moved, 4)),
        ("distance of alphas between two tasks", _number(shown.alphas_between, 4)),
        ("the one distance over the other", ratio),
        (f"same task found again by its alphas, % (chance {100 * rate.chance:.1f})", _percent(found_again)),
    )
    note = (
        "Shares are the softmax of the alphas, means are over edges. A distance is the total variation, from 0 to 1: "
        "the part of an edge's share that lies on other candidates. The last row but one compares how far a task moves "
        "with how far two tasks are apart; well above 1, all tasks move the same way. The last row tells how often the "
        "alphas of a task's second adaptation left the start most nearly in the direction of its first, of all tasks'."
    )
    return Table("What the tasks chose", note, ("figure", "value"), rows)


def _percent(estimate: Estimate) -> str:
    return _number(Estimate(100 * estimate.mean, 100 * estimate.low, 100 * estimate.high), 2)


def _number(estimate: Estimate, digits: int) -> str:
    mean, low, high = (f"{end + 0.0:.{digits}f}" for end in (estimate.mean, estimate.low, estimate.high))
    return f"{mean} [{low}, {high}]"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
