"""Values of settings: read from YAML scalars, checked against the type of their field."""

from __future__ import annotations

import types
import typing
from contextlib import suppress
from typing import Any

import yaml

from metadarts.core.errors import ConfigError
from metadarts.store.schema import shown

UNREADABLE = (yaml.YAMLError, ValueError, AttributeError, RecursionError, MemoryError)
"""What PyYAML raises on bad text: besides its own errors those of Python's int, dates and stack."""
WIDEST = 2**63
"""Whole numbers reach torch, numpy and JSON in 64 bits."""


def convert(path: str, value: Any, hint: Any) -> Any:
    """``value`` as the field's type; "4" is 4 for an int field, "[24, 48]" a pair for a tuple field."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if str not in options:
        value = read(value, _type_name(hint))
    if isinstance(value, int) and not -WIDEST <= value < WIDEST:
        raise ConfigError(f"expected {_type_name(hint)}, got a whole number beyond 64 bits")
    if isinstance(value, str) and float in options:
        with suppress(ValueError):  # YAML 1.1 takes 1e-3 for text: it wants 1.0e-3
            value = float(value)
    if value is None or (isinstance(value, str) and value == "none" and type(None) in options):
        if type(None) in options:
            return None
    elif float in options and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif typing.get_origin(hint) is tuple and isinstance(value, list | tuple):
        if _is_tuple_of(value, typing.get_args(hint)):
            return tuple(value)
    elif any(type(value) is option for option in options):
        return value
    raise ConfigError(f"expected {_type_name(hint)}, got {shown(value)}")


def read(value: Any, expected: str) -> Any:
    """Text as the YAML scalar or collection that it is, anything else as it is. Raises ConfigError."""
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except UNREADABLE as error:
        raise ConfigError(f"expected {expected}, got {shown(value)}") from error


def _type_name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)


def _is_tuple_of(value: list[Any] | tuple[Any, ...], kinds: tuple[Any, ...]) -> bool:
    """Whether the items are of ``kinds``, one each, or of the first where an ellipsis follows it."""
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    return len(value) == len(kinds) and all(type(item) is kind for item, kind in zip(value, kinds, strict=True))
