"""The pictures of a report that show the architecture, each with its name and how to read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from metadarts.spaces import Genotype, SearchSpace
from metadarts.viz import Picture, Plate, draw_alpha_history, draw_alphas, draw_choices, draw_genotype

from .records import KINDS, AlphaRecord, Records

if TYPE_CHECKING:
    from torch import Tensor

    from metadarts.operations import Operation
    from metadarts.relaxations import Relaxation


class Searched(NamedTuple):
    """What a run searched: the space, how its alphas are relaxed, and the operations that its names stand for."""

    space: SearchSpace
    relaxation: Relaxation
    operations: Mapping[str, Operation]


CELLS = 4
"""How many of the derived cells are drawn: the first, the last, and some between."""


def derived(genotype: Genotype, alphas: Mapping[str, Tensor], searched: Searched, step: int) -> Iterator[Plate]:
    """The cell that counts, and the alphas it came from."""
    space, relaxation = searched.space, searched.relaxation
    picture = Picture(".svg")
    title = f"derived at meta-step {step}"
    draw_genotype(genotype, picture, title, inputs=space.inputs, operations=searched.operations)
    yield Plate(
        picture,
        "The derived cell",
        f"Left to right: {_inputs(space)}, the nodes in the order of computation, and the output, which concatenates "
        f"all nodes. {_node(space)}; a wire has the colour of the state that it carries.",
    )
    if not alphas:
        return
    picture = Picture(".svg")
    draw_alphas(alphas, space, picture, relaxation=relaxation)
    yield Plate(
        picture,
        "Alphas of that step",
        "Mixing weights: one row per edge, which sums to 1; one column per operation. Outlined are the choices that "
        f"derivation keeps: {_rule(space)}.",
    )


def _inputs(space: SearchSpace) -> str:
    """The inputs of a cell in words."""
    counts = {1: "the output of the cell before", 2: "the outputs of the two cells before"}
    return counts.get(space.inputs, f"the outputs of the {space.inputs} cells before")


def _node(space: SearchSpace) -> str:
    """What a node does, in words."""
    two = "A node adds the two operations that enter it"
    return two if space.edges_per_node > 1 else "A node is the one operation that enters it"


def _rule(space: SearchSpace) -> str:
    """Which edges derivation keeps, see `metadarts.spaces.decode`."""
    edges = "two edges" if space.edges_per_node > 1 else "edge"
    rule = f"per node the {edges} whose best operation (other than none) weighs most"
    if space.inputs_by == "pairs":
        return "per node the pair of edges that weighs most by alphas of its own, which are not drawn"
    return f"{rule}, times the edge's own weight, which is not drawn" if space.inputs_by == "edges" else rule


def alpha_traces(records: Records, searched: Searched) -> Iterator[Plate]:
    """Every mixing weight and every choice over time."""
    recorded, space = records.alphas, searched.space
    if not recorded:
        return
    steps = [record.step for record in recorded]
    for cell in space.cell_types:
        picture = Picture(".svg")
        tables = [record.alphas[cell] for record in recorded]
        draw_alpha_history(
            steps, tables, cell, space, picture, relaxation=searched.relaxation, kept=recorded[-1].genotype
        )
        yield Plate(
            picture,
            f"Mixing weights over the run, {KINDS[cell]}",
            "One panel per edge: rows of panels are the nodes it enters, columns the states it leaves. In a panel, "
            "one row per operation, time to the right. White is the even weight; red has grown, blue has shrunk. The "
            "ends of the colour scale are the extremes of this run, so read its numbers before judging a colour.",
        )
    if len(recorded) > 1:
        picture = Picture(".svg")
        genotypes = [record.genotype for record in recorded]
        draw_choices(steps, genotypes, space, picture, operations=searched.operations)
        yield Plate(
            picture,
            "What derivation would have kept",
            "One row per edge; a bar while derivation would keep the edge, in the colour of its operation; "
            f"{'two bars' if space.edges_per_node > 1 else 'one bar'} per node at any time. Long bars of one colour "
            "are decisions; flicker means that near-ties change places.",
        )


def cells_in_time(records: list[AlphaRecord], searched: Searched) -> Iterator[Plate]:
    """The derived cell at the first and last record and, where it changed, at some between them."""
    from metadarts.derive import genotype_distance

    cells = [record.genotype.canonical() for record in records]
    changed = [record for index, record in enumerate(records) if index == 0 or cells[index] != cells[index - 1]]
    chosen = sorted({round((len(changed) - 1) * share / (CELLS - 1)) for share in range(CELLS)}) if changed else []
    for position, index in enumerate(chosen):
        record, picture = changed[index], Picture(".svg")
        inputs, operations = searched.space.inputs, searched.operations
        draw_genotype(record.genotype, picture, f"meta-step {record.step}", inputs=inputs, operations=operations)
        caption = "The first recorded cell."
        if position:
            before = changed[chosen[position - 1]]
            different, of = genotype_distance(before.genotype, record.genotype), _choices(record.genotype)
            caption = f"{different} of its {of} choices are not in the cell of meta-step {before.step} above."
        if position == len(chosen) - 1:
            caption += " It stands until the last record."
        yield Plate(picture, f"Cells derived at meta-step {record.step}", caption)


def _choices(genotype: Genotype) -> int:
    return len(genotype.normal) + len(genotype.reduce)
