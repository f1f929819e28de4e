"""The same curve at several times of a run, early to late, as one bundle from pale to dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from metadarts.core.errors import ConfigError

from ._canvas import Target, figure
from ._history import tame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RAMP = ("#c9dcf2", "#8fb8e0", "#4f8fca", "#1f5fa8", "#0b2f5c")
LEGEND = 6


def draw_validations(
    steps: Sequence[int],
    curves: Mapping[str, Sequence[Sequence[float]]],
    path: Target,
    *,
    xlabel: str = "inner step",
    title: str = "",
) -> None:
    """Write one panel per measured quantity, its curves over 0, 1, 2, ..., the darker the later they were taken.

    Args:
        steps: the meta-step of each validation, in ascending order.
        curves: by label of the vertical axis, for each validation the values after 0, 1, 2, ... inner steps; they may
            differ in length.
        path: the file, ending in .svg or .png (its folder is created if missing), or a `Picture`.
        xlabel: under the horizontal axes.
        title: printed on top.

    Raises:
        ConfigError: when there is nothing to draw, or not one curve per validation.
    """
    if not steps or not curves:
        raise ConfigError(f"expected at least one validation and one quantity, got {len(steps)} and {len(curves)}")
    for label, bundle in curves.items():
        if len(bundle) != len(steps) or not all(len(curve) for curve in bundle):
            expected = f"expected a curve with values for each of {len(steps)} validations"
            raise ConfigError(f"{label}: {expected}, got {len(bundle)}")
    with figure(path, 1.2 + 4.4 * len(curves), 3.5) as sheet:
        sheet.set_layout_engine("constrained")
        sheet.suptitle(title, fontsize=11, fontweight="bold")
        for axes, (label, bundle) in zip(sheet.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
            _draw_bundle(axes, steps, bundle)
            axes.set_xlabel(xlabel)
            tame(axes, label)


def _draw_bundle(axes: Axes, steps: Sequence[int], bundle: Sequence[Sequence[float]]) -> None:
    from matplotlib.ticker import MaxNLocator

    named = {round((len(bundle) - 1) * share / (LEGEND - 1)) for share in range(LEGEND)}
    for index, (step, curve, shade) in enumerate(zip(steps, bundle, ramp(len(bundle)), strict=True)):
        name = f"meta-step {step}" if index in named else None
        (line,) = axes.plot(range(len(curve)), curve, color=shade, label=name, linewidth=1.6)
        line.set(marker="o" if len(curve) <= 25 else "", markersize=3.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def ramp(count: int) -> list[str]:
    """``count`` colours from pale (early) to dark (late); a single one is dark."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    shades = LinearSegmentedColormap.from_list("validations", RAMP)
    return [to_hex(shades(index / (count - 1) if count > 1 else 1.0)) for index in range(count)]
