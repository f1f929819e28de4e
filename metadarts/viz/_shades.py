"""Colours of operations: an operation says its own, see `metadarts.operations.Operation.shade`."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metadarts.operations import Operation

SPARE = ("#3f9c6c", "#1c5f40", "#b0307a", "#0d7a80")
"""Of operations without a colour of their own, in turn."""

PALE, DARK = 0.91, 0.36
"""Lightness of a box and of what is written in it."""


def shades(names: Iterable[str], operations: Mapping[str, Operation] | None = None) -> dict[str, str]:
    """Operation -> its colour, "#rrggbb".

    Args:
        operations: what the names stand for; None for the operations of `metadarts.operations`.
    """
    if operations is None:
        from metadarts.operations import OPERATIONS

        operations = OPERATIONS
    names = list(names)
    own = {name: operations[name].shade for name in names if name in operations}
    others = [name for name in names if not own.get(name)]
    spare = {name: SPARE[place % len(SPARE)] for place, name in enumerate(others)}
    return {name: own.get(name) or spare[name] for name in names}


def box_colors(shade: str) -> tuple[str, str]:
    """The face of a box, and its rim and letters: the shade's hue, pale and dark."""
    red, green, blue = (int(shade[at : at + 2], 16) / 255.0 for at in (1, 3, 5))
    hue, _, saturation = colorsys.rgb_to_hls(red, green, blue)
    face, rim = (colorsys.hls_to_rgb(hue, lightness, saturation) for lightness in (PALE, DARK))
    return _hex(face), _hex(rim)


def _hex(color: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in color)
