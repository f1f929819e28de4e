"""Read the text of a genotype with a whitelist over its syntax tree; nothing is ever evaluated or looked up."""

from __future__ import annotations

import ast
import warnings
from typing import Any, NoReturn

from metadarts.core.errors import GenotypeError

from ._space import EDGES_PER_NODE, PAIRS_PER_NODE

MAX_TEXT = 20_000
MAX_DEPTH = 8
MAX_NAME = 64
MAX_NUMBER = 1_000
MAX_RANGE = 100

FULL = ("normal", "normal_concat", "reduce", "reduce_concat")
BASE = ("normal", "reduce")
WIDTH = "edges_per_node"
"""A field that is written, and read by name, only where it is not 2."""
DARTS_INPUTS = 2
HELP = "paste it as Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=[...], ...)"


def parse_fields(text: str) -> dict[str, Any]:
    """The fields of the genotype that ``text`` spells, as lists, strings and numbers. Raises GenotypeError."""
    call = _tree(text)
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Genotype"):
        _refuse(call, "expected one Genotype(...)")
    if call.args and call.keywords:
        _refuse(call, "expected fields all by name or all by position")
    fields = _by_name(call) if call.keywords else _by_position(call)
    if set(fields) == set(BASE):
        fields |= {f"{cell}_concat": _default_concat(cell, fields[cell]) for cell in BASE}
    if set(fields) - {WIDTH} != set(FULL):
        _refuse(call, f"expected the fields {', '.join(FULL)} (or only {' and '.join(BASE)}), got {sorted(fields)}")
    return fields


def _tree(text: str) -> ast.expr:
    if len(text) > MAX_TEXT:
        raise GenotypeError(f"genotype text has {len(text)} characters, expected at most {MAX_TEXT}: {HELP}")
    if _depth(text) > MAX_DEPTH:
        raise GenotypeError(f"genotype text nests brackets deeper than {MAX_DEPTH}: {HELP}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError, Warning) as error:
        raise GenotypeError(f"genotype text cannot be read ({type(error).__name__}): {HELP}") from None


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _by_name(call: ast.Call) -> dict[str, Any]:
    names = [keyword.arg for keyword in call.keywords]
    if any(name not in (*FULL, WIDTH) for name in names) or len(set(names)) < len(names):
        _refuse(call, f"expected only the fields {', '.join(FULL)} (and {WIDTH}), each once")
    return {str(keyword.arg): _value(keyword.value) for keyword in call.keywords}


def _by_position(call: ast.Call) -> dict[str, Any]:
    names = BASE if len(call.args) == len(BASE) else FULL
    if len(call.args) != len(names):
        _refuse(call, f"expected {len(FULL)} fields, or {len(BASE)} without concat, got {len(call.args)}")
    return dict(zip(names, map(_value, call.args), strict=True))


def _value(node: ast.expr) -> Any:
    """A list, a short string or a small whole number; whatever else the tree holds is refused."""
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Constant) and type(node.value) is int and 0 <= node.value <= MAX_NUMBER:
        return node.value
    if isinstance(node, ast.Constant) and type(node.value) is str and len(node.value) <= MAX_NAME:
        return node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range" and not node.keywords:
        return _range(node)
    _refuse(node, "expected lists, operation names, small whole numbers or range(start, stop)")


def _range(node: ast.Call) -> list[int]:
    bounds = [_value(argument) for argument in node.args]
    if not (1 <= len(bounds) <= 3 and all(type(bound) is int for bound in bounds)):
        _refuse(node, "expected range of one to three whole numbers")
    if len(bounds) == 3 and bounds[2] == 0:
        _refuse(node, "expected a range step of at least 1")
    numbers = range(*bounds)
    if len(numbers) > MAX_RANGE:
        _refuse(node, f"expected a range of at most {MAX_RANGE} states")
    return list(numbers)


def _refuse(node: ast.AST, expected: str) -> NoReturn:
    column = getattr(node, "col_offset", 0)
    raise GenotypeError(f"genotype text, column {column}: {expected}, got {type(node).__name__}. {HELP}")


def _default_concat(cell: str, value: object) -> list[int]:
    """BASE leaves concat out: a cell then concatenates all its nodes, and has two inputs, as in DARTS."""
    nodes = len(as_pairs(cell, value, PAIRS_PER_NODE)) // PAIRS_PER_NODE
    return list(range(DARTS_INPUTS, DARTS_INPUTS + nodes))


def as_width(value: object) -> int:
    """Pairs per node. Raises GenotypeError."""
    if type(value) is not int or value not in EDGES_PER_NODE:
        raise GenotypeError(f"{WIDTH}: expected 1 or 2 pairs per node, got {value!r:.80}")
    return value


def as_pairs(field: str, value: object, per_node: int) -> tuple[tuple[str, int], ...]:
    """Flat (operation, input) pairs from flat pairs or from nested lists, one per node. Raises GenotypeError."""
    items = _items(field, value)
    if items and all(_nested(item) for item in items):
        if uneven := [item for item in items if len(item) != per_node]:
            raise GenotypeError(f"{field}: expected {per_node} pairs per node, got a node with {len(uneven[0])}")
        items = [pair for item in items for pair in item]
    if len(items) % per_node:
        raise GenotypeError(f"{field}: expected {per_node} pairs per node, got {len(items)} pairs in all")
    return tuple(_pair(field, item) for item in items)


def as_concat(field: str, value: object) -> tuple[int, ...]:
    """States as a tuple of numbers, from a list, a tuple or a range. Raises GenotypeError."""
    states = list(value) if isinstance(value, range) and len(value) <= MAX_RANGE else _items(field, value)
    if any(type(state) is not int for state in states):
        raise GenotypeError(f"{field}: expected whole numbers, got {states!r:.80}")
    return tuple(states)


def _items(field: str, value: object) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise GenotypeError(f"{field}: expected a list, got {type(value).__name__} {value!r:.80}")
    return list(value)


def _nested(item: object) -> bool:
    return isinstance(item, list | tuple) and all(isinstance(inner, list | tuple) for inner in item)


def _pair(field: str, item: object) -> tuple[str, int]:
    if isinstance(item, list | tuple) and len(item) == 2 and type(item[0]) is str and type(item[1]) is int:
        return item[0], item[1]
    raise GenotypeError(f"{field}: expected pairs such as ('sep_conv_3x3', 0), got {item!r:.80}")
