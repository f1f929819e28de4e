"""Which edges derivation would keep, and with which operation, at every time of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from metadarts.core.errors import GenotypeError
from metadarts.spaces import Genotype, SearchSpace

from ._alphas import HEADINGS, state_name
from ._canvas import FAINT, Target, figure
from ._shades import shades
from ._traces import end_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from metadarts.operations import Operation


def draw_choices(
    steps: Sequence[int],
    genotypes: Sequence[Genotype],
    space: SearchSpace,
    path: Target,
    title: str = "",
    *,
    operations: Mapping[str, Operation] | None = None,
) -> None:
    """Write one panel per cell type: a row per edge, time to the right, coloured by the operation while it is kept.

    Args:
        steps: when each genotype was derived, in ascending order; each stands until the next.
        genotypes: the derived genotypes.
        space: names edges and operations.
        path: the file, ending in .svg or .png (its folder is created if missing), or a `Picture`.
        title: printed on top.
        operations: table of operations, e.g. with a user's entries; None for those of `metadarts.operations`.

    Raises:
        GenotypeError: when there is no genotype, not one per step, or one is not of ``space``.
    """
    if not genotypes or len(genotypes) != len(steps):
        raise GenotypeError(f"expected one genotype per step, got {len(genotypes)} for {len(steps)} steps")
    for genotype in genotypes:
        genotype.validate(space)
    from matplotlib.patches import Patch

    colors = shades(space.operations, operations)
    with figure(path, 1.2 + 4.4 * len(space.cell_types), 1.5 + 0.23 * space.num_edges) as sheet:
        sheet.set_layout_engine("constrained")
        sheet.suptitle(title, fontsize=11, fontweight="bold")
        panels = sheet.subplots(1, len(space.cell_types), squeeze=False)[0]
        for axes, cell in zip(panels, space.cell_types, strict=True):
            _draw_spans(axes, steps, [genotype.choices(cell) for genotype in genotypes], space, colors)
            axes.set_title(HEADINGS[cell], fontsize=9)
        handles = [Patch(facecolor=shade, label=op) for op, shade in colors.items()]
        sheet.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=7.5,
                     handlelength=1.0, columnspacing=1.2)  # fmt: skip


def _draw_spans(
    axes: Axes,
    steps: Sequence[int],
    choices: Sequence[tuple[tuple[int, int, str], ...]],
    space: SearchSpace,
    colors: dict[str, str],
) -> None:
    last = end_of(steps)
    ends = [*steps[1:], last]
    for (node, source, op), start, stop in _spans(steps, ends, choices):
        row = space.edge_index(node, source)
        axes.barh(row, stop - start, left=start, height=0.78, color=colors[op], linewidth=0)
    for row in range(space.num_edges):
        axes.axhline(row, color=FAINT, linewidth=0.4, alpha=0.5, zorder=0)
    for node in range(1, space.nodes):
        axes.axhline(space.edge_index(node, 0) - 0.5, color=FAINT, linewidth=0.9)
    axes.set_ylim(space.num_edges - 0.5, -0.5)
    axes.set_xlim(steps[0], last)
    axes.set_yticks(range(space.num_edges), [f"{state_name(source, space)} → {node}" for node, source in space.edges])
    axes.tick_params(labelsize=7.5, length=0)
    axes.set_xlabel("meta-step", fontsize=9)
    axes.spines[:].set_visible(False)


def _spans(
    steps: Sequence[int], ends: Sequence[float], choices: Sequence[tuple[tuple[int, int, str], ...]]
) -> list[tuple[tuple[int, int, str], float, float]]:
    """Every (choice, start, stop) with neighbours in time joined, so that a long stay is one bar."""
    spans: list[tuple[tuple[int, int, str], float, float]] = []
    since = dict.fromkeys(choices[0], steps[0])
    for index in range(1, len(choices)):
        ended = [choice for choice in since if choice not in choices[index]]
        spans += [(choice, since.pop(choice), steps[index]) for choice in ended]
        since |= {choice: steps[index] for choice in choices[index] if choice not in since}
    return spans + [(choice, start, ends[-1]) for choice, start in since.items()]
