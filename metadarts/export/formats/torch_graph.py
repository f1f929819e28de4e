"""What the graph in a .pt2 file may hold: only what torch writes for a classifier of ours. All else is refused.

Names of nodes go into generated code, targets are looked up in torch, expressions are evaluated, and torch knows many
kinds of arguments. So the graph is compared with a pattern, and a key that the pattern does not know must be empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from metadarts.export.layers import MOST_KERNEL, is_name, is_path

MOST_GRAPH = 2**25
"""Bytes of a graph."""

TARGETS = frozenset(
    f"torch.ops.aten.{name}"
    for name in (
        "_assert_tensor_metadata.default", "_to_copy.default", "to.dtype", "rsub.Scalar", "div.Tensor", "sub.Tensor",
        "mul.Tensor", "add.Tensor", "conv2d.default", "max_pool2d.default", "avg_pool2d.default", "relu.default",
        "cat.default", "mean.dim", "linear.default", "pad.default", "slice.Tensor", "alias.default", "permute.default",
        "flatten.using_ints",
    )
)  # fmt: skip
"""All that the graph of a classifier calls."""

BATCH = re.compile(r"Symbol\('s[0-9]{1,9}', positive=True, integer=True\)|s[0-9]{1,9}")
"""The free size of the batch. torch hands such texts to sympy, which evaluates them."""

END = 2**63 - 1
"""The end of a slice that goes to the end."""

IN_SPEC = (
    '[1, {"type": "builtins.tuple", "context": "null", "children_spec": [{"type": "builtins.tuple", "context": "null", '
    '"children_spec": [{"type": null, "context": null, "children_spec": []}]}, '
    '{"type": "builtins.dict", "context": "[]", "children_spec": []}]}]'
)
OUT_SPEC = '[1, {"type": null, "context": null, "children_spec": []}]'


def _size(value: Any) -> bool:
    return type(value) is int and (0 <= value <= 2**31 or value == END)


def _small(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST_KERNEL + 1


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= 2**31


def _flag(value: Any) -> bool:
    return type(value) is bool


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) < 100


def _batch(value: Any) -> bool:
    return isinstance(value, str) and BATCH.fullmatch(value) is not None


def _symbol(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"s[0-9]{1,9}", value) is not None


def _target(value: Any) -> bool:
    return isinstance(value, str) and value in TARGETS


def _nothing(value: Any) -> bool:
    return value is None


class _Either(dict[str, Any]):
    """The pattern of a dictionary with exactly one of these keys."""


class _Table:
    """The pattern of a dictionary with any keys of one kind."""

    def __init__(self, key: Any, value: Any) -> None:
        self.key, self.value = key, value


TENSOR = {"name": is_name}
SIZE = _Either(as_int=_size, as_expr={"expr_str": _batch, "hint": _Either(as_int=_size)})
DEVICE = {"type": "cpu", "index": _nothing}
META = {
    "dtype": _small,
    "sizes": [SIZE],
    "strides": [SIZE],
    "storage_offset": _Either(as_int=_size),
    "requires_grad": False,
    "device": DEVICE,
    "layout": _small,
}
ARGUMENT = _Either(
    as_tensor=TENSOR,
    as_tensors=[TENSOR],
    as_int=_size,
    as_ints=[_small],
    as_float=_number,
    as_bool=_flag,
    as_none=_flag,
    as_string="constant",
    as_scalar_type=_small,
    as_memory_format=_small,
    as_layout=_small,
    as_device=DEVICE,
)
NODE = {
    "target": _target,
    "inputs": [{"name": is_name, "arg": ARGUMENT, "kind": _small}],
    "outputs": [_Either(as_tensor=TENSOR)],
    "name": is_name,
}
SIGNATURE = {
    "input_specs": [
        _Either(
            parameter={"arg": TENSOR, "parameter_name": is_path},
            user_input={"arg": _Either(as_tensor=TENSOR)},
        )
    ],
    "output_specs": [_Either(user_output={"arg": _Either(as_tensor=TENSOR)})],
}
CALL = {
    "fqn": "",
    "signature": {"in_spec": IN_SPEC, "out_spec": OUT_SPEC, "forward_arg_names": ["pixels"]},
}
PROGRAM = {
    "graph_module": {
        "graph": {
            "inputs": [_Either(as_tensor=TENSOR)],
            "outputs": [_Either(as_tensor=TENSOR)],
            "nodes": [NODE],
            "tensor_values": _Table(is_name, META),
        },
        "signature": SIGNATURE,
        "module_call_graph": [CALL],
    },
    "opset_version": {"aten": _small},
    "range_constraints": _Table(_symbol, {"min_val": _size, "max_val": lambda value: value is None or _size(value)}),
    "schema_version": {"major": _small, "minor": _number},
    "verifiers": ["TRAINING"],
    "torch_version": _text,
}


def fault_of_graph(program: Any, shapes: Mapping[str, list[int]]) -> str:
    """What in the graph is not a classifier's; empty where nothing is.

    Args:
        program: the JSON of torch's archive.
        shapes: of the model's weights.
    """
    if fault := _fault(program, PROGRAM, "the program"):
        return fault
    specs = program["graph_module"]["signature"]["input_specs"]
    named = {
        spec["parameter"]["parameter_name"]: spec["parameter"]["arg"]["name"] for spec in specs if "parameter" in spec
    }
    values = program["graph_module"]["graph"]["tensor_values"]
    if named.keys() != shapes.keys():
        return "a signature that does not name the model's weights"
    for name, shape in shapes.items():
        if values.get(named[name], {}).get("sizes") != [{"as_int": size} for size in shape]:
            return f"another shape for {name}"
    return ""


def _fault(value: Any, pattern: Any, place: str) -> str:  # noqa: PLR0911 - one return for each kind of pattern
    """Where ``value`` departs from ``pattern``; empty where it does not."""
    if isinstance(pattern, _Table):
        if not isinstance(value, dict) or not all(map(pattern.key, value)):
            return f"{place} with other keys"
        return _first(_fault(item, pattern.value, f"{place} {key}") for key, item in value.items())
    if isinstance(pattern, _Either):
        if not isinstance(value, dict) or len(value) != 1 or not value.keys() <= pattern.keys():
            return f"{place} of another kind ({_shown(value)})"
        (key,) = value
        return _fault(value[key], pattern[key], f"{place} {key}")
    if isinstance(pattern, dict):
        if not isinstance(value, dict):
            return f"{place} of another kind ({_shown(value)})"
        if missing := pattern.keys() - value.keys():
            return f"{place} without {min(missing)}"
        return _first(
            _fault(item, pattern[key], f"{place} {key}") if key in pattern else _stranger(key, item, place)
            for key, item in value.items()
        )
    if isinstance(pattern, list):
        if not isinstance(value, list):
            return f"{place} of another kind ({_shown(value)})"
        return _first(_fault(item, pattern[0], place) for item in value)
    fits = pattern(value) if callable(pattern) else type(value) is type(pattern) and value == pattern
    return "" if fits else f"{place} {_shown(value)}"


def _first(faults: Any) -> str:
    return next((fault for fault in faults if fault), "")


def _stranger(key: str, value: Any, place: str) -> str:
    """Later versions of torch may have more to say; it is let pass where they say nothing."""
    return "" if value is None or value is False or value in ({}, [], "") else f"{place} with {_shown(key)}"


def _shown(value: Any) -> str:
    return repr(value)[:80]
