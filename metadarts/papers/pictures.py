"""A table as two pictures: its rows beside the paper's values, and what separates two rows."""

from __future__ import annotations

from pathlib import Path

from metadarts.core.errors import ConfigError
from metadarts.viz import Branch, Picture, draw_forest

from .rows import Comparison, ResultTable, Row


def draw_table(table: ResultTable, path: Path | Picture) -> None:
    """Write every row with its interval, and the paper's value as a hollow mark below it, setting by setting.

    Args:
        table: with at least one row.
        path: the file, ending in .svg or .png, or a `Picture`.

    Raises:
        ConfigError: when the table has no rows, or the ending is another.
    """
    if not table.rows:
        raise ConfigError(f"table {table.name!r}: expected at least one row to draw, got none")
    groups = {setting: [_row(row) for row in table.rows if row.setting == setting] for setting in table.settings}
    draw_forest(
        groups,
        path,
        xlabel=f"accuracy on test tasks in % ({table.budget} budget)",
        title=f"{table.title}: {table.budget} budget",
        ours=f"ours, {table.budget} budget, 95 % interval",
        printed="the paper's value, with the interval printed there",
    )


def draw_comparisons(table: ResultTable, path: Path | Picture) -> None:
    """Write every paired difference with its interval against a line at zero, setting by setting.

    Args:
        table: with at least one comparison.
        path: as `draw_table`.

    Raises:
        ConfigError: when the table has no comparisons, or the ending is another.
    """
    if not table.comparisons:
        raise ConfigError(f"table {table.name!r}: expected at least one comparison to draw, got none")
    groups: dict[str, list[Branch]] = {}
    for comparison in table.comparisons:
        groups.setdefault(comparison.setting, []).append(_comparison(comparison))
    draw_forest(
        groups,
        path,
        xlabel=f"paired difference in points ({table.budget} budget); right of 0 the first is better",
        title=f"{table.title}: paired differences, {table.budget} budget",
        ours=f"ours, {table.budget} budget, 95 % interval; black: it contains 0",
        printed="the paper's own difference",
        zero=True,
    )


def _row(row: Row) -> Branch:
    printed = None
    if row.paper is not None:
        half = None if row.paper.interval is None else 100 * row.paper.interval
        printed = (100 * row.paper.accuracy, half)
    label = f"{row.protocol}: {row.method}" if row.protocol else row.method
    if row.paper is not None and row.unlike:
        label += f" (the paper's value: {row.unlike})"
    return Branch(label, *row.estimate.scaled(100).ends, printed)


def _comparison(comparison: Comparison) -> Branch:
    printed = None if comparison.paper is None else (100 * comparison.paper, None)
    doubt = "; the same cell" if comparison.same else "; recipes differ" if comparison.recipes_differ else ""
    label = f"{comparison.first} less {comparison.second} ({comparison.about}{doubt})"
    return Branch(label, *comparison.difference.scaled(100).ends, printed)
