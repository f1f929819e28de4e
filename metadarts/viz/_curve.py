"""Curves over steps, such as query accuracy during adaptation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from metadarts.core.errors import ConfigError

from ._canvas import FAINT, Target, figure

Dash = Literal["-", "--", ":", "-."]
COLORS = ("#1f5fa8", "#b3541e", "#2f7d4f", "#b0307a", "#6a3fa0", "#0d7a80", "#a8690a", "#5f6673")
DASHES: tuple[Dash, ...] = ("-", "--", ":", "-.")


def draw_curve(
    curves: Mapping[str, Sequence[float]],
    path: Target,
    *,
    xlabel: str = "step",
    ylabel: str = "",
    title: str = "",
) -> None:
    """Write a line plot of named curves over 0, 1, 2, ...; a NaN leaves a gap.

    Args:
        curves: by name, one value per step; lengths may differ.
        path: the file, ending in .svg or .png (its folder is created if missing), or a `Picture`.
        xlabel: under the horizontal axis.
        ylabel: beside the vertical axis.
        title: printed on top.

    Raises:
        ConfigError: when there is no curve, a curve is empty, or the suffix is neither .svg nor .png.
    """
    empty = [name for name, values in curves.items() if len(values) == 0]
    if empty or not curves:
        raise ConfigError(f"expected at least one curve with values, got {f'empty {empty}' if empty else 'none'}")
    from matplotlib.ticker import MaxNLocator

    with figure(path, 6.0, 3.7) as sheet:
        sheet.set_layout_engine("constrained")
        axes = sheet.subplots()
        for index, (name, values) in enumerate(curves.items()):
            (line,) = axes.plot(range(len(values)), values, color=COLORS[index % len(COLORS)], label=name)
            line.set_linestyle(DASHES[index // len(COLORS) % len(DASHES)])
            line.set(marker="o" if len(values) <= 25 else "", markersize=3.5)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.set_title(title, fontsize=11, fontweight="bold")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color=FAINT, alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
