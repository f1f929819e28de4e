"""Draw the cells of several genotypes side by side, with their differences from the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from metadarts.core.errors import ConfigError
from metadarts.spaces import Genotype

from ._canvas import FAINT, INK, Target, figure
from ._cell import INCH, NAMES, cell_axes, colors_of, draw_cell, draw_halo, lay_out_cells, span, width_of
from ._sheet import fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from metadarts.operations import Operation

TITLE, CAPTION, BETWEEN = 1.1, 1.75, 1.2
"""Heights of the title and of the captions, and what parts two columns; a unit is `INCH` inches."""


def draw_genotypes(
    genotypes: Sequence[tuple[str, Genotype]],
    target: Target,
    title: str = "",
    *,
    inputs: int = 2,
    operations: Mapping[str, Operation] | None = None,
) -> None:
    """Write the cells of each genotype as a column under its caption, normal cell above, reduction cell below.

    An operation has a coloured border if its choice (cell, node, input, operation) is not one of the first genotype's;
    each caption except the first gives their number.

    Args:
        genotypes: (caption, genotype) pairs, the one to compare with first; captions may be any text.
        target: the file, ending in .svg or .png (its folder is created if missing), or a `Picture`.
        title: printed on top.
        inputs: how many outputs of earlier cells a cell reads.
        operations: table of operations, e.g. with a user's entries; None for those of `metadarts.operations`.

    Raises:
        ConfigError: when there is no genotype, or they do not have equal numbers of pairs.
        GenotypeError: when they have no pairs at all.
    """
    if not genotypes:
        raise ConfigError("expected at least one genotype with its caption, got none")
    first = genotypes[0][1]
    for caption, genotype in genotypes:
        if _pairs(genotype) != _pairs(first):
            raise ConfigError(
                f"{caption!r}: expected as many (normal, reduce) pairs as the first genotype has, {_pairs(first)}, "
                f"got {_pairs(genotype)}: compare genotypes of one search space"
            )
    colors = colors_of([genotype for _, genotype in genotypes], operations)
    columns = [lay_out_cells(genotype, inputs) for _, genotype in genotypes]
    widths = [width_of(layouts) for layouts in columns]
    spans = {cell: _joint([span(layouts[cell]) for layouts in columns]) for cell in columns[0]}
    width = sum(widths) + BETWEEN * (len(columns) - 1)
    head = CAPTION + (TITLE if title else 0.0)
    height = head + sum(high - low for low, high in spans.values())
    with figure(target, width * INCH, height * INCH) as sheet:
        if title:
            label = fit(title, (width - 1.0) * INCH, 12, "bold")
            sheet.text(0.5, 1 - 0.6 / height, label, ha="center", va="center", fontsize=12, fontweight="bold")
        left = 0.0
        for (caption, genotype), layouts, wide in zip(genotypes, columns, widths, strict=True):
            if left:
                _draw_divider(sheet, (left - BETWEEN / 2) / width, 1 - (head - CAPTION + 0.4) / height)
            marked = {cell: set(genotype.choices(cell)) - set(first.choices(cell)) for cell in layouts}
            place = (left / width, 1 - head / height, wide / width, CAPTION / height)
            total = sum(_pairs(first))
            said = f"{sum(map(len, marked.values()))} of {total} choices differ" if left else f"{total} choices"
            _draw_caption(sheet, place, wide, caption, said, sample=bool(left))
            top = height - head
            for cell, layout in layouts.items():
                low, high = spans[cell]
                place = (left / width, (top - high + low) / height, wide / width, (high - low) / height)
                axes = cell_axes(sheet, place, wide, (low, high), cell)
                draw_cell(axes, layout, inputs, colors, marked[cell])
                top -= high - low
            left += wide + BETWEEN


def _pairs(genotype: Genotype) -> tuple[int, ...]:
    """How many pairs the genotype has, cell type by cell type."""
    return tuple(len(genotype.pairs(cell)) for cell in NAMES)


def _joint(spans: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The span that holds them all, so that the cells of one type stand in one row."""
    return min(low for low, _ in spans), max(high for _, high in spans)


def _draw_divider(sheet: Figure, x: float, top: float) -> None:
    from matplotlib.lines import Line2D

    sheet.add_artist(Line2D([x, x], [0.03, top], color=FAINT, linewidth=0.8, alpha=0.6))


def _draw_caption(
    sheet: Figure, place: tuple[float, float, float, float], wide: float, caption: str, said: str, *, sample: bool
) -> None:
    """The caption, and below it what is ``said``, beside a ``sample`` of the rim where one is wanted."""
    from matplotlib.patches import FancyBboxPatch

    axes = sheet.add_axes(place)
    axes.set(xlim=(-1.1, wide - 1.1), ylim=(0, CAPTION))
    axes.axis("off")
    label = fit(caption, (wide - 0.9) * INCH, 11, "bold")
    axes.text(-0.75, CAPTION - 0.5, label, fontsize=11, fontweight="bold", va="center")
    if sample:
        draw_halo(axes, -0.67, CAPTION - 1.25, 0.8)
        style = "round,pad=0,rounding_size=0.12"
        axes.add_patch(
            FancyBboxPatch((-0.67, CAPTION - 1.47), 0.8, 0.44, style, facecolor="white", linewidth=0, zorder=3)
        )
    axes.text(0.4 if sample else -0.75, CAPTION - 1.25, said, fontsize=9, va="center", color=INK if sample else FAINT)
