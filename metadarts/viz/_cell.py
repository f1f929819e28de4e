"""Draw the two cells of a genotype, left to right."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from metadarts.core.errors import GenotypeError
from metadarts.spaces import Genotype

from ._canvas import FAINT, INK, Target, figure
from ._layout import BLOCK, OUTPUT, OUTPUT_STEP, Layout, Wire, lay_out
from ._shades import box_colors, shades

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.path import Path

    from metadarts.operations import Operation

WIRES = ("#2b2f36", "#0d7a80", "#b3541e", "#2f7d4f", "#b0307a", "#2a6fb5")
NAMES = {"normal": "normal cell", "reduce": "reduction cell"}
HALO, RIM = "#ffd23f", "#c2185b"
PITCH, BOX, RADIUS, TERMINAL = 4.6, 1.95, 0.3, 0.62
INCH = 0.42
Choice = tuple[int, int, str]
"""A kept edge as `Genotype.choices` lists it: (node, input, operation)."""


def draw_genotype(
    genotype: Genotype,
    path: Target,
    title: str = "",
    *,
    inputs: int = 2,
    operations: Mapping[str, Operation] | None = None,
) -> None:
    """Write a picture of the normal and the reduction cell; ``path`` ends in .svg or .png.

    Args:
        genotype: what to draw; a cell type without pairs is left out.
        path: the file; its folder is created if missing. The same genotype gives the same SVG bytes.
        title: printed on top.
        inputs: how many outputs of earlier cells a cell reads.
        operations: table of operations, e.g. with a user's entries; None for those of `metadarts.operations`.

    Raises:
        ConfigError: when the suffix is neither .svg nor .png.
        GenotypeError: when the genotype has no pairs at all.
    """
    layouts, colors = lay_out_cells(genotype, inputs), colors_of([genotype], operations)
    spans = {cell: span(layout) for cell, layout in layouts.items()}
    width = width_of(layouts)
    height = sum(top - bottom for bottom, top in spans.values()) + (0.9 if title else 0.0)
    with figure(path, width * INCH, height * INCH) as sheet:
        top = 1.0
        if title:
            sheet.text(0.5, 1 - 0.5 / height, title, ha="center", va="center", fontsize=11, fontweight="bold")
            top -= 0.9 / height
        for cell, layout in layouts.items():
            low, high = spans[cell]
            share = (high - low) / height
            axes = cell_axes(sheet, (0.0, top - share, 1.0, share), width, (low, high), cell)
            top -= share
            draw_cell(axes, layout, inputs, colors)


def lay_out_cells(genotype: Genotype, inputs: int) -> dict[str, Layout]:
    """The layout of every cell type that has pairs, the normal cell first. Raises GenotypeError when none has."""
    cells = [cell for cell in NAMES if genotype.pairs(cell)]
    if not cells:
        raise GenotypeError("nothing to draw: expected a genotype with at least one cell, got one without pairs")
    return {cell: lay_out(genotype.choices(cell), genotype.concat(cell), inputs) for cell in cells}


def colors_of(
    genotypes: Collection[Genotype], operations: Mapping[str, Operation] | None
) -> dict[str, tuple[str, str]]:
    """Operation -> the face of its box, and its rim and letters."""
    names = dict.fromkeys(op for genotype in genotypes for cell in NAMES for _, _, op in genotype.choices(cell))
    return {name: box_colors(shade) for name, shade in shades(names, operations).items()}


def width_of(layouts: dict[str, Layout]) -> float:
    """How wide the widest cell is, margins included; a unit is `INCH` inches."""
    return max(PITCH * (layout.columns - 1) + 2.2 for layout in layouts.values())


def cell_axes(
    sheet: Figure, place: tuple[float, float, float, float], width: float, heights: tuple[float, float], cell: str
) -> Axes:
    """Axes at ``place`` (left, bottom, width and height as shares of the sheet) that name their cell type."""
    axes = sheet.add_axes(place)
    axes.set(xlim=(-1.1, width - 1.1), ylim=heights)
    axes.axis("off")
    axes.text(-0.75, heights[1] - 0.35, NAMES[cell], fontsize=9, color=FAINT, va="center")
    return axes


def span(layout: Layout) -> tuple[float, float]:
    """The lowest and highest point of a cell, with room for its name."""
    heights = [y for _, y in layout.place.values()] + [y for _, y in layout.lanes]
    return min(heights) - BLOCK / 2 - 0.25, max(heights) + BLOCK / 2 + 0.75


def draw_cell(
    axes: Axes, layout: Layout, inputs: int, colors: Mapping[str, tuple[str, str]], marked: Collection[Choice] = ()
) -> None:
    """Draw one cell into its axes; the operations of the ``marked`` choices stand out."""
    arrivals = {(wire.column + 1, wire.stop): wire.state for wire in layout.wires if not wire.lane}
    for state in layout.place:
        _draw_wires(axes, layout, [wire for wire in layout.wires if wire.state == state])
    for state, boxes in layout.boxes.items():
        column = layout.place[state][0]
        marks = [(state - inputs, arrivals.get((column, height)), op) in marked for op, height in boxes]
        faces = [colors[op] for op, _ in boxes]
        _draw_node(axes, layout, (state, str(state - inputs)), list(zip(marks, faces, strict=True)))
    for state in (*range(inputs), OUTPUT):
        name = "$c_{k}$" if state == OUTPUT else f"$c_{{k-{inputs - state}}}$"
        _draw_terminal(axes, layout, state, name)


def _x_in(layout: Layout, column: int) -> float:
    """Where wires enter a column."""
    return PITCH * column - (TERMINAL if column in (0, layout.columns - 1) else BOX / 2 + 0.5)


def _x_out(layout: Layout, column: int) -> float:
    """Where wires leave a column."""
    return PITCH * column + (TERMINAL if column == 0 else BOX / 2 + 0.9)


def _draw_wires(axes: Axes, layout: Layout, wires: list[Wire]) -> None:
    """The wires of one state: first white halos, which part them from wires below, then the lines themselves."""
    from matplotlib.patches import PathPatch

    for wire in wires:
        axes.add_patch(PathPatch(_curve(layout, wire), fill=False, edgecolor="white", linewidth=4.0, capstyle="butt"))
    for wire in wires:
        color = _color(wire.state)
        axes.add_patch(PathPatch(_curve(layout, wire), fill=False, edgecolor=color, linewidth=1.3, capstyle="round"))
        if not wire.lane:
            stop = _x_in(layout, wire.column + 1)
            _arrow(axes, (stop - 0.05, wire.stop), (stop, wire.stop), color)


def _curve(layout: Layout, wire: Wire) -> Path:
    """An S across the gap, then straight on along the lane if the wire has one."""
    from matplotlib.path import Path

    start, stop = _x_out(layout, wire.column), _x_in(layout, wire.column + 1)
    end = _x_out(layout, wire.column + 1) if wire.lane else stop
    middle = (start + stop) / 2
    points = [(start, wire.start), (middle, wire.start), (middle, wire.stop), (stop, wire.stop), (end, wire.stop)]
    return Path(points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.LINETO])


def _color(state: int) -> str:
    """The colour of everything that carries ``state``."""
    return INK if state == OUTPUT else WIRES[state % len(WIRES)]


def _arrow(axes: Axes, start: tuple[float, float], stop: tuple[float, float], color: str) -> None:
    style = {"arrowstyle": "-|>,head_width=0.16,head_length=0.34", "color": color, "linewidth": 1.3}
    axes.annotate("", xy=stop, xytext=start, arrowprops=style | {"shrinkA": 0, "shrinkB": 0})


def _draw_node(axes: Axes, layout: Layout, named: tuple[int, str], looks: list[tuple[bool, tuple[str, str]]]) -> None:
    """The node ``named`` (state, name) and its operations, each marked or not, in its colours."""
    from matplotlib.patches import Circle

    state, name = named
    column, middle = layout.place[state]
    left, right = _x_in(layout, column), _x_out(layout, column)
    for (op, height), (mark, colors) in zip(layout.boxes[state], looks, strict=True):
        axes.plot([left + BOX, right - RADIUS], [height, middle], color=INK, linewidth=1.1, zorder=2)
        if mark:
            draw_halo(axes, left + 0.06, height, BOX - 0.06)
        _box(axes, (left, height), op, colors)
    spot, color = (right - RADIUS, middle), _color(state)
    axes.add_patch(Circle(spot, RADIUS, facecolor="white", edgecolor=color, linewidth=1.6, zorder=3))
    axes.text(*spot, name, ha="center", va="center_baseline", fontsize=9, color=INK, zorder=4)


def _box(axes: Axes, place: tuple[float, float], op: str, colors: tuple[str, str]) -> None:
    from matplotlib.patches import FancyBboxPatch

    (left, height), (face, edge) = place, colors
    corner, style = (left + 0.06, height - 0.22), "round,pad=0,rounding_size=0.12"
    patch = FancyBboxPatch(corner, BOX - 0.06, 0.44, style, facecolor=face, edgecolor=edge, linewidth=0.9, zorder=3)
    axes.add_patch(patch)
    axes.text(left + BOX / 2 + 0.03, height, op, ha="center", va="center_baseline", fontsize=6.8, color=edge, zorder=4)


def draw_halo(axes: Axes, left: float, height: float, width: float) -> None:
    """What marks the box of ``width`` that starts at ``left``: a coloured rim around it, to be drawn before the box."""
    from matplotlib.patches import FancyBboxPatch

    corner, style = (left - 0.08, height - 0.3), "round,pad=0,rounding_size=0.2"
    patch = FancyBboxPatch(corner, width + 0.16, 0.6, style, facecolor=HALO, edgecolor=RIM, linewidth=1.7, zorder=2.5)
    axes.add_patch(patch)


def _draw_terminal(axes: Axes, layout: Layout, state: int, name: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    column, middle = layout.place[state]
    x, height, color = PITCH * column, 0.7, _color(state)
    if state == OUTPUT:
        height = max(1.0, 0.3 + OUTPUT_STEP * sum(wire.column + 1 == column for wire in layout.wires))
    corner, style = (x - TERMINAL, middle - height / 2), "round,pad=0,rounding_size=0.2"
    axes.add_patch(FancyBboxPatch(corner, 2 * TERMINAL, height, style, facecolor=color, edgecolor=color, zorder=3))
    axes.text(x, middle, name, ha="center", va="center", fontsize=9.5, color="white", zorder=4)
