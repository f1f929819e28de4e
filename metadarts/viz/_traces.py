"""How the mixing weight of every operation on every edge moves over a run."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from metadarts.core.errors import GenotypeError
from metadarts.spaces import Genotype, SearchSpace

from ._alphas import HEADINGS, as_table, state_name
from ._canvas import FAINT, INK, Target, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from metadarts.relaxations import Relaxation

COLUMNS = 160
"""Time is drawn in at most so many columns; each shows the last alphas recorded until then."""
LAST = 40
"""What was recorded last is shown as if it stood for a 40th of the run."""
LEAST_LIMIT = 0.07
"""The colours reach at least this far (in doublings, 5 %), so that noise at the start does not look like a choice."""


def draw_alpha_history(
    steps: Sequence[int],
    alphas: Sequence[Any],
    cell: str,
    space: SearchSpace,
    path: Target,
    title: str = "",
    relaxation: Relaxation | None = None,
    *,
    kept: Genotype | None = None,
) -> None:
    """Write one small heat map per edge of ``cell``: operations as rows, time to the right, colour the mixing weight.

    The panels are arranged as in the upper triangle of the cell: a row per node, a column per source. Colour is the
    mixing weight relative to the uniform weight 1/P on a log2 scale: white is uniform. A dot on the right edge marks
    the operation that derivation keeps at the end.

    Args:
        steps: when the alphas were recorded, in ascending order.
        alphas: the raw alphas over operations at each of them, array-like [E, P].
        cell: "normal" or "reduce".
        space: names edges and operations.
        path: the file, ending in .svg or .png (its folder is created if missing), or a `Picture`.
        title: printed on top, before the name of the cell.
        relaxation: from alphas to weights; None is the softmax.
        kept: what derivation keeps at the end; None derives it from the last alphas, which takes a space whose alphas
            choose operations alone.

    Raises:
        GenotypeError: when there are no alphas, not as many as steps, a shape is not [E, P], ``kept`` is no genotype of
            ``space``, or it is missing in a space that has alphas for inputs.
        NumericsError: when an alpha is NaN or infinite.
    """
    import torch

    from metadarts.derive import derive_genotype
    from metadarts.relaxations import DEFAULT_RELAXATION

    relaxation = relaxation or DEFAULT_RELAXATION
    if len(alphas) == 0 or len(alphas) != len(steps):
        raise GenotypeError(f"expected alphas at each of the steps, got {len(alphas)} for {len(steps)} steps")
    if kept is None and space.inputs_by != "rule":
        raise GenotypeError(
            f"space {space.name!r} has alphas for inputs too, which decide what is kept: give the genotype as `kept`"
        )
    tables = [as_table(cell, values) for values in alphas]
    alone = replace(space, cell_types=(cell,), inputs_by="rule")
    derived = [derive_genotype({cell: table}, alone, relaxation) for table in tables]  # which checks every table
    if kept is None:
        kept = derived[-1]
    else:
        kept.validate(space)
    weights = relaxation.scores(torch.stack(tables)).clamp(min=torch.finfo(torch.float64).tiny)  # 0 has no logarithm
    doublings = weights.mul(len(space.primitives)).log2()  # [T, E, P]
    limit = max(float(doublings.abs().max().clamp(max=6.0)), LEAST_LIMIT)
    edges = (float(steps[0]), end_of(steps))
    columns = [bisect_right(steps, x) - 1 for x in _middles(edges)]
    shown = doublings[[max(0, column) for column in columns]]  # [columns, E, P]
    with figure(path, max(6.8, 2.0 + 1.75 * (space.inputs + space.nodes - 1)), 1.45 + 1.25 * space.nodes) as sheet:
        sheet.suptitle(", ".join(filter(None, (title, HEADINGS[cell]))), fontsize=11, fontweight="bold")
        _draw_panels(sheet, shown, limit, edges, kept, cell, space)


def end_of(steps: Sequence[int]) -> float:
    """Where time ends in a picture: a little after the last record, which would have no width otherwise."""
    return steps[-1] + max(1.0, (steps[-1] - steps[0]) / LAST)


def _middles(edges: tuple[float, float]) -> list[float]:
    low, high = edges
    return [low + (high - low) * (column + 0.5) / COLUMNS for column in range(COLUMNS)]


def _draw_panels(
    sheet: Figure,
    shown: Tensor,
    limit: float,
    edges: tuple[float, float],
    genotype: Genotype,
    cell: str,
    space: SearchSpace,
) -> None:
    width = space.inputs + space.nodes - 1
    grid = sheet.add_gridspec(
        space.nodes, width, left=0.12, right=0.985, top=1 - 0.62 / sheet.get_figheight(),
        bottom=1.0 / sheet.get_figheight(), hspace=0.42, wspace=0.12,
    )  # fmt: skip
    kept = {(node, source): op for node, source, op in genotype.choices(cell)}
    for row, (node, source) in enumerate(space.edges):
        axes = sheet.add_subplot(grid[node, source])
        image = axes.imshow(
            shown[:, row].T.tolist(),
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            aspect="auto",
            interpolation="nearest",
            extent=(*edges, len(space.primitives) - 0.5, -0.5),
        )
        _label_panel(axes, node, source, space, kept.get((node, source)))
    _draw_key(sheet, image, limit, len(space.primitives))


def _label_panel(axes: Axes, node: int, source: int, space: SearchSpace, kept: str | None) -> None:
    from matplotlib.ticker import MaxNLocator

    name = f"{state_name(source, space)} → {node}"
    axes.set_title(name, fontsize=8, pad=4.5, fontweight="bold" if kept else "normal", color=INK if kept else FAINT)
    axes.set_yticks(range(len(space.primitives)), space.primitives if source == 0 else [])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    axes.tick_params(axis="y", labelsize=6, length=0)
    axes.tick_params(axis="x", labelsize=6, length=2, labelbottom=node == space.nodes - 1)
    axes.spines[:].set(linewidth=1.4 if kept else 0.5, color=INK if kept else FAINT)
    if node == space.nodes - 1:
        axes.set_xlabel("meta-step", fontsize=6.5, labelpad=1.5)
    if kept:
        height = space.primitives.index(kept)
        axes.plot([1.0], [height], "o", color=INK, markersize=4.5, markeredgecolor="white", markeredgewidth=0.8,
                  transform=axes.get_yaxis_transform(), clip_on=False)  # fmt: skip


def _draw_key(sheet: Figure, image: Any, limit: float, operations: int) -> None:
    """Along the bottom: what the colours mean, as multiples of the even weight, and what the dots mean."""
    width, height = sheet.get_size_inches()
    bar = sheet.colorbar(image, cax=sheet.add_axes((1.05 / width, 0.3 / height, 2.2 / width, 0.11 / height)),
                         orientation="horizontal")  # fmt: skip
    ticks = [-limit, 0.0, limit]
    bar.set_ticks(ticks, labels=[f"× {2**tick:.3g}" if tick else f"even: 1/{operations}" for tick in ticks])
    bar.ax.tick_params(labelsize=7, length=2)
    lines = ("colour: mixing weight of an operation", "● and a bold frame: kept by derivation at the end")
    for line, text in enumerate(lines):
        sheet.text(3.7 / width, (0.4 - 0.17 * line) / height, text, fontsize=7.5, va="center", color=INK)
