"""The cell of a supernet at some moments of a run: its edges fade in as the run commits to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from metadarts.core.errors import GenotypeError, NumericsError
from metadarts.spaces import SearchSpace

from ._alphas import as_table, state_name
from ._canvas import FAINT, INK, Target, figure, plain
from ._shades import shades

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from metadarts.operations import Operation

ASPECT = 0.42
"""Height of an arc, as a share of its span."""
RADIUS, LANE = 0.27, 0.11
"""Of a state; what parts two arcs that leave or reach the same state. The unit is the distance of two states."""
UNIT, HEAD, KEY = 0.52, 0.3, 0.17
"""Inches: of that unit, of a caption, of a line of the key to the colours."""
LONGEST = 24
THIN, THICK, PALEST = 0.5, 3.6, 0.12
"""Points: width of an arc of weight 0, and what a weight of 1 adds; opacity of the weakest arc."""


class CellMoment(NamedTuple):
    """A cell at one moment.

    Args:
        caption: printed above it.
        weights: its mixing weights, array-like [E, P], each edge's own factor included.
    """

    caption: str
    weights: Any


class _Edge(NamedTuple):
    weight: float
    color: str
    node: int
    source: int


def draw_fading_cells(
    moments: Sequence[CellMoment],
    space: SearchSpace,
    path: Target,
    title: str = "",
    *,
    columns: int = 3,
    operations: Mapping[str, Operation] | None = None,
) -> None:
    """Write one small picture of the cell for each moment, in rows of ``columns``.

    States are in a row; arcs above come from the cell's inputs, arcs below from nodes. An arc has the colour of the
    edge's operation with the largest weight other than ``none``; its opacity and width increase with this weight. All
    moments share one scale: a weight of 1 is opaque.

    Args:
        space: names the states and the operations.
        path: the file, ending in .svg or .png (its folder is created if missing), or a `Picture`.
        title: printed on top.
        operations: table of operations, e.g. with a user's entries; None for those of `metadarts.operations`.

    Raises:
        ConfigError: when the suffix is neither .svg nor .png.
        GenotypeError: when there is no moment, or weights are not [E, P].
        NumericsError: when a weight is NaN or infinite.
    """
    if not moments:
        raise GenotypeError("expected at least one moment of the cell, got none")
    colors = shades(space.operations, operations)
    drawn = [(moment.caption, _edges(moment, space, colors)) for moment in moments]
    low, high = _depth(space)
    wide, tall = UNIT * (space.inputs + space.nodes + 0.4), UNIT * (high - low) + HEAD
    columns = min(columns, len(moments))
    rows, top, width = -(-len(moments) // columns), 0.4 if title else 0.0, columns * wide
    names = {plain(name, LONGEST): color for name, color in colors.items()}
    beside = max(1, int(width / (0.5 + 0.068 * max(map(len, names)))))
    height = rows * tall + top + 0.2 + KEY * -(-len(names) // beside)
    with figure(path, width, height) as sheet:
        if title:
            sheet.suptitle(title, fontsize=11, fontweight="bold", y=1 - 0.14 / height)
        for place, (caption, edges) in enumerate(drawn):
            row, column = divmod(place, columns)
            bottom = height - top - (row + 1) * tall
            corner = (column * wide / width, bottom / height, wide / width, (tall - HEAD) / height)
            _draw_moment(sheet.add_axes(corner), space, edges, caption, (low, high))
        _draw_key(sheet, names, beside)


def _edges(moment: CellMoment, space: SearchSpace, colors: Mapping[str, str]) -> list[_Edge]:
    """Every edge with its heaviest operation, the lightest edge first: it is drawn below the others."""
    table = as_table(f"{moment.caption!r}", moment.weights)
    if tuple(table.shape) != space.alpha_shape:
        raise GenotypeError(f"{moment.caption!r}: expected weights {space.alpha_shape}, got {tuple(table.shape)}")
    if not bool(table.isfinite().all()):
        raise NumericsError(f"{moment.caption!r}: expected finite weights")
    columns = [column for column, name in enumerate(space.primitives) if name != space.none]
    edges = []
    for (node, source), row in zip(space.edges, table.tolist(), strict=True):
        best = max(columns, key=row.__getitem__)
        edges.append(_Edge(min(max(row[best], 0.0), 1.0), colors[space.primitives[best]], node, source))
    return sorted(edges, key=lambda edge: edge.weight)


def _depth(space: SearchSpace) -> tuple[float, float]:
    """The lowest and the highest point of a picture, in units."""
    above = ASPECT * (space.inputs + space.nodes - 1 + 2 * LANE * space.nodes)
    below = ASPECT * (space.nodes - 1 + 2 * LANE * space.nodes) if space.nodes > 1 else 0.0
    return -below - RADIUS - 0.1, above + RADIUS + 0.1


def _draw_moment(
    axes: Axes, space: SearchSpace, edges: Sequence[_Edge], caption: str, heights: tuple[float, float]
) -> None:
    states = space.inputs + space.nodes
    axes.set(xlim=(-0.7, states - 0.3), ylim=heights)
    axes.axis("off")
    axes.set_title(caption, fontsize=9, pad=2)
    for edge in edges:
        _draw_arc(axes, edge, space)
    for state in range(states):
        _draw_state(axes, state, space)


def _draw_arc(axes: Axes, edge: _Edge, space: SearchSpace) -> None:
    """Half an ellipse with a head. A longer arc leaves before and lands behind a shorter one, so that none cross."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    state, up = edge.node + space.inputs, 1.0 if edge.source < space.inputs else -1.0
    lowest = 0 if up > 0 else space.inputs
    highest = space.inputs if up > 0 else space.nodes + space.inputs
    start = edge.source + LANE * (0.5 - edge.node / max(1, space.nodes - 1))
    stop = state + LANE * (min(state, highest) - 1 - edge.source - (min(state, highest) - 1 - lowest) / 2)
    rise = up * (RADIUS + ASPECT * (stop - start)) * 4 / 3  # a cubic reaches three quarters of the way to its handles
    curve = Path([(start, 0.0), (start, rise), (stop, rise), (stop, 0.0)], [Path.MOVETO, *[Path.CURVE4] * 3])
    look = {"alpha": max(PALEST, edge.weight), "zorder": 2 + edge.weight}
    axes.add_patch(
        PathPatch(curve, facecolor="none", edgecolor=edge.color, linewidth=THIN + THICK * edge.weight, **look)
    )


def _draw_state(axes: Axes, state: int, space: SearchSpace) -> None:
    from matplotlib.patches import Circle

    given = state < space.inputs
    axes.add_patch(Circle((state, 0.0), RADIUS, facecolor="#eef0f3" if given else "white", edgecolor=INK, zorder=4))
    name, size = state_name(state, space), 6.0 if given else 8.5
    axes.text(state, 0.0, name, ha="center", va="center_baseline", fontsize=size, color=INK, zorder=5)


def _draw_key(sheet: Figure, colors: Mapping[str, str], beside: int) -> None:
    """The operations by colour along the bottom, so many ``beside`` one another."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=color, linewidth=3, label=name) for name, color in colors.items()]
    look = {"fontsize": 7, "frameon": False, "labelcolor": FAINT, "handlelength": 1.4, "columnspacing": 1.4}
    sheet.legend(handles=handles, loc="lower center", ncols=min(beside, len(handles)), **look)
