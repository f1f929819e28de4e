"""Outlines of characters, read from the fonts that matplotlib ships, in font units and so exactly.

FreeType reads the files (without hinting or scaling, so that its version cannot matter); everything after that is
elementwise float64 arithmetic, whose results IEEE 754 fixes. The pixels therefore depend on the font files alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metadarts.core.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSans-BoldOblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSansMono-Oblique.ttf",
    "DejaVuSansMono-BoldOblique.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-Italic.ttf",
    "DejaVuSerif-BoldItalic.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
    "STIXGeneralItalic.ttf",
    "STIXGeneralBolIta.ttf",
)
"""The fonts of the built-in source; a font's place here is its variety number, so append only."""

_MOVE, _LINE, _CURVE, _CLOSE = (
    1,
    2,
    3,
    79,
)  # matplotlib's path codes; TrueType has straight lines and quadratic curves only
_PIECES = 8  # a piece of flattened outline is at most 1 / _PIECES of the character's larger side


@dataclass(frozen=True, eq=False)
class Outline:
    """Closed polygons of one character in one font; its bounding box is centred on 0 and its larger side is 1.

    Args:
        points: [V, 2] float64 corners, x to the right, y down.
        after: [V] the corner that follows each along its polygon (the last is followed by the first).
        outward: [V, 2] unit directions away from the ink, mitred at corners, for growing and shrinking strokes.
        aspect: smaller side of the bounding box over the larger, 0 to 1.
    """

    points: Floats
    after: Ints
    outward: Floats
    aspect: float


def font_folder() -> Path:
    """Where matplotlib keeps its TrueType fonts."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@lru_cache(maxsize=1)
def fonts_sha256() -> str:
    """Hex digest of the font files. Raises DataError when one is missing."""
    digest = hashlib.sha256()
    for name in FONTS:
        digest.update(_font_file(name).read_bytes())
    return digest.hexdigest()


def _font_file(name: str) -> Path:
    path = font_folder() / name
    if not path.is_file():
        raise DataError(f"expected the font {name} beside matplotlib, at {path}; reinstall matplotlib (pip) to get it")
    return path


class FontReader:
    """All fonts of `FONTS`, open: which characters each has, and their outlines."""

    def __init__(self) -> None:
        import matplotlib
        from matplotlib import ft2font

        flags = getattr(ft2font, "LoadFlags", None)  # matplotlib 3.9 has plain numbers instead
        self._unscaled: Any = flags.NO_SCALE if flags else 1  # font units, no hinting
        # Before 3.11 matplotlib divides x by its hinting factor, and rounds, unless told that there is none.
        options: Any = {"hinting_factor": 1} if matplotlib.__version_info__ < (3, 11) else {}
        self._fonts = [ft2font.FT2Font(str(_font_file(name)), **options) for name in FONTS]
        self._codes = [frozenset(font.get_charmap()) for font in self._fonts]

    def fonts_of(self, code: int) -> list[int]:
        """Numbers of the fonts that hold code point ``code``."""
        return [number for number, codes in enumerate(self._codes) if code in codes]

    def outline(self, font: int, code: int) -> Outline | None:
        """The character's outline, or None when the font draws nothing for it (a space)."""
        face = self._fonts[font]
        face.load_char(code, flags=self._unscaled)
        vertices, codes = face.get_path()
        if len(vertices) == 0:
            return None
        # matplotlib divides by 64 as if these were FreeType's 26.6 fixed point numbers; whole font units again
        return build_outline(np.rint(np.asarray(vertices) * 64), np.asarray(codes))


def build_outline(vertices: Floats, codes: NDArray[np.uint8]) -> Outline:
    """Flatten a path (vertices [P, 2] in font units, y up; codes [P]) to polygons and normalise it."""
    start, control, end, contour = _segments(vertices * np.array([1.0, -1.0]), codes)
    low, high = end.min(0), end.max(0)
    extent = (high - low).max()
    points, owner = _flatten(start, control, end, extent)
    middle = (points.max(0) + points.min(0)) / 2
    sides = points.max(0) - points.min(0)
    points = (points - middle) / sides.max()
    after = _following(contour[owner])
    return Outline(points, after, _outward(points, after), float(sides.min() / sides.max()))


def _segments(vertices: Floats, codes: NDArray[np.uint8]) -> tuple[Floats, Floats, Floats, Ints]:
    """Every side of the path as a quadratic curve: start, control and end points [S, 2], and its contour [S]."""
    opens = np.flatnonzero(codes == _MOVE)
    contour = np.cumsum(codes == _MOVE) - 1
    closing = codes == _CLOSE
    vertices[closing] = vertices[opens[contour[closing]]]
    closing[1:] &= (vertices[1:] != vertices[:-1]).any(1)  # FreeType has drawn the last side already
    curve = codes == _CURVE
    first = curve & (np.cumsum(curve) % 2 == 1)  # curves come as (control, end) pairs
    here = np.flatnonzero(first | (codes == _LINE) | closing)
    curved = first[here]
    start, end = vertices[here - 1], vertices[np.where(curved, np.minimum(here + 1, len(codes) - 1), here)]
    control = np.where(curved[:, None], vertices[here], (start + end) / 2)
    return start, control, end, contour[here]


def _flatten(start: Floats, control: Floats, end: Floats, extent: float) -> tuple[Floats, Ints]:
    """Points along the segments at even steps (the end belongs to the next one), and the segment of each."""
    length = np.abs(control - start).max(1) + np.abs(end - control).max(1)
    pieces = np.clip(np.ceil(length / extent * _PIECES), 1, _PIECES).astype(np.int64)
    curved = np.abs(start + end - 2 * control).max(1) > 0.02 * extent
    pieces = np.maximum(pieces, np.where(curved, 3, 1))
    owner = np.repeat(np.arange(len(start)), pieces)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    t = (step / pieces[owner])[:, None]
    points = start[owner] * (1 - t) * (1 - t) + control[owner] * (2 * t * (1 - t)) + end[owner] * t * t
    return points, owner


def _following(contour: Ints) -> Ints:
    after = np.arange(1, len(contour) + 1)
    last = np.flatnonzero(np.append(contour[1:] != contour[:-1], True))
    after[last] = np.append(0, last[:-1] + 1)
    return after


def _outward(points: Floats, after: Ints) -> Floats:
    """Mitred unit normals [V, 2], pointing away from the ink whichever way the font winds its contours."""
    side = points[after] - points
    length = np.sqrt(side[:, 0] * side[:, 0] + side[:, 1] * side[:, 1])
    normal = np.stack([side[:, 1], -side[:, 0]], 1) / np.maximum(length, 1e-9)[:, None]
    before = np.empty_like(after)
    before[after] = np.arange(len(after))
    arriving = normal[before]
    cosine = normal[:, 0] * arriving[:, 0] + normal[:, 1] * arriving[:, 1]
    mitred = (normal + arriving) / np.maximum(1 + cosine, 0.5)[:, None]
    area = (points[:, 0] * points[after, 1] - points[:, 1] * points[after, 0]).sum()
    return mitred if area > 0 else -mitred
