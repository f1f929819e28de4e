"""The cells of the supernet as they fade in over a run."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from metadarts.core.types import with_alphas
from metadarts.networks import Network
from metadarts.training.recording import last_stage
from metadarts.viz import CellMoment, Picture, Plate, draw_fading_cells

from .records import KINDS, AlphaRecord

MOMENTS = 6
"""How many moments of the run are shown: the first and the last record, and some between."""


def fading_cells(records: list[AlphaRecord], network: Network, steps: int) -> Iterator[Plate]:
    """One picture for each cell type.

    Args:
        network: the supernet, which weighs.
        steps: K inner steps of the run's tasks.
    """
    if not records:
        return
    chosen = sorted({round((len(records) - 1) * place / (MOMENTS - 1)) for place in range(MOMENTS)})
    tables = [(records[index].step, _weights(records[index], network, steps)) for index in chosen]
    for cell in network.space.cell_types:
        picture = Picture(".svg")
        moments = [CellMoment(f"meta-step {step}", found[cell]) for step, found in tables]
        draw_fading_cells(moments, network.space, picture, operations=network.operations)
        yield Plate(
            picture,
            f"The {KINDS[cell]} fades in",
            "The supernet's cell at some moments of the run, read from left to right. Each arc is an edge, in the "
            "colour of its heaviest operation other than none; it is the stronger and the wider, the more that "
            "operation weighs in the mixture in use, times the weight of the edge where alphas choose inputs. A run "
            "that commits ends with few strong arcs; one that does not stays pale.",
        )


def _weights(record: AlphaRecord, network: Network, steps: int) -> dict[str, Tensor]:
    """Cell -> the mixing weights in use [E, P]; those of the end of the run where its progress is not recorded."""
    at = last_stage(steps, 1.0 if record.progress is None else record.progress)
    return network.weights_of(with_alphas({}, record.alphas), at)
