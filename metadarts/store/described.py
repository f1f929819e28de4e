"""JSON that describes what lies beside it in a file, read with care: the file may come from anyone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metadarts.core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


def read_json(text: str) -> Any:
    """``text`` as JSON of finite numbers and of letters that can be printed. Raises ValueError, RecursionError."""
    told = json.loads(text, parse_constant=_finite, parse_float=_finite)
    json.dumps(told, ensure_ascii=False).encode()  # half a letter can be read, but not written
    return told


def read_described(path: Path, key: str) -> tuple[Any, dict[str, Tensor]]:
    """The description in a .safetensors file's metadata under ``key``, None without one, and its tensors.

    Raises:
        DataError: when it cannot be read as such a file; the message is the reason alone.
    """
    from safetensors import safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            told = read_json((file.metadata() or {}).get(key, "null"))
            return told, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except Exception as error:  # the library's own, the system's, and those of types that torch lacks
        raise DataError((str(error) or type(error).__name__).splitlines()[0]) from error


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
