"""The discrete architecture: a printable, hashable value.

The text is that of the DARTS authors' code (quark0/darts, cnn/genotypes.py). Reading it never evaluates it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from metadarts.core.errors import GenotypeError, nearest

from ._json import GENOTYPE, write_json
from ._parse import FULL, WIDTH, as_concat, as_pairs, as_width, parse_fields
from ._space import CELL_TYPES, PAIRS_PER_NODE, SearchSpace

Pairs = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Genotype:
    """The operations and inputs of both cells. Inputs 0 and 1 are the two previous cells, 2.. the nodes.

    Lists, and lists nested per node, are accepted and stored as flat tuples.

    Args:
        normal: (operation, input) pairs of the normal cell, ``edges_per_node`` of each node in node order.
        normal_concat: the states that the normal cell's output concatenates.
        reduce: the pairs of the reduction cell; empty in a space without one.
        reduce_concat: the states that the reduction cell's output concatenates.
        edges_per_node: pairs of each node, 2 or 1. Written only if it is not 2, because the DARTS text has no such
            field.

    Raises:
        GenotypeError: when a field does not consist of such pairs, or their number is not a multiple of
            ``edges_per_node``.
    """

    normal: Pairs
    normal_concat: tuple[int, ...]
    reduce: Pairs
    reduce_concat: tuple[int, ...]
    edges_per_node: int = PAIRS_PER_NODE

    def __post_init__(self) -> None:
        as_width(self.edges_per_node)
        for cell in CELL_TYPES:
            object.__setattr__(self, cell, as_pairs(cell, getattr(self, cell), self.edges_per_node))
            concat = f"{cell}_concat"
            object.__setattr__(self, concat, as_concat(concat, getattr(self, concat)))

    @property
    def nodes(self) -> int:
        """Intermediate nodes of a cell."""
        return max(len(self.normal), len(self.reduce)) // self.edges_per_node

    def pairs(self, cell: str) -> Pairs:
        """The flat (operation, input) pairs of ``cell``, "normal" or "reduce"."""
        return self.reduce if _known_cell(cell) == "reduce" else self.normal

    def concat(self, cell: str) -> tuple[int, ...]:
        """The states that the output of ``cell`` concatenates."""
        return self.reduce_concat if _known_cell(cell) == "reduce" else self.normal_concat

    def choices(self, cell: str) -> tuple[tuple[int, int, str], ...]:
        """Every kept edge of ``cell`` as (node, input, operation)."""
        pairs = enumerate(self.pairs(cell))
        return tuple((index // self.edges_per_node, source, op) for index, (op, source) in pairs)

    def canonical(self) -> Genotype:
        """The same architecture with the pairs of each node in order of input, for comparisons."""
        return Genotype(
            normal=_by_input(self.normal, self.edges_per_node),
            normal_concat=tuple(sorted(self.normal_concat)),
            reduce=_by_input(self.reduce, self.edges_per_node),
            reduce_concat=tuple(sorted(self.reduce_concat)),
            edges_per_node=self.edges_per_node,
        )

    def __str__(self) -> str:
        parts = []
        for cell in CELL_TYPES:
            parts += [f"{cell}={list(self.pairs(cell))}", f"{cell}_concat={_concat_text(self.concat(cell))}"]
        return f"Genotype({', '.join(parts + self._width())})"

    def __repr__(self) -> str:
        parts = [f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if field.name != WIDTH]
        return f"Genotype({', '.join(parts + self._width())})"

    def _width(self) -> list[str]:
        return [] if self.edges_per_node == PAIRS_PER_NODE else [f"{WIDTH}={self.edges_per_node}"]

    @staticmethod
    def parse(text: str) -> Genotype:
        """Read the DARTS text: flat or nested per node, concat as list or range or (as BASE) left out.

        Only ``Genotype(...)``, lists, tuples, short strings, integers and ``range`` are accepted; nothing is ever
        evaluated.

        Raises:
            GenotypeError: for any other text, and for text too long or too deeply nested.
        """
        return Genotype(**parse_fields(text))

    def to_json(self, space: str = "darts") -> str:
        """One JSON object (format "metadarts.genotype", version 1) that also names the space it belongs to."""
        return write_json(self.nodes, space, {name: getattr(self, name) for name in FULL}, self.edges_per_node)

    @staticmethod
    def from_json(text: str, space: SearchSpace | None = None) -> Genotype:
        """Read what `to_json` wrote. With ``space``, also require its name and `validate` against it.

        Raises:
            GenotypeError: when the text is not such an object, or does not fit the space.
        """
        told = GENOTYPE.read(text, "genotype JSON")
        genotype = Genotype(**told.cells)
        if told.nodes != genotype.nodes:
            raise GenotypeError(f"genotype JSON says {told.nodes} nodes but has pairs for {genotype.nodes}: fix either")
        if space is not None:
            if told.space != space.name:
                raise GenotypeError(f"expected a genotype of space {space.name!r}, got one of {told.space!r}")
            genotype.validate(space)
        return genotype

    def validate(self, space: SearchSpace) -> None:
        """Check that this genotype is a point of ``space``.

        Raises:
            GenotypeError: for an unknown operation, an input that does not exist or that a node reads twice, or a
                wrong number of pairs; all faults in one message.
        """
        faults = [fault for cell in CELL_TYPES for fault in self._faults(cell, space)]
        if faults:
            raise GenotypeError(f"not a genotype of space {space.name!r}: " + "; ".join(faults))

    def _faults(self, cell: str, space: SearchSpace) -> list[str]:
        width, pairs = self.edges_per_node, self.pairs(cell)
        expected = space.edges_per_node * space.nodes if cell in space.cell_types else 0
        if expected and width != space.edges_per_node:
            return [f"{cell} needs {space.edges_per_node} (operation, input) pairs per node, got {width} per node"]
        if len(pairs) != expected:
            return [f"{cell} needs {expected} (operation, input) pairs, got {len(pairs)}"]
        if not expected:
            return []
        faults = [fault for i, pair in enumerate(pairs) for fault in _pair_faults(cell, i // width, pair, space)]
        for node in range(space.nodes):
            sources = [source for _, source in pairs[width * node : width * (node + 1)]]
            if len(set(sources)) < len(sources):
                faults.append(f"{cell} node {node} reads input {sources[0]} twice, give two distinct inputs")
        return faults + _concat_faults(cell, self.concat(cell), space)


def _known_cell(cell: str) -> str:
    if cell not in CELL_TYPES:
        raise GenotypeError(f"unknown cell {cell!r}: {nearest(cell, CELL_TYPES)}")
    return cell


def _by_input(pairs: Pairs, width: int) -> Pairs:
    nodes = [pairs[start : start + width] for start in range(0, len(pairs), width)]
    return tuple(pair for node in nodes for pair in sorted(node, key=lambda pair: (pair[1], pair[0])))


def _concat_text(concat: tuple[int, ...]) -> str:
    """``range(a, b)`` when the states are consecutive, as DARTS prints them; otherwise a list."""
    run = tuple(range(concat[0], concat[0] + len(concat))) if concat else ()
    return f"range({run[0]}, {run[-1] + 1})" if concat and run == concat else str(list(concat))


def _pair_faults(cell: str, node: int, pair: tuple[str, int], space: SearchSpace) -> list[str]:
    op, source = pair
    faults = []
    if op not in space.operations:
        kind = "means no edge and cannot be kept" if op == space.none else "is unknown"
        faults.append(f"{cell} node {node}: operation {op!r} {kind}, {nearest(op, space.operations)}")
    if not 0 <= source < space.inputs + node:
        faults.append(f"{cell} node {node} reads input {source}, expected 0..{space.inputs + node - 1}")
    return faults


def _concat_faults(cell: str, concat: tuple[int, ...], space: SearchSpace) -> list[str]:
    last = space.inputs + space.nodes - 1
    if concat and len(set(concat)) == len(concat) and all(0 <= state <= last for state in concat):
        return []
    return [f"{cell}_concat must be distinct states in 0..{last}, at least one, got {list(concat)}"]
