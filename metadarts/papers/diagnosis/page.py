"""A diagnosis as one page: Markdown for a file, lines for a terminal. Both show the same tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap
from typing import NamedTuple

from metadarts.stats import Estimate, Table

from .answer import points
from .figures import Contrast, Diagnosis, Variant

WIDTH = 100


class Section(NamedTuple):
    """One question with its figures.

    Args:
        title: the question.
        note: how the rows of ``table`` were made and how to read them.
        table: the figures.
    """

    title: str
    note: str
    table: Table


def as_markdown(diagnosis: Diagnosis) -> str:
    """The answer first, then the tables with what each row means."""
    parts = ["# Is the architecture the task's own?", f"**{diagnosis.verdict}**", _measured(diagnosis)]
    for section in sections(diagnosis):
        parts += [f"## {section.title}", section.table.markdown(), section.note]
    shown = diagnosis.architecture
    parts.append(
        f"The cell of the meta-learned alphas:\n\n    {shown.meta}\n\n"
        f"The most frequent cell of the adapted tasks ({shown.commonest_count} of them):\n\n    {shown.commonest}"
    )
    return "\n\n".join(parts) + "\n"


def as_text(diagnosis: Diagnosis) -> str:
    """The same without notes, no line longer than `WIDTH`."""
    lines = [*wrap(diagnosis.verdict, WIDTH), "", *wrap(_measured(diagnosis), WIDTH)]
    for section in sections(diagnosis):
        lines += ["", section.title, *_aligned((section.table.headings, *section.table.rows))]
    return "\n".join(lines)


def sections(diagnosis: Diagnosis) -> list[Section]:
    """All questions, in the order of the page."""
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


def _accuracies(title: str, note: str, variants: Iterable[Variant], more: tuple[str, ...] = ()) -> Section:
    rows = [
        (v.meaning, _percent(v.accuracy), "" if v.difference is None else _bare_points(v.difference)) for v in variants
    ]
    headings = ("architecture", "accuracy, %", "change, points")
    return Section(title, note, Table(headings, (*rows, *([more] if more else []))))


def _soft(diagnosis: Diagnosis) -> Section:
    note = (
        "The weights always adapt. Alphas that are given stand still from the first step on. The last row compares "
        "two rows above that differ in nothing but whose alphas were given."
    )
    swapped = ("another task's against the own, both so given", "", _bare_points(diagnosis.alphas_swapped))
    return _accuracies("The supernet with its alphas replaced", note, diagnosis.soft, swapped)


def _bare_points(estimate: Estimate) -> str:
    return points(estimate).removesuffix(" points")


def _draws(diagnosis: Diagnosis) -> Section:
    control = diagnosis.control
    contrasts = (("of alphas", control.alphas, 4), ("of cells, in choices", control.cells, 2))
    rows = tuple(_contrast_row(name, contrast, digits) for name, contrast, digits in contrasts)
    note = (
        "Every task adapts a second time, to other images of the same classes. Only where two draws of one task are "
        "nearer than two tasks (last column above 0) does the architecture follow the task rather than the images "
        "drawn. Distances are those of the next table, between a first and a second adaptation."
    )
    headings = ("distance", "same task", "two tasks", "two tasks less same")
    return Section("The task, or the draw of its images?", note, Table(headings, rows))


def _contrast_row(name: str, contrast: Contrast, digits: int) -> tuple[str, ...]:
    return (name, *(part.text(digits) for part in (contrast.within, contrast.between, contrast.difference)))


def _choices(diagnosis: Diagnosis) -> Section:
    shown = diagnosis.architecture
    tasks = diagnosis.facts["finite_tasks"]
    rate = diagnosis.control.retrieval
    found_again = Estimate(rate.rate, rate.low, rate.high)
    ratio = "no distance" if shown.moved_over_between is None else f"{shown.moved_over_between:.2f}"
    rows = (
        ("different cells among the adapted tasks", f"{shown.distinct} of {tasks}"),
        ("tasks with the most frequent cell", f"{shown.commonest_count} of {tasks}"),
        (f"choices (of {shown.choices}) that differ from the meta-learned cell", shown.cells_from_meta.text(2)),
        (f"choices (of {shown.choices}) that differ between two tasks", shown.cells_between.text(2)),
        ("largest share of an edge, meta-learned", f"{shown.meta_share:.4f}"),
        ("largest share of an edge, adapted", shown.adapted_share.text(4)),
        ("distance of alphas from the meta-learned ones", shown.alphas_moved.text(4)),
        ("distance of alphas between two tasks", shown.alphas_between.text(4)),
        ("the one distance over the other", ratio),
        (f"same task found again by its alphas, % (chance {100 * rate.chance:.1f})", _percent(found_again)),
    )
    note = (
        "Shares are the relaxed alphas (by default their softmax), means are over edges. A distance is the total "
        "variation, from 0 to 1: "
        "the part of an edge's share that lies on other candidates. The last row but one compares how far a task moves "
        "with how far two tasks are apart; well above 1, all tasks move the same way. The last row tells how often the "
        "alphas of a task's second adaptation left the start most nearly in the direction of its first, of all tasks'."
    )
    return Section("What the tasks chose", note, Table(("figure", "value"), rows))


def _percent(estimate: Estimate) -> str:
    return estimate.scaled(100).text(2)


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
