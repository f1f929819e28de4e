"""Descriptions of exported models that version 0.1 wrote, by operations and cells, as today's: by layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MOST_CHANNELS = 4096

Row = list[tuple[Any, ...]]
"""Layers that follow one another, each as (kind, option, ...)."""


def model_from_version_1(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The description of an exported model that lists a stem and cells of named operations, as one that lists layers.

    Its tensors keep their names. Nothing is checked but what would stop the conversion.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, IndexError: for what is no such description.
    """
    layers, image = _Layers([]), facts["image"]
    last = layers.row("stem", 0, _stem(image["channels"], *facts["stem"]))
    size = last_size = (image["height"] // 4, image["width"] // 4)
    before, features = last, 0
    for index, cell in enumerate(facts["cells"]):
        aligned = before if size == last_size else layers.add([before], "every_second")
        size = last_size
        if any(stride == 2 for _, _, _, stride in cell["edges"]):
            last_size = ((size[0] + 1) // 2, (size[1] + 1) // 2)
        before, last = last, layers.cell(f"cells.{index}", cell, [aligned, last])
        features = _channels(cell["channels"]) * len(cell["concat"])
    layers.add([last], "mean")
    kept = {name: value for name, value in facts.items() if name not in ("stem", "cells")}
    return {**kept, "version": 2, "layers": layers.told, "features": features}


class _Layers:
    """The list of layers while it is made."""

    def __init__(self, told: list[list[Any]]) -> None:
        self.told = told

    def add(self, reads: list[int], kind: str, *options: Any, name: str = "") -> int:
        """The number of one more layer."""
        self.told.append([name, reads, kind, *options])
        return len(self.told)

    def row(self, name: str, read: int, row: Row) -> int:
        for place, (kind, *options) in enumerate(row):
            own = name if len(row) == 1 else f"{name}.{place}"
            read = self.add([read], kind, *options, name=own if kind in ("conv", "scale", "halve") else "")
        return read

    def cell(self, name: str, cell: Mapping[str, Any], inputs: list[int]) -> int:
        channels = cell["channels"]
        states = [
            self.row(f"{name}.preprocess.{place}", read, [("relu",), _pointwise(incoming, channels)])
            for place, (read, incoming) in enumerate(zip(inputs, cell["inputs"], strict=True))
        ]
        edges: dict[int, list[tuple[str, int, Row]]] = {}
        for place, (node, source, operation, stride) in enumerate(cell["edges"]):
            row = OPERATIONS[operation](channels, stride)
            edges.setdefault(node, []).append((f"{name}.edges.{place}", source, row))
        for node in range(len(edges)):
            parts = [self.row(edge, states[source], row) for edge, source, row in edges[node]]
            states.append(self.add(parts, "add") if len(parts) > 1 else parts[0])
        return self.add([states[state] for state in cell["concat"]], "cat")


def _stem(channels: int, first: int, second: int) -> Row:
    window, pool = _window(3, padding=1), ("max_pool", *_window(2, stride=2)[:3])
    return [
        ("conv", channels, first, *window, 1, True),
        pool,
        ("relu",),
        ("conv", first, second, *window, 1, True),
        pool,
    ]


def _window(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> list[list[int]]:
    return [[size, size] for size in (kernel, stride, padding, dilation)]


def _pointwise(before: int, after: int) -> tuple[Any, ...]:
    return ("conv", before, after, *_window(1), 1, True)


def _separable(kernel: int, dilation: int) -> Callable[[int, int], Row]:
    def row(channels: int, stride: int) -> Row:
        window = _window(kernel, stride, dilation * (kernel // 2), dilation)
        depthwise = ("conv", channels, channels, *window, channels, False)
        return [("relu",), depthwise, _pointwise(channels, channels)]

    return row


def _twice(half: Callable[[int, int], Row]) -> Callable[[int, int], Row]:
    return lambda channels, stride: half(channels, stride) + half(channels, 1)


def _pool(kind: str) -> Callable[[int, int], Row]:
    return lambda channels, stride: [(kind, *_window(3, stride, 1)[:3]), ("scale", channels)]


def _skip(channels: int, stride: int) -> Row:
    return [("scale" if stride == 1 else "halve", channels)]


OPERATIONS: Mapping[str, Callable[[int, int], Row]] = {
    "max_pool_3x3": _pool("max_pool"),
    "avg_pool_3x3": _pool("avg_pool"),
    "skip_connect": _skip,
    "sep_conv_3x3": _twice(_separable(3, 1)),
    "sep_conv_5x5": _twice(_separable(5, 1)),
    "dil_conv_3x3": _separable(3, 2),
    "dil_conv_5x5": _separable(5, 2),
}
"""Name -> (channels, stride) -> layers, as version 1 had them."""


def _channels(value: Any) -> int:
    """Raises ValueError where it is no number of channels, which could make a list of any length."""
    if type(value) is not int or not 1 <= value <= MOST_CHANNELS:
        raise ValueError(f"channels: expected 1 to {MOST_CHANNELS}, got {repr(value)[:40]}")
    return value
