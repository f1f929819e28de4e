"""Measurements over the steps of a run: curves with interval bands, on one or more panels of one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from metadarts.core.errors import ConfigError

from ._canvas import FAINT, Target, figure
from ._curve import COLORS, Dash

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMOOTH_FROM = 24
"""A noisy series of at least so many points is drawn faint, with its running mean on top."""
NEAR = 20
"""A logarithmic axis that spans less than this factor has no two powers of ten to read it by."""


@dataclass(frozen=True)
class Series:
    """One measured quantity.

    Args:
        steps: where it was measured, in ascending order.
        values: one per step; a NaN leaves a gap.
        interval: half the width of the band around each value; empty for no band.
        noisy: single samples rather than means, so that a running mean helps the eye.
        color: a matplotlib colour; empty for the next of the usual ones.
        dash: how the line is drawn, as matplotlib writes it.
    """

    steps: Sequence[float]
    values: Sequence[float]
    interval: Sequence[float] = ()
    noisy: bool = False
    color: str = ""
    dash: Dash = "-"


@dataclass(frozen=True)
class Panel:
    """One coordinate system.

    Args:
        label: what the vertical axis measures, with its unit.
        series: by name, as the legend says it.
        log: a logarithmic vertical axis; values that are not positive leave gaps.
        lines: horizontal lines by name, such as chance.
        whole: only whole numbers on the vertical axis, which then starts at 0.
        span: the vertical axis shows at least this much, so that small changes do not look large.
    """

    label: str
    series: Mapping[str, Series]
    log: bool = False
    lines: Mapping[str, float] = field(default_factory=dict)
    whole: bool = False
    span: float = 0.0


def draw_history(panels: Sequence[Panel], path: Target, *, xlabel: str = "meta-step", title: str = "") -> None:
    """Write ``panels`` side by side over a common kind of horizontal axis.

    Args:
        panels: at least one, each with at least one series.
        path: the file, ending in .svg or .png (its folder is created if missing), or a `Picture`.
        xlabel: under each horizontal axis.
        title: printed on top.

    Raises:
        ConfigError: when there is nothing to draw, or a series has not one value (and interval) per step.
    """
    _check(panels)
    with figure(path, 1.2 + 4.4 * len(panels), 3.5) as sheet:
        sheet.set_layout_engine("constrained")
        sheet.suptitle(title, fontsize=11, fontweight="bold")
        for axes, panel in zip(sheet.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw_panel(axes, panel)
            axes.set_xlabel(xlabel)


def _check(panels: Sequence[Panel]) -> None:
    every = [(name, series) for panel in panels for name, series in panel.series.items()]
    if not every or not all(panel.series for panel in panels):
        raise ConfigError("expected panels with at least one series each, got none: give what was measured")
    for name, series in every:
        lengths = {len(series.steps), len(series.values), len(series.interval or series.values)}
        if len(lengths) > 1 or not series.steps:
            raise ConfigError(
                f"series {name!r}: expected one value (and interval) per step, at least one, got {len(series.steps)} "
                f"steps, {len(series.values)} values and {len(series.interval)} intervals"
            )


def _draw_panel(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    for index, (name, series) in enumerate(panel.series.items()):
        _draw_series(axes, name, series, series.color or COLORS[index % len(COLORS)], panel.log)
    for name, height in panel.lines.items():
        axes.axhline(height, color=FAINT, linestyle=":", linewidth=1.3, label=name, zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    if panel.log:
        _log_scale(axes)
    if panel.whole:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(-0.3, max(3.3, axes.get_ylim()[1]))
    low, high = axes.get_ylim()
    if high - low < panel.span:
        axes.set_ylim((low + high - panel.span) / 2, (low + high + panel.span) / 2)
    tame(axes, panel.label)


def _log_scale(axes: Axes) -> None:
    """A logarithmic axis with plain numbers; within a decade or so those between the powers of ten are printed too."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log", nonpositive="mask")
    low, high = axes.get_ylim()
    near, plain_numbers = high / low < NEAR, FuncFormatter(lambda value, _: f"{value:.3g}")
    axes.yaxis.set_major_formatter(plain_numbers)
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 4, 5, 6, 8) if near else (2, 5)))
    axes.yaxis.set_minor_formatter(plain_numbers if near else NullFormatter())


def tame(axes: Axes, label: str) -> None:
    """The looks that all curves share: a faint grid, no box, a small legend."""
    axes.set_ylabel(label, fontsize=9)
    axes.tick_params(which="both", labelsize=8)
    axes.grid(color=FAINT, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def _draw_series(axes: Axes, name: str, series: Series, color: str, log: bool) -> None:
    values = [value if not log or value > 0 else math.nan for value in series.values]
    smooth = series.noisy and len(values) >= SMOOTH_FROM
    if smooth:
        axes.plot(series.steps, values, color=color, alpha=0.28, linewidth=0.8)
        axes.plot(series.steps, running_mean(values), color=color, linewidth=1.8, label=name)
    else:
        marker = "o" if len(values) <= 40 and series.dash == "-" else ""
        axes.plot(
            series.steps, values, color=color, linewidth=1.6, linestyle=series.dash, marker=marker, markersize=3.5,
            label=name,
        )  # fmt: skip
    if series.interval:
        low = [value - half for value, half in zip(values, series.interval, strict=True)]
        high = [value + half for value, half in zip(values, series.interval, strict=True)]
        axes.fill_between(series.steps, low, high, color=color, alpha=0.16, linewidth=0)
        if len(values) == 1:
            axes.errorbar(series.steps, values, yerr=list(series.interval), color=color, capsize=3)


def running_mean(values: Sequence[float]) -> list[float]:
    """Each value's mean with its neighbours, over about a twelfth of all; NaNs are left out, ends use fewer."""
    reach = max(1, len(values) // 24)
    means = []
    for index in range(len(values)):
        near = [value for value in values[max(0, index - reach) : index + reach + 1] if math.isfinite(value)]
        means.append(sum(near) / len(near) if near else math.nan)
    return means
