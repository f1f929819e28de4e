"""Heat maps of the relaxed weights of a search space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from metadarts.core.errors import GenotypeError
from metadarts.spaces import Genotype, SearchSpace

from ._canvas import INK, Target, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from metadarts.relaxations import Relaxation

HEADINGS = {"normal": "normal cell", "reduce": "reduction cell"}
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")  # formulas took a fifth of all drawing time
GAP, BAR, BELOW, ABOVE = 0.8, 0.3, 0.95, 0.35
"""Inches: left of each heat map, for the colour bar, under the heat maps, over them."""


def draw_alphas(
    alphas: Mapping[str, Any], space: SearchSpace, path: Target, title: str = "", relaxation: Relaxation | None = None
) -> None:
    """Write one heat map per cell type: the relaxed alphas, edges as rows, primitives as columns, choices outlined.

    Args:
        alphas: for each cell type of ``space`` its raw alphas, array-like [E, P].
        space: names the rows and the columns.
        path: the file, ending in .svg or .png (its folder is created if missing), or a `Picture`.
        title: title of the figure.
        relaxation: from alphas to weights; None for the softmax.

    Raises:
        ConfigError: when the suffix is neither .svg nor .png.
        GenotypeError: when a cell type is missing or a shape is not [E, P].
        NumericsError: when an alpha is NaN or infinite.
    """
    from metadarts.derive import derive_genotype
    from metadarts.relaxations import DEFAULT_RELAXATION, scores_of

    tensors = {cell: as_table(cell, values) for cell, values in alphas.items()}
    relaxation = relaxation or DEFAULT_RELAXATION
    genotype = derive_genotype(tensors, space, relaxation)
    cells = space.cell_types
    weights = scores_of({cell: tensors[cell] for cell in cells}, relaxation)
    # At least twice the even weight, so that alphas that have not chosen do not look strong.
    top = max(2 / len(space.primitives), *(float(weight.max()) for weight in weights.values()))
    wide, tall = 0.42 * len(space.primitives), 0.27 * space.num_edges
    width, height = GAP + len(cells) * (wide + GAP) + BAR, BELOW + tall + ABOVE + (0.3 if title else 0.0)
    with figure(path, width, height) as sheet:
        if title:
            sheet.suptitle(title, fontsize=11, fontweight="bold", y=1 - 0.12 / height)
        lefts = [GAP + index * (wide + GAP) for index in range(len(cells) + 1)]
        # Places in inches: looking for room, as layout engines do, costs more than the drawing.
        places = [(left / width, BELOW / height, wide / width, tall / height) for left in lefts]
        panels = [sheet.add_axes(place) for place in places[:-1]]
        for axes, cell in zip(panels, cells, strict=True):
            image = axes.imshow(weights[cell].tolist(), cmap="YlGnBu", vmin=0.0, vmax=top, aspect="auto")
            axes.set_title(HEADINGS[cell], fontsize=9)
            _label(axes, space)
            _outline(axes, genotype, cell, space)
        beside = ((lefts[-1] - GAP + 0.15) / width, BELOW / height, 0.16 / width, tall / height)
        bar = sheet.colorbar(image, cax=sheet.add_axes(beside))
        bar.set_label("mixing weight\noutlined: kept by derivation", fontsize=7.5)
        bar.ax.tick_params(labelsize=7)


def as_table(cell: str, values: Any) -> Tensor:
    """The alphas [E, P] of ``cell`` in double precision, on the CPU. Raises GenotypeError when they are not numbers."""
    import torch

    try:
        return torch.as_tensor(values).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GenotypeError(f"{cell} alphas: expected numbers [E, P], got {type(values).__name__} ({error})") from None


def _label(axes: Axes, space: SearchSpace) -> None:
    names = [f"{state_name(source, space)} → {node}" for node, source in space.edges]
    axes.set_xticks(range(len(space.primitives)), space.primitives, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(labelsize=7.5, length=0)
    axes.spines[:].set_visible(False)
    for node in range(1, space.nodes):
        axes.axhline(space.edge_index(node, 0) - 0.5, color="white", linewidth=3)


def state_name(state: int, space: SearchSpace) -> str:
    """A state as pictures of cells name it: an earlier cell, or the number of a node."""
    if state >= space.inputs:
        return str(state - space.inputs)
    return f"cₖ₋{space.inputs - state}".translate(SUBSCRIPTS)


def _outline(axes: Axes, genotype: Genotype, cell: str, space: SearchSpace) -> None:
    from matplotlib.patches import Rectangle

    for node, source, op in genotype.choices(cell):
        corner = (space.primitives.index(op) - 0.44, space.edge_index(node, source) - 0.42)
        axes.add_patch(Rectangle(corner, 0.88, 0.84, fill=False, edgecolor="white", linewidth=2.6))
        axes.add_patch(Rectangle(corner, 0.88, 0.84, fill=False, edgecolor=INK, linewidth=1.2))
