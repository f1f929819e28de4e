"""JSON that describes what lies beside it in a file, read with care: the file may come from anyone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from metadarts.core.errors import DataError


def read_json(text: str) -> Any:
    """``text`` as JSON of finite numbers and of letters that can be printed. Raises ValueError, RecursionError."""
    told = json.loads(text, parse_constant=_finite, parse_float=_finite)
    json.dumps(told, ensure_ascii=False).encode()  # half a letter can be read, but not written
    return told


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def require_printable(names: Iterable[str]) -> None:
    """Require names of classes that can be written. Raises DataError."""
    for name in names:
        if any("\ud800" <= letter <= "\udfff" for letter in name):  # of a file name that is not UTF-8
            raise DataError(f"the class name {name!a} holds half a letter, which cannot be printed: rename it")


def whole(value: Any, least: int, most: int) -> int:
    """``value`` where it is a whole number from ``least`` to ``most``. Raises ValueError."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"expected a whole number from {least} to {most}, got {repr(value)[:40]}")
    return value


def number(value: Any) -> float:
    """``value`` where it is a finite number. Raises ValueError."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {repr(value)[:40]}")
    return float(value)


def truth(value: Any) -> bool:
    """``value`` where it is true or false. Raises ValueError."""
    if type(value) is not bool:
        raise ValueError(f"expected true or false, got {repr(value)[:40]}")
    return value
