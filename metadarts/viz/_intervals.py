"""Measured shares side by side, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping

from metadarts.core.errors import ConfigError

from ._canvas import INK, Target, figure, name_rows, row_axes
from ._curve import COLORS


def draw_intervals(rows: Mapping[str, tuple[float, float]], path: Target, *, xlabel: str, title: str = "") -> None:
    """Write one bar per row, the first one in colour, with whiskers of half the interval to either side.

    Args:
        rows: by name (value, half of its interval), values from 0 to 1, in the order from top to bottom.
        path: the file, ending in .svg or .png (its folder is created if missing), or a `Picture`.
        xlabel: under the horizontal axis.
        title: printed on top.

    Raises:
        ConfigError: when there are no rows.
    """
    if not rows:
        raise ConfigError("expected at least one measured row, got none")
    from matplotlib.ticker import PercentFormatter

    with figure(path, 9.0, 1.0 + 0.42 * len(rows)) as sheet:
        sheet.set_layout_engine("constrained")
        axes = sheet.subplots()
        for height, (value, half) in enumerate(rows.values()):
            axes.barh(height, value, height=0.62, color=COLORS[0] if height == 0 else "#c3cad4", linewidth=0)
            axes.errorbar(value, height, xerr=half, color=INK, linewidth=1.2, capsize=3)
            axes.text(value + half + 0.012, height, f"{value:.1%} ± {half:.1%}", fontsize=8, va="center")
        name_rows(axes, rows)
        axes.set_xlim(0, 1.12)
        axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_title(title, fontsize=11, fontweight="bold")
        row_axes(axes, xlabel)
