"""A search space of one's own, and the network around its cells: MetaNAS's pair weights, one stem, three cells."""

from __future__ import annotations

from dataclasses import dataclass

from metadarts.networks import Block, Cells, Image, Readout, Stem, Structure, Style
from metadarts.spaces import SearchSpace

PRIMITIVES = ("max_pool_3x3", "skip_connect", "conv_1x5_5x1", "sep_conv_3x3")


def pairs(nodes: int = 3) -> SearchSpace:
    """Alphas choose an operation for every edge, and for every node the pair of inputs that it adds up."""
    return SearchSpace("pairs", PRIMITIVES, nodes, inputs_by="pairs")


@dataclass(frozen=True, kw_only=True)
class ThreeCells(Structure):
    """A stem that halves the image once, then a normal, a reduction and a normal cell of one width."""

    channels: int

    def blocks(self, cells: Cells) -> tuple[Block, ...]:
        row: list[Block] = [Stem((self.in_channels, 2 * self.channels))]
        for kind in ("normal", "reduce", "normal"):
            last = len(row) - 1
            reads = (max(0, last - 1), last)
            inputs = (row[reads[0]].out_channels, row[last].out_channels)
            row.append(cells.cell(f"cells.{last}.", kind, self.channels, reads, inputs))
        return (*row, Readout((len(row) - 1,), row[-1].out_channels))


def three_cells(image: Image, style: Style, *, channels: int = 4) -> Structure:
    """The structure for images of this form.

    Args:
        channels: of every cell's nodes.
    """
    return ThreeCells(in_channels=image.channels, channels=channels, **style._asdict())


SPACE = pairs
MACRO = three_cells
