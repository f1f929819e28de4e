"""The JSON form of a genotype: one object, versioned, that names its space."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from metadarts.core.errors import GenotypeError
from metadarts.store.schema import Schema

from ._parse import FULL, MAX_TEXT, WIDTH
from ._space import PAIRS_PER_NODE

FORMAT = "metadarts.genotype"
VERSION = 1


@dataclass(frozen=True)
class GenotypeFacts:
    """The object without its format; what its lists hold, `Genotype` checks."""

    space: str
    nodes: int
    normal: list[Any]
    normal_concat: list[Any]
    reduce: list[Any]
    reduce_concat: list[Any]
    edges_per_node: int = PAIRS_PER_NODE

    @property
    def cells(self) -> dict[str, Any]:
        """The fields of a `Genotype`."""
        return {name: getattr(self, name) for name in (*FULL, WIDTH)}


GENOTYPE = Schema(GenotypeFacts, GenotypeError, "write it with Genotype.to_json", (FORMAT, VERSION), MAX_TEXT)


def write_json(nodes: int, space: str, cells: dict[str, Any], edges_per_node: int) -> str:
    """The text of one object, on one line; with `WIDTH` where a node does not have two edges."""
    width = {} if edges_per_node == PAIRS_PER_NODE else {WIDTH: edges_per_node}
    return json.dumps({"format": FORMAT, "version": VERSION, "space": space, "nodes": nodes} | width | cells)
