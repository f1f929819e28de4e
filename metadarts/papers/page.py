"""Measured tables as a page of plain words: every row, every comparison, and what the figures say and do not say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from metadarts.stats import Estimate, Table, bullets, escaped, inline, listed
from metadarts.store.fields import Number
from metadarts.store.schema import fitting

from .rows import (
    BUDGETS,
    HEADLINE,
    MAML,
    META_CELL,
    PROTOCOLS,
    RANDOM_CELL,
    REPRODUCED,
    TASK_CELL,
    Comparison,
    Paper,
    ResultTable,
    Row,
    verdict,
)

MARK = "<!-- Written by `metadarts results`: change the tables, not this page. -->"
"""The first line of a page, by which it is told from a page that someone wrote."""

QUESTIONS = {
    (HEADLINE, MAML): "Does the headline method beat MAML",
    (META_CELL, RANDOM_CELL): "Is the meta-learned cell better than a random cell",
    (TASK_CELL, META_CELL): "Is a cell adapted to tasks better than the meta-learned cell",
}
"""What is asked of a comparison between a row of the first name and one of the second."""

COMPARED = "The first less the second in points, paired by test task, with its 95 % interval ({budget})."

RECIPES_DIFFER = "; the two also differ in recipe, not in the network alone"
HOURS = ("training_hours", "measuring_hours")
"""What an environment may hold of the time that the whole table took."""

EQUAL = 1.2
"""Times whose ratio is no larger pass for equal."""

CLOSE = 5e-5
"""Half of the last digit that is printed of an accuracy."""

INTRODUCTION = """\
# Results: tables of papers, measured here

`metadarts reproduce` runs a table and writes `table.json`; this page is made of such files by
`metadarts results TABLE.json ... --out docs/results.md`. Each table ends with a digest of all that was measured except
times and machine: the same command and seed on the same machine give the same digest.

**How to read the figures.** Accuracy is in percent, a difference in percentage points. Every interval is a 95 %
percentile interval of a crossed bootstrap of 10,000 draws, which resamples the trainings (seeds) and the test tasks
together. A row of one seed resamples tasks only: it says nothing about another training. With two seeds the variance
between trainings comes out at a half of what it is, with three at two thirds. All rows of a
setting are measured on the same test tasks. A difference is paired by task, and its seeds are resampled on their own;
it can therefore be told from 0 where the intervals of the two rows overlap.

**Protocols.** What is measured after a search differs from paper to paper, and changes the figure:
"""

CAUTIONS = """\
**Budgets.** A smoke or an hour budget is no reproduction: it trains for a small part of the paper's schedule, and says
whether the whole way from data to table works and which way the differences point. Whatever such a run measures, it is
"budget too small to say". At the full budget "reproduced" means that our mean is at least the paper's value less the
interval printed with it, and that the lower end of our interval is at least the value less that interval (or less two
points, where that is more) less another two points, so that a wide interval of ours does not help. Where the paper's
value is of something else, such as another protocol, there is "no verdict". How far our mean is from the paper's value
is printed whatever the verdict.

**Weaknesses of the published numbers.** The code that was published with T-NAS selects its checkpoint on the test
tasks, which flatters the figure; here validation tasks choose. Whether batch statistics are transductive (all queries
of a task normalised together) is not stated in the papers, and matters; here every row names its policy. The intervals
of many published methods overlap, so that their order in a table is not established.
"""


def results_markdown(tables: Sequence[ResultTable]) -> str:
    """The page of all ``tables``: how to read them, a summary, then each as `table_markdown`."""
    protocols = [f"- **{name}**: {text}." for name, text in PROTOCOLS.items() if name]
    rows = [[inline(table.title), table.budget, str(len(table.rows)), *_tally(table)] for table in tables]
    summary = Table(["table", "budget", "rows", "values of the paper", "reproduced"], rows)
    parts = [MARK, INTRODUCTION.strip(), "\n".join(protocols), CAUTIONS.strip()]
    parts += [summary.markdown()] if tables else ["No table has been measured yet."]
    return "\n\n".join([*parts, *(table_markdown(table).strip() for table in tables)]) + "\n"


def table_markdown(table: ResultTable) -> str:
    """One table: its rows by setting, how each was made, the comparisons, and what the figures say."""
    budget = f"{table.budget} budget"
    parts = [f"## {inline(table.title)} ({budget})", _origin(table)]
    for setting in table.settings:
        rows = [row for row in table.rows if row.setting == setting]
        parts += [f"### {inline(setting)} ({budget})", _caption(table, setting), _grid(rows, table.budget).markdown()]
        parts.append(_made(rows))
    if table.comparisons:
        parts += [f"### Compared ({budget})", COMPARED.format(budget=budget), _compared(table).markdown()]
    parts += [f"### What it says ({budget})", bullets(findings(table))]
    if table.notes:
        parts += ["Notes:", bullets(_noted(note) for note in table.notes)]
    total = _total(table.environment)
    shown = {name: value for name, value in table.environment.items() if not (total and name in HOURS)}
    environment = inline("; ".join(f"{name} {value}" for name, value in shown.items())) or "not recorded"
    parts += [total, f"{_ended(f'Measured with: {environment}')} Digest `{table.digest}`."]
    return "\n\n".join(part for part in parts if part) + "\n"


def _origin(table: ResultTable) -> str:
    if table.budget == BUDGETS[-1]:
        caution = "Measured at the full budget."
    else:
        caution = f"Measured at the {table.budget} budget, which is no reproduction of the paper's schedule."
    data = f"Data: {inline(table.source)}, {inline(table.split)}"
    return " ".join(map(_ended, (f"Values beside ours: {inline(table.paper)}", data, caution)))


def _total(environment: dict[str, Any]) -> str:
    """The time that the whole table took; "" where it is not recorded."""
    hours = fitting([environment.get(name) for name in HOURS], tuple[Number, Number])
    return "" if hours is None else f"In all: trainings {hours[0]:.2f} h, measuring {hours[1]:.2f} h."


def _caption(table: ResultTable, setting: str) -> str:
    one = all(len(row.seeds) == 1 for row in table.rows if row.setting == setting)
    over = "test tasks alone, as each row is one training" if one else "seeds and test tasks"
    return (
        f"Accuracy on test tasks in percent, {table.budget} budget, with the 95 % interval over {over}. All rows are "
        f"measured on the same tasks (SHA-256 `{table.episodes[setting][:12]}`)."
    )


def _grid(rows: Sequence[Row], budget: str) -> Table:
    headings = ["method", "protocol", "paper", f"ours ({budget} budget)", "95 % interval", "ours - paper", "seeds",
                "tasks", "batch norm", "weights", "meta-updates", "search hours", "verdict"]  # fmt: skip
    lines = [
        [
            inline(row.method),
            row.protocol or "none",
            "none" if row.paper is None else _printed(row.paper),
            f"{100 * row.estimate.mean:.2f}",
            _interval(row.estimate),
            "none" if row.gap is None else _points(row.gap),
            str(len(row.seeds)),
            f"{row.tasks:,}",
            inline(row.bn),
            f"{row.weights:,}" + (f" + {row.alphas:,} alphas" if row.alphas else ""),
            f"{row.meta_steps:,}",
            _hours(row.search_seconds),
            inline(verdict(row, budget)) or "no value in the paper",
        ]
        for row in rows
    ]
    return Table(headings, lines)


def _hours(seconds: float) -> str:
    """Two digits after the point, or as many as it takes to tell a search of seconds from none."""
    hours = seconds / 3600
    return f"{hours:.2f}" if hours >= 0.01 or not hours else f"{hours:.1g}"


def _printed(paper: Paper) -> str:
    interval = "" if paper.interval is None else f" ± {100 * paper.interval:.2f}"
    return f"{100 * paper.accuracy:.2f}{interval}"


def _made(rows: Sequence[Row]) -> str:
    """What is too long for a column: said once where it holds for all rows, else row by row."""
    facts: list[tuple[str, Callable[[Row], str]]] = [
        ("checkpoint chosen by", lambda row: row.selection),
        ("inner steps at test time", lambda row: str(row.steps)),
        ("seeds", lambda row: ", ".join(map(str, row.seeds))),
        ("device", lambda row: row.device),
    ]
    shared = [(name, fact) for name, fact in facts if len({fact(row) for row in rows}) == 1]
    apart = [(name, fact) for name, fact in facts if len({fact(row) for row in rows}) > 1]
    told = [f"**all rows**: {_facts(shared, rows[0])}"] if shared else []
    for row in rows:
        parts = [_beside(row), inline(row.covers), _noted(row.note), _facts(apart, row)]
        if any(parts):
            told.append(f"**{inline(row.method)}**: {'; '.join(part for part in parts if part)}")
    return "How the rows were made:\n\n" + bullets(map(_ended, told))


def _beside(row: Row) -> str:
    """What the row stands beside in the paper, where its own name does not say it."""
    if row.paper is None or (row.paper.method == row.method and not row.unlike):
        return ""
    return f"the paper's {inline(row.paper.method)}" + (
        f", of something else: {inline(row.unlike)}" if row.unlike else ""
    )


def _facts(facts: Sequence[tuple[str, Callable[[Row], str]]], row: Row) -> str:
    return "; ".join(f"{name}: {inline(fact(row))}" for name, fact in facts)


def _compared(table: ResultTable) -> Table:
    headings = ["setting", "first", "second", "what was held equal", "difference", "seconds", "meta-updates",
            "paper's difference", "remark"]  # fmt: skip
    lines = [
        [
            inline(comparison.setting),
            *(inline(row.method) for row in _rows(table, comparison)),
            inline(comparison.about),
            f"{_points(comparison.difference.mean)} {_interval(comparison.difference)}",
            " and ".join(f"{value:,.0f}" for value in comparison.seconds),
            " and ".join(f"{value:,}" for value in comparison.meta_steps),
            "none" if comparison.paper is None else _points(comparison.paper),
            _remark(table, comparison),
        ]
        for comparison in table.comparisons
    ]
    return Table(headings, lines)


def _remark(table: ResultTable, comparison: Comparison) -> str:
    """What the difference and its interval do not show."""
    if comparison.same:
        first, second = (inline(row.method) for row in _rows(table, comparison))
        return f"{first} and {second} are the same cell, trained once: there is nothing to compare"
    doubts = []
    if comparison.difference.contains(0.0):
        doubts.append("the interval contains 0: no difference shown")
    if comparison.overlaps:
        doubts.append("the intervals of the two overlap")
    recipes = RECIPES_DIFFER if comparison.recipes_differ else ""
    return ("; ".join(doubts) + recipes).removeprefix("; ") or "none"


def findings(table: ResultTable) -> Iterator[str]:
    """What the figures say, as sentences computed from them: every claim rests on an interval, or says that none does.

    Args:
        table: rows are known by the names in `QUESTIONS`, alone or with a hyphen and more behind them; the cost of
            discretising is read off the protocols.
    """
    if not table.rows:
        yield "Nothing was measured."
    for setting in table.settings:
        yield _best(table, [row for row in table.rows if row.setting == setting])
    for comparison in table.comparisons:
        for (one, other), question in QUESTIONS.items():
            if not comparison.same and (pair := _between_families(table, comparison, one, other)):
                yield _question(table, comparison, question, pair)
    for setting in table.settings:
        yield from _discretising(table, setting)
    yield from _distance(table)


def _best(table: ResultTable, rows: Sequence[Row]) -> str:
    best = max(rows, key=lambda row: row.estimate.mean)
    near = [inline(row.method) for row in rows if row is not best and row.estimate.overlaps(best.estimate)]
    told = (
        f"{inline(best.setting)}: the highest mean is that of {inline(best.method)}, {100 * best.estimate.mean:.2f} % "
        f"{_interval(best.estimate)} ({table.budget} budget)"
    )
    if len(rows) == 1:
        return f"{told}, the only row."
    if near:
        names = f"interval of {near[0]} overlaps" if len(near) == 1 else f"intervals of {listed(near)} overlap"
        return f"{told}; the {names} with it."
    return f"{told}; no other interval overlaps with it."


def _between_families(
    table: ResultTable, comparison: Comparison, one: str, other: str
) -> tuple[Estimate, Row, Row] | None:
    """(difference, row of ``one``, row of ``other``), whichever of the two came first; None for other rows."""
    first, second = _rows(table, comparison)
    if _is_of(first, one) and _is_of(second, other):
        return comparison.difference, first, second
    if _is_of(first, other) and _is_of(second, one):
        return comparison.difference.scaled(-1), second, first
    return None


def _question(table: ResultTable, comparison: Comparison, question: str, pair: tuple[Estimate, Row, Row]) -> str:
    difference, one, other = pair
    answer = "not shown" if difference.contains(0.0) else "yes" if difference.mean > 0 else "no"
    way, size = _way(difference)
    return (
        f"{question} in {inline(comparison.setting)} ({inline(comparison.about)})? {answer.capitalize()}: "
        f"{_covering(one)} is {size} {way} {_covering(other)} ({table.budget} budget)"
        f"{_unequal(table, comparison, one)}{RECIPES_DIFFER if comparison.recipes_differ else ''}."
    )


def _unequal(table: ResultTable, comparison: Comparison, one: Row) -> str:
    """The seconds of what was meant to take equally long and did not."""
    seconds = comparison.seconds if _rows(table, comparison)[0] is one else comparison.seconds[::-1]
    if "wall-clock" not in comparison.about or max(seconds) <= EQUAL * min(seconds):
        return ""
    return f"; it took {seconds[0]:,.0f} s, the other {seconds[1]:,.0f} s, which is not equal"


def _covering(row: Row) -> str:
    """The row's name, with how much of it was measured where that is not all."""
    return inline(row.method) + (f" ({inline(row.covers)})" if row.covers else "")


def _discretising(table: ResultTable, setting: str) -> Iterator[str]:
    """What A -> B and B -> C change; by paired comparisons, or by the means alone where there are none."""
    words = {
        ("A", "B"): "Discretising with inherited weights (A to B)",
        ("B", "C"): "Meta-training the discrete cell from scratch (B to C)",
        ("A", "C"): "Discretising and meta-training from scratch (A to C)",
    }
    for (before, after), name in words.items():
        shown = False
        for comparison in table.comparisons:
            first, second = _rows(table, comparison)
            protocols = (first.protocol, second.protocol)
            if comparison.setting == setting and sorted(protocols) == [before, after]:
                change = comparison.difference if protocols[0] == after else comparison.difference.scaled(-1)
                old, new = (first, second) if protocols[0] == before else (second, first)
                shown = True
                yield (
                    f"{inline(setting)}: {name} changes accuracy by {_signed(change)}, from {_covering(old)} to "
                    f"{_covering(new)}{'; the interval contains 0: no change shown' if change.contains(0.0) else ''}"
                    f" ({inline(comparison.about)}; {table.budget} budget)"
                    f"{RECIPES_DIFFER if comparison.recipes_differ else ''}."
                )
        olds, news = (
            [row for row in table.rows if row.setting == setting and row.protocol == protocol and _is_plain(row)]
            for protocol in (before, after)
        )
        if not shown and len(olds) == len(news) == 1:
            change_of_means = _points(news[0].estimate.mean - olds[0].estimate.mean)
            yield (
                f"{inline(setting)}: {name} changes the mean by {change_of_means} points, without a paired "
                f"interval, from {_covering(olds[0])} to {_covering(news[0])} ({table.budget} budget)."
            )


def _distance(table: ResultTable) -> Iterator[str]:
    """How far the nearest mean is from each value of the paper, whatever the verdict."""
    for group in _valued(table).values():
        gap, row, paper = min(group, key=lambda each: abs(each[0]))
        bar = "without an interval"
        if paper.interval is not None:
            bar = f"{100 * (paper.accuracy - paper.interval):.2f} less its interval"
        unlike = f"the paper's value is of something else: {inline(row.unlike)}; " if row.unlike else ""
        yield (
            f"{inline(row.setting)}: the paper has {_printed(paper)} for {inline(paper.method)}, {bar}; the mean "
            f"nearest to it, {100 * row.estimate.mean:.2f} ({_points(gap)} points) of {inline(row.method)}, "
            f"{'reaches' if row.reaches else 'does not reach'} it ({unlike}{table.budget} budget)."
        )


def _valued(table: ResultTable) -> dict[tuple[str, str], list[tuple[float, Row, Paper]]]:
    """(gap, row, value) of every row with a value of the paper, by setting and method: each value is there once."""
    groups: dict[tuple[str, str], list[tuple[float, Row, Paper]]] = {}
    for row in table.rows:
        if row.paper is not None and row.gap is not None:
            groups.setdefault((row.setting, row.paper.method), []).append((row.gap, row, row.paper))
    return groups


def _rows(table: ResultTable, comparison: Comparison) -> tuple[Row, Row]:
    """(the first, the second) of ``comparison``."""
    return table.row(comparison.setting, comparison.first), table.row(comparison.setting, comparison.second)


def _is_of(row: Row, family: str) -> bool:
    return row.name == family or row.name.startswith(f"{family}-")


def _is_plain(row: Row) -> bool:
    """Whether the row is no control: neither a random cell nor one that no task has adapted."""
    return not _is_of(row, RANDOM_CELL) and not _is_of(row, META_CELL)


def _tally(table: ResultTable) -> tuple[str, str]:
    """(values of the paper, those that at least one row reproduces)."""
    groups = _valued(table).values()
    reproduced = sum(any(verdict(row, table.budget) == REPRODUCED for _, row, _ in group) for group in groups)
    return str(len(groups)), str(reproduced)


def _way(difference: Estimate) -> tuple[str, str]:
    """("above" or "below", the size with its interval, counted that way)."""
    below = difference.mean < 0 and abs(difference.mean) >= CLOSE
    counted = difference.scaled(-1) if below else difference
    return ("below" if below else "above"), f"{_number(counted.mean)} points {_interval(counted)}"


def _signed(change: Estimate) -> str:
    return f"{_points(change.mean)} points {_interval(change)}"


def _interval(found: Estimate) -> str:
    return f"[{_number(found.low)}, {_number(found.high)}]"


def _number(value: float) -> str:
    """A fraction of 1 in percent, without a sign before zero."""
    return f"{100 * value:.2f}" if abs(value) >= CLOSE else "0.00"


def _points(value: float) -> str:
    """A difference of fractions of 1 in points, with its sign, and without one before zero."""
    return f"{100 * value:+.2f}" if abs(value) >= CLOSE else "0.00"


def _ended(text: str) -> str:
    """``text`` with a full stop, where it does not end with one."""
    return text if text.endswith(".") else f"{text}."


def _noted(text: str) -> str:
    """As `inline`, but with a genotype after "cell" as code, which can be copied as it stands."""
    parts = re.split(r"(?<=\bcell )(Genotype\(.*?[)\]]\))", " ".join(text.split()))
    return "".join(f"`{part.replace('`', '')}`" if index % 2 else escaped(part) for index, part in enumerate(parts))
