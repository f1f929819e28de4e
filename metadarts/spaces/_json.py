"""The JSON form of a genotype: one object, versioned, that names its space."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from metadarts.core.errors import GenotypeError

from ._parse import FULL, MAX_TEXT, WIDTH
from ._space import PAIRS_PER_NODE

FORMAT = "metadarts.genotype"
VERSION = 1
KEYS = ("format", "version", "space", "nodes", *FULL)


@dataclass(frozen=True)
class Head:
    """What the JSON says about the genotype besides its cells."""

    space: str
    nodes: int


def write_json(nodes: int, space: str, cells: dict[str, Any], edges_per_node: int) -> str:
    """The text of one object whose keys are `KEYS`, on one line; with `WIDTH` where a node does not have two edges."""
    width = {} if edges_per_node == PAIRS_PER_NODE else {WIDTH: edges_per_node}
    return json.dumps({"format": FORMAT, "version": VERSION, "space": space, "nodes": nodes} | width | cells)


def read_json(text: str) -> tuple[Head, dict[str, Any]]:
    """The head and the fields of a genotype. Raises GenotypeError when the object is not exactly as written."""
    if len(text) > MAX_TEXT:
        raise GenotypeError(f"genotype JSON has {len(text)} characters, expected at most {MAX_TEXT}")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GenotypeError(f"genotype JSON cannot be read ({error}): write it with Genotype.to_json") from None
    if not isinstance(record, dict) or set(record) - {WIDTH} != set(KEYS):
        found = sorted(record) if isinstance(record, dict) else type(record).__name__
        raise GenotypeError(f"genotype JSON: expected one object with the keys {', '.join(KEYS)}, got {found}")
    if (record["format"], record["version"]) != (FORMAT, VERSION) or type(record["version"]) is not int:
        given = f"{record['format']!r} version {record['version']!r}"
        raise GenotypeError(f"genotype JSON: expected format {FORMAT!r} version {VERSION}, got {given}")
    if type(record["space"]) is not str or type(record["nodes"]) is not int:
        raise GenotypeError("genotype JSON: expected a name as 'space' and a whole number as 'nodes'")
    return Head(record["space"], record["nodes"]), {name: record[name] for name in (*FULL, WIDTH) if name in record}
