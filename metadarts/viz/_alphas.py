"""Heat maps of the relaxed weights of a search space."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from metadarts.core.errors import GenotypeError
from metadarts.spaces import Genotype, SearchSpace

from ._canvas import INK, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

HEADINGS = {"normal": "normal cell", "reduce": "reduction cell"}


def draw_alphas(alphas: Mapping[str, Any], space: SearchSpace, path: pathlib.Path, title: str = "") -> None:
    """Write one heat map per cell type: softmax(alpha), edges as rows, primitives as columns, choices outlined.

    Args:
        alphas: for each cell type of ``space`` its raw alphas, array-like [E, P].
        space: names the rows and the columns.
        path: the file, ending in .svg or .png; its folder is made when missing.
        title: printed on top.

    Raises:
        ConfigError: when the suffix is neither .svg nor .png.
        GenotypeError: when a cell type is missing or a shape is not [E, P].
        NumericsError: when an alpha is NaN or infinite.
    """
    from metadarts.derive import derive_genotype

    tensors = {cell: _tensor(cell, values) for cell, values in alphas.items()}
    genotype = derive_genotype(tensors, space)
    cells = space.cell_types
    weights = {cell: tensors[cell].softmax(dim=-1) for cell in cells}
    top = max(float(weight.max()) for weight in weights.values())
    height = 1.7 + 0.27 * space.num_edges + (0.4 if title else 0.0)
    with figure(path, 1.6 + len(cells) * (1.1 + 0.42 * len(space.primitives)), height) as sheet:
        sheet.set_layout_engine("constrained")
        if title:
            sheet.suptitle(title, fontsize=11, fontweight="bold")
        panels = sheet.subplots(1, len(cells), squeeze=False)[0]
        for axes, cell in zip(panels, cells, strict=True):
            image = axes.imshow(weights[cell].tolist(), cmap="YlGnBu", vmin=0.0, vmax=top, aspect="auto")
            axes.set_title(HEADINGS[cell], fontsize=9)
            _label(axes, space)
            _outline(axes, genotype, cell, space)
        bar = sheet.colorbar(image, ax=list(panels), fraction=0.05, pad=0.02)
        bar.set_label("weight, softmax(alpha); outlined: kept by derivation", fontsize=8)
        bar.ax.tick_params(labelsize=7)


def _tensor(cell: str, values: Any) -> Tensor:
    """[E, P] in double precision, on the CPU."""
    import torch

    try:
        return torch.as_tensor(values).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GenotypeError(f"{cell} alphas: expected numbers [E, P], got {type(values).__name__} ({error})") from None


def _label(axes: Axes, space: SearchSpace) -> None:
    names = [f"{_state(source, space)} → {node}" for node, source in space.edges]
    axes.set_xticks(range(len(space.primitives)), space.primitives, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(labelsize=7.5, length=0)
    axes.spines[:].set_visible(False)
    for node in range(1, space.nodes):
        axes.axhline(space.edge_index(node, 0) - 0.5, color="white", linewidth=3)


def _state(state: int, space: SearchSpace) -> str:
    """A state as pictures of cells name it: an earlier cell, or the number of a node."""
    return f"$c_{{k-{space.inputs - state}}}$" if state < space.inputs else str(state - space.inputs)


def _outline(axes: Axes, genotype: Genotype, cell: str, space: SearchSpace) -> None:
    from matplotlib.patches import Rectangle

    for node, source, op in genotype.choices(cell):
        corner = (space.primitives.index(op) - 0.44, space.edge_index(node, source) - 0.42)
        axes.add_patch(Rectangle(corner, 0.88, 0.84, fill=False, edgecolor="white", linewidth=2.6))
        axes.add_patch(Rectangle(corner, 0.88, 0.84, fill=False, edgecolor=INK, linewidth=1.2))
