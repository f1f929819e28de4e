"""A forest plot: one line per measurement with its interval, in groups, a published value beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from metadarts.core.errors import ConfigError

from ._canvas import FAINT, INK, Target, figure, plain, row_axes
from ._curve import COLORS
from ._ranges import draw_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE, FRAME = 0.2, 1.5
"""Inches: of a line of text, and around the rows."""

LABEL = 62
"""Letters of a line of a label."""


class Branch(NamedTuple):
    """One line of the plot.

    Args:
        label: what was measured; any text, up to two lines of it.
        value: the mean.
        low: lower end of its interval.
        high: upper end.
        printed: the published value and half of its interval (None where none is printed); None without one.
    """

    label: str
    value: float
    low: float
    high: float
    printed: tuple[float, float | None] | None = None


def draw_forest(
    groups: Mapping[str, Sequence[Branch]],
    path: Target,
    *,
    xlabel: str,
    title: str = "",
    ours: str = "ours",
    printed: str = "printed",
    zero: bool = False,
) -> None:
    """Write every group below the other: a dot with its interval for what was measured, a hollow mark for the printed.

    Args:
        groups: by heading, each with at least one line, in the order from top to bottom.
        path: the file, ending in .svg or .png (its folder is created if missing), or a `Picture`.
        xlabel: under the horizontal axis, unit included.
        title: printed on top; any text.
        ours: what the legend calls a measured value.
        printed: what it calls a published one.
        zero: whether to draw a line at 0; what reaches it is then black.

    Raises:
        ConfigError: when there is nothing to draw, or the ending is neither .svg nor .png.
    """
    if not groups or not all(groups.values()):
        raise ConfigError(f"expected groups of at least one line each, got {[*map(len, groups.values())]}")
    lines = sum(1.5 + sum(_height(branch) for branch in branches) for branches in groups.values())
    with figure(path, 11.0, FRAME + LINE * lines) as sheet:
        sheet.set_layout_engine("constrained")
        sheet.suptitle(plain(title, 100), fontsize=11, fontweight="bold")
        axes = sheet.subplots()
        if zero:
            axes.axvline(0.0, color=FAINT, linewidth=1.0)
        _draw_groups(axes, groups, lines, zero)
        axes.margins(x=0.05)
        row_axes(axes, plain(xlabel, 100))
        _legend(sheet, ours, printed if any(b.printed for group in groups.values() for b in group) else "")


def _height(branch: Branch) -> float:
    """Lines of text that a branch takes, the space around it included."""
    return 1.0 + 0.75 * len(_wrapped(branch.label))


def _wrapped(label: str) -> list[str]:
    """``label`` in at most two lines, cut between words."""
    import textwrap

    return [plain(line, LABEL) for line in textwrap.wrap(label, LABEL, max_lines=2, placeholder=" ...")] or [""]


def _draw_groups(axes: Axes, groups: Mapping[str, Sequence[Branch]], lines: float, zero: bool) -> None:
    place, heights, labels = 0.0, [], []
    for heading, branches in groups.items():
        axes.text(
            0.0, place + 0.75, plain(heading, 90), fontsize=9, fontweight="bold", va="center",
            transform=axes.get_yaxis_transform(), bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
        place += 1.5
        for branch in branches:
            middle = place + _height(branch) / 2
            _draw_branch(axes, branch, middle, zero)
            heights.append(middle)
            labels.append("\n".join(_wrapped(branch.label)))
            place += _height(branch)
        axes.axhline(place, color=FAINT, alpha=0.4, linewidth=0.6)
    axes.set_yticks(heights, labels)
    axes.set_ylim(lines, 0.0)


def _draw_branch(axes: Axes, branch: Branch, height: float, zero: bool) -> None:
    color = INK if zero and branch.low <= 0 <= branch.high else COLORS[0]
    above = height - 0.25 if branch.printed else height
    draw_interval(axes, (branch.value, branch.low, branch.high), above, color, 5)
    told = f"{branch.value:.2f} [{branch.low:.2f}, {branch.high:.2f}]"
    if branch.printed:
        value, half = branch.printed
        if half:
            axes.plot([value - half, value + half], [height + 0.4] * 2, color=FAINT, linewidth=1.0)
        axes.plot([value], [height + 0.4], color=FAINT, marker="D", markersize=5, markerfacecolor="white")
        told += f"\n{value:.2f}" + ("" if half is None else f" ± {half:.2f}") + " printed"
    axes.text(1.015, height, told, fontsize=7.5, va="center", transform=axes.get_yaxis_transform())


def _legend(sheet: Figure, ours: str, printed: str) -> None:
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], color=COLORS[0], marker="o", markersize=5, linewidth=2.0, label=plain(ours, 70))]
    if printed:
        mark = Line2D([], [], color=FAINT, marker="D", markersize=5, linewidth=1.0, label=plain(printed, 70))
        mark.set_markerfacecolor("white")
        marks.append(mark)
    sheet.legend(handles=marks, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
