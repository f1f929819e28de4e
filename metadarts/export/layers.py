"""The layers that a description lists, checked: it may come from anyone, and a few numbers can ask for any memory.

What each kind of layer is stands in `plain.LAYERS`. Here the size of every map is followed from the image on.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

MOST_LAYERS, MOST_CHANNELS, MOST_KERNEL, MOST_STRIDE, MOST_DILATION = 2**14, 4096, 63, 16, 32
MOST_NAME = 200

MOST_VALUES, MOST_ALL_VALUES, MOST_WORK = 2**24, 2**28, 2**36
"""Numbers in the largest map of an image and in all its maps; multiply-adds. A short description asks for little."""

Size = tuple[int, ...]
"""Channels, height and width of a map; the length of a vector."""

TAKEN = frozenset(dir(nn.Module())) | {"head", "mean", "std", "invert", "steps", "last_read"}
"""Names that a layer cannot have: `plain.Classifier` has them."""


def check_layers(layers: Any, image: Size) -> int:
    """The length of the last layer's output.

    Args:
        layers: of a description.
        image: channels, height and width.

    Raises:
        ValueError: where they are not layers of `plain`, do not fit one another, or ask for more than `MOST_VALUES`,
            `MOST_ALL_VALUES` or `MOST_WORK`.
    """
    if not (isinstance(layers, list) and 1 <= len(layers) <= MOST_LAYERS):
        raise ValueError(f"layers: expected 1 to {MOST_LAYERS}")
    names: set[str] = set()
    sizes, work = [image], 0
    for number, layer in enumerate(layers, 1):
        try:
            name, reads, kind, *options = layer
            size, cost = _follow(kind, options, _read(reads, sizes))
            if math.prod(size) > MOST_VALUES:
                raise ValueError(f"a map of more than {MOST_VALUES} numbers")
            _check_name(name, kind, names)
        except (TypeError, ValueError) as error:
            raise ValueError(f"layer {number}: {error}") from error
        names.add(name)
        sizes.append(size)
        work += cost
    _check_apart(names)
    if sum(map(math.prod, sizes)) > MOST_ALL_VALUES or work > MOST_WORK:
        raise ValueError(f"layers: more than {MOST_ALL_VALUES} numbers in all maps, or {MOST_WORK} multiply-adds")
    (features,) = _vector(sizes[-1])
    return features


def whole(value: Any, least: int, most: int) -> int:
    """``value`` where it is a whole number from ``least`` to ``most``. Raises ValueError."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"expected a whole number from {least} to {most}, got {repr(value)[:40]}")
    return value


def truth(value: Any) -> bool:
    """``value`` where it is true or false. Raises ValueError."""
    if type(value) is not bool:
        raise ValueError(f"expected true or false, got {repr(value)[:40]}")
    return value


def is_path(value: Any) -> bool:
    """Whether ``value`` is a dotted name of numbers and Python names."""
    return isinstance(value, str) and all(
        (part.isascii() and part.isdecimal()) or is_name(part) for part in value.split(".")
    )


def is_name(value: Any) -> bool:
    """Whether ``value`` is a name that does no harm in generated code."""
    return (
        isinstance(value, str)
        and len(value) <= MOST_NAME
        and value.isascii()
        and value.isidentifier()
        and not keyword.iskeyword(value)
        and not value.startswith("__")
    )


def _check_name(name: Any, kind: str, names: set[str]) -> None:
    if kind not in ("conv", "scale", "halve"):
        if name != "":
            raise ValueError("expected no name, as it has no weights")
    elif not is_path(name) or len(name) > MOST_NAME or name in names or TAKEN.intersection(name.split(".")):
        raise ValueError(f"expected a name of its own, of parts like 'cells.0', got {repr(name)[:80]}")


def _check_apart(names: set[str]) -> None:
    for name in names:
        parts = name.split(".")
        if above := names.intersection(".".join(parts[:count]) for count in range(1, len(parts))):
            raise ValueError(f"layers: {name} lies within {min(above)}, which is a layer itself")


def _read(reads: Any, sizes: Sequence[Size]) -> list[Size]:
    if not isinstance(reads, list) or not reads:
        raise ValueError("expected the numbers of the layers that it reads")
    return [sizes[whole(read, 0, len(sizes) - 1)] for read in reads]


def _follow(kind: Any, options: list[Any], sizes: list[Size]) -> tuple[Size, int]:
    """Size of the output, and multiply-adds."""
    if not isinstance(kind, str) or kind not in RULES:
        raise ValueError(f"unknown kind {repr(kind)[:80]}")
    if kind not in ("add", "cat") and len(sizes) > 1:
        raise ValueError(f"{kind} reads one layer")
    return RULES[kind](sizes, *options)


def _conv(sizes: list[Size], *options: Any) -> tuple[Size, int]:
    before, after, kernel, stride, padding, dilation, groups, bias = options
    channels, *image = _map(sizes[0])
    if whole(before, 1, MOST_CHANNELS) != channels:
        raise ValueError(f"expected {channels} channels, as the map has, got {before}")
    whole(after, 1, MOST_CHANNELS)
    if before % whole(groups, 1, MOST_CHANNELS) or after % groups:
        raise ValueError(f"{before} and {after} channels cannot be cut into {groups} groups")
    truth(bias)
    window, spread = _pair(kernel, 1, MOST_KERNEL), _pair(dilation, 1, MOST_DILATION)
    reach = [d * (k - 1) + 1 for k, d in zip(window, spread, strict=True)]
    size = (after, *_windows(image, reach, _pair(stride, 1, MOST_STRIDE), _pair(padding, 0, MOST_KERNEL)))
    return size, math.prod(size) * before // groups * math.prod(window)


def _pool(sizes: list[Size], kernel: Any, stride: Any, padding: Any) -> tuple[Size, int]:
    channels, *image = _map(sizes[0])
    window, spare = _pair(kernel, 1, MOST_KERNEL), _pair(padding, 0, MOST_KERNEL // 2)
    if any(2 * p > k for k, p in zip(window, spare, strict=True)):
        raise ValueError("padding of more than half the window")
    size = (channels, *_windows(image, window, _pair(stride, 1, MOST_STRIDE), spare))
    return size, math.prod(size) * math.prod(window)


def _windows(image: Sequence[int], reach: list[int], stride: list[int], padding: list[int]) -> list[int]:
    found = [
        (side + 2 * spare - width) // step + 1
        for side, width, step, spare in zip(image, reach, stride, padding, strict=True)
    ]
    if min(found) < 1:
        raise ValueError(f"a map of {image[0]}x{image[1]} is too small for its window")
    return found


def _scale(sizes: list[Size], channels: Any) -> tuple[Size, int]:
    if whole(channels, 1, MOST_CHANNELS) != _map(sizes[0])[0]:
        raise ValueError(f"expected {sizes[0][0]} channels, as the map has, got {channels}")
    return sizes[0], math.prod(sizes[0])


def _halve(sizes: list[Size], channels: Any) -> tuple[Size, int]:
    _scale(sizes, channels)
    if channels % 2:
        raise ValueError(f"expected an even number of channels, got {channels}")
    size, _ = _every_second(sizes)
    return size, math.prod(size) * channels


def _relu(sizes: list[Size]) -> tuple[Size, int]:
    return sizes[0], math.prod(sizes[0])


def _add(sizes: list[Size]) -> tuple[Size, int]:
    if len(set(sizes)) > 1:
        raise ValueError("maps of several sizes are added")
    return sizes[0], len(sizes) * math.prod(sizes[0])


def _cat(sizes: list[Size]) -> tuple[Size, int]:
    if len({size[1:] for size in map(_map, sizes)}) > 1:
        raise ValueError("maps of several sizes are joined")
    size = (whole(sum(size[0] for size in sizes), 1, MOST_CHANNELS), *sizes[0][1:])
    return size, math.prod(size)


def _every_second(sizes: list[Size]) -> tuple[Size, int]:
    channels, height, width = _map(sizes[0])
    return (channels, -(-height // 2), -(-width // 2)), 0


def _mean(sizes: list[Size]) -> tuple[Size, int]:
    return _map(sizes[0])[:1], math.prod(sizes[0])


def _flatten(sizes: list[Size]) -> tuple[Size, int]:
    return (math.prod(_map(sizes[0])),), 0


RULES: Mapping[str, Callable[..., tuple[Size, int]]] = {
    "conv": _conv, "scale": _scale, "halve": _halve, "relu": _relu, "max_pool": _pool, "avg_pool": _pool, "add": _add,
    "cat": _cat, "every_second": _every_second, "mean": _mean, "flatten": _flatten,
}  # fmt: skip
"""Kind -> (sizes of what it reads, options) -> size of its output and multiply-adds. Raises TypeError, ValueError."""


def _map(size: Size) -> Size:
    if len(size) != 3:
        raise ValueError("expected a map, got a vector")
    return size


def _vector(size: Size) -> Size:
    if len(size) != 1:
        raise ValueError("layers: expected the last one to give a vector")
    return size


def _pair(value: Any, least: int, most: int) -> list[int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"expected a height and a width, got {repr(value)[:40]}")
    return [whole(each, least, most) for each in value]
