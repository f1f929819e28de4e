"""Means with their intervals around zero, some rows to a panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from metadarts.core.errors import ConfigError

from ._canvas import FAINT, INK, Target, figure, name_rows, plain, row_axes
from ._curve import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW, HEAD = 0.34, 0.75
"""Inches: of a row, and around the rows of a panel."""


class Ranges(NamedTuple):
    """One panel.

    Args:
        label: under its horizontal axis, unit included.
        rows: by name (mean, low, high), in the order from top to bottom.
    """

    label: str
    rows: Mapping[str, tuple[float, float, float]]


def draw_ranges(panels: Sequence[Ranges], path: Target, *, title: str = "") -> None:
    """Write the panels one below another: a dot for each mean, a line for its interval, and where zero is.

    A row whose interval does not hold zero is in colour.

    Args:
        panels: each with at least one row.
        path: the file, ending in .svg or .png (its folder is created if missing), or a `Picture`.
        title: printed on top; any text.

    Raises:
        ConfigError: when there is no panel, one has no rows, or the ending is neither .svg nor .png.
    """
    empty = [panel.label for panel in panels if not panel.rows]
    if empty or not panels:
        raise ConfigError(f"expected at least one panel with rows, got {f'empty {empty}' if empty else 'none'}")
    heights = [HEAD + ROW * len(panel.rows) for panel in panels]
    with figure(path, 8.0, sum(heights) + 0.4) as sheet:
        sheet.set_layout_engine("constrained")
        sheet.suptitle(plain(title, 90), fontsize=11, fontweight="bold")
        found = sheet.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, panel in zip(found, panels, strict=True):
            _draw_panel(axes, panel)


def _draw_panel(axes: Axes, panel: Ranges) -> None:
    axes.axvline(0.0, color=FAINT, linewidth=1.0)
    for height, (mean, low, high) in enumerate(panel.rows.values()):
        draw_interval(axes, (mean, low, high), height, INK if low <= 0 <= high else COLORS[0], 6)
    name_rows(axes, panel.rows)
    axes.margins(x=0.08)
    row_axes(axes, panel.label)


def draw_interval(axes: Axes, ends: tuple[float, float, float], height: float, color: str, size: float) -> None:
    """A dot of ``size`` points at the mean of ``ends`` (mean, low, high), and a line for the interval."""
    mean, low, high = ends
    axes.plot([low, high], [height, height], color=color, linewidth=2.0, solid_capstyle="butt")
    axes.plot([mean], [height], color=color, marker="o", markersize=size)
