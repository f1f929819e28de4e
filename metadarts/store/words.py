"""Messages about a value that does not fit its type: where it stands, and what was expected there."""

from __future__ import annotations

import re
import reprlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from metadarts.core.errors import nearest

_STEP = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_NAMES = {
    "NoneType": "null", "BoolType": "true or false", "IntType": "a whole number", "FloatType": "a number",
    "StrType": "text", "VarTupleType": "a list", "ListType": "a list",
}  # fmt: skip
"""Of kinds of `msgspec.inspect`; all others are objects."""

_SAID_BY_MSGSPEC = ("Expected ", "Object ", "Invalid ", "Number ", "Integer ")


class Nothing:
    """What stands where a field is missing."""

    def __repr__(self) -> str:
        return "none"


def fault(message: str, value: Any, kind: Any) -> str:
    """ "where.in.it: expected ..., got ..." for ``message``, by which msgspec refused ``value`` as a ``kind``.

    Its place is followed through the value and the declared types; what a dataclass said itself stays as it is.
    """
    said, _, path = message.partition(" - at `$")
    steps, missing = _STEP.findall(path), _MISSING.fullmatch(said)
    where, hint = "", kind
    for name, place in [*steps, (missing[1], "")] if missing else steps:
        hint = _inner(hint, name, place)
        if place == "...":  # which of an object's values is at fault, msgspec does not say
            name = next(own for own, item in value.items() if not _fits(item, hint))
        where += _named(name) if name else f"[{place}]"
        value = value.get(name, Nothing()) if name else value[int(place)]
    if said.startswith(_SAID_BY_MSGSPEC):
        said = f"expected {_expected(hint)}, got {shown(value)}"
    return ": ".join(part for part in (where.removeprefix("."), said) if part)


def unknown(value: Any, found: Any, where: str = "") -> Iterator[str]:
    """Faults for the fields of ``value`` that the dataclasses in ``found``, which was made of it, do not have."""
    if isinstance(value, dict):
        names = [field.name for field in fields(found)] if is_dataclass(found) else value.keys()
        for name, item in value.items():
            at = where + _named(name)
            if name not in names:
                where = at.removeprefix(".")
                yield f"{where}: expected no such field, unless of a later version; {nearest(name[:40], names)}"
            else:
                yield from unknown(item, getattr(found, name) if is_dataclass(found) else found[name], at)
    elif isinstance(value, list | tuple) and value and isinstance(value[0], dict | list | tuple):
        for place, (item, other) in enumerate(zip(value, found, strict=True)):
            yield from unknown(item, other, f"{where}[{place}]")


def _named(name: str) -> str:
    """A step into a field; a name may be anything."""
    return f".{name[:40]}" if name.isprintable() else f"[{name[:40]!r}]"


def shown(value: Any) -> str:
    """``value`` in a few words: what comes from YAML can hold lists of any length within one another."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 60, 60
    try:
        return short.repr(value)[:80]
    except ValueError:  # a whole number with more digits than Python prints
        return f"a {type(value).__name__}"


def _inner(hint: Any, name: str, place: str) -> Any:
    """The type of the field ``name``, or of the item ``place``, of a value of type ``hint``."""
    if get_origin(hint) is Annotated:
        return _inner(get_args(hint)[0], name, place)
    if get_origin(hint) in (Union, UnionType):
        return _inner(next(part for part in get_args(hint) if part is not NoneType), name, place)
    if name:
        return get_type_hints(hint, include_extras=True)[name]
    args = get_args(hint)
    if place == "...":
        return args[1]
    return args[int(place)] if get_origin(hint) is tuple and args[-1] is not Ellipsis else args[0]


def _fits(value: Any, kind: Any) -> bool:
    import msgspec

    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _expected(hint: Any) -> str:
    """A declared type in words."""
    from msgspec import inspect

    return _in_words(inspect.type_info(hint))


def _in_words(info: Any) -> str:
    from msgspec import inspect

    match info:
        case inspect.Metadata(type=inner, extra_json_schema=extra):
            words = str((extra or {}).get("description") or _in_words(inner))
        case inspect.UnionType(types=types):
            words = " or ".join(_in_words(part) for part in sorted(types, key=_is_null))
        case inspect.IntType() | inspect.FloatType():
            bounds = ("from", info.ge), ("above", info.gt), ("to", info.le), ("below", info.lt)
            words = f"{_NAMES[type(info).__name__]}{_bounded(bounds)}"
        case inspect.TupleType(item_types=items):
            words = f"a list of {len(items)}"
        case _:
            name = type(info).__name__
            words = f"{_NAMES.get(name, 'an object')}{_long(info, ' letters' if name == 'StrType' else '')}"
    return words


def _is_null(info: Any) -> bool:
    from msgspec import inspect

    return isinstance(info, inspect.NoneType)


def _bounded(bounds: Sequence[tuple[str, Any]]) -> str:
    """The bounds of a number; the largest float is none."""
    return "".join(f" {word} {_plain(at)}" for word, at in bounds if at is not None and abs(at) < sys.float_info.max)


def _plain(bound: float) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def _long(info: Any, unit: str = "") -> str:
    ends = ("at least", getattr(info, "min_length", None)), ("at most", getattr(info, "max_length", None))
    told = [f"{word} {end}" for word, end in ends if end is not None]
    return f" of {' and '.join(told)}{unit}" if told else ""
