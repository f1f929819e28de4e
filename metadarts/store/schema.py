"""JSON that anyone may have written, read as declared types by msgspec; whatever does not fit is one line saying where.

Size and nesting are limited before anything is parsed. NaN, infinities, a name that occurs twice in an object and half
a surrogate pair are no JSON here. Ranges are annotations of the types, see `metadarts.store.fields`.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from metadarts.core.errors import DataError, MetadartsError

Kind = TypeVar("Kind")
MOST_BYTES = 2**26
"""Of JSON, unless a schema says otherwise."""

PIECE = 2**24
"""Bytes read at once."""

DEEPEST = 64
"""Lists and objects within one another."""

MOST_SAID = 500
"""Letters of a message."""

REST = "more"
"""The field of a dataclass that takes what else its object holds; without it nothing else may be there."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_ONE_OF = re.compile(r"str matching regex '\^\(\?:(.*)\)\\\\Z'")
_STEP = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")


@dataclass(frozen=True)
class Schema(Generic[Kind]):
    """A type that JSON is read as, and how what does not fit it is refused.

    Args:
        kind: a dataclass, of which the outermost alone may have a field `REST`.
        error: raised with one line: "NAME: where.in.it: expected ..., got ...; ADVICE".
        advice: what to do about it.
        form: the values of "format" and "version", which are fields of no dataclass; None where there are none.
        limit: bytes that are read at most.
        finite: whether NaN and infinities are refused everywhere. A range refuses them where it is declared.
        check: raises ValueError where the parts of what was read do not agree.
    """

    kind: type[Kind]
    error: type[MetadartsError]
    advice: str = ""
    form: tuple[str, int] | None = None
    limit: int = MOST_BYTES
    finite: bool = True
    check: Callable[[Kind], None] | None = None

    def read(self, source: Path | str | bytes, name: str = "") -> Kind:
        """The file, text or bytes as the declared type. Raises ``error``; ``name`` is what messages call a text."""
        return self.convert(self.loads(source, name), name or _name_of(source))

    def loads(self, source: Path | str | bytes, name: str = "") -> Any:
        """The file, text or bytes as plain dictionaries and lists, of no type yet. Raises ``error``."""
        with self.refusing(name or _name_of(source)):
            return loads(content(source, self.limit) if isinstance(source, Path) else source, self.limit, self.finite)

    def convert(self, value: Any, name: str = "") -> Kind:
        """Plain dictionaries and lists as the declared type. Raises ``error``."""
        with self.refusing(name):
            found = convert(value if self.form is None else _without_form(value, *self.form), self.kind)
            if self.check is not None:
                self.check(found)
            return found

    @contextmanager
    def refusing(self, name: str) -> Iterator[None]:
        """What is refused inside, also by what is made of the values that were read, is refused as ``error``."""
        try:
            yield
        except (OSError, ValueError, OverflowError, MetadartsError) as error:
            said = _unread(error, name) if isinstance(error, OSError) else str(error)
            said = (f"{name}: " if name else "") + " ".join(said.splitlines())[:MOST_SAID]
            raise self.error(f"{said}; {self.advice}" if self.advice else said) from error


def content(path: Path, limit: int = MOST_BYTES) -> bytes:
    """What a file holds. Raises OSError; ValueError for what is no regular file, and for one larger than ``limit``."""
    require_file(path, limit)
    parts, left = [], limit + 1  # in pieces: `read` makes room for all that it is asked for
    with path.open("rb") as file:
        while left > 0 and (part := file.read(min(left, PIECE))):
            parts.append(part)
            left -= len(part)
    return b"".join(parts)


def require_file(path: Path, limit: int) -> None:
    """Require a regular file of at most ``limit`` bytes. Raises OSError, ValueError."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # reading a pipe or a device may never end
        raise ValueError(f"expected a file, got a {'folder' if stat.S_ISDIR(found.st_mode) else 'pipe or device'}")
    if found.st_size > limit:
        raise ValueError(f"expected at most {limit} bytes, got {found.st_size}")


def loads(text: str | bytes, limit: int = MOST_BYTES, finite: bool = True) -> Any:
    """JSON as plain values. Raises ValueError for what is none, see above, or larger than ``limit``.

    Args:
        finite: whether NaN and infinities are refused.
    """
    if len(text) > limit:
        raise ValueError(f"expected at most {limit} bytes, got {len(text)}")
    number = _finite if finite else None
    try:
        text = text.decode() if isinstance(text, bytes) else text
        _require_flat(text)
        found = json.loads(text, object_pairs_hook=_once, parse_constant=number, parse_float=number)
        if not text.isascii() or _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair can be read, but not written
    except (json.JSONDecodeError, UnicodeError) as error:
        raise ValueError(f"expected JSON, got something else ({error})") from error
    return found


def convert(value: Any, kind: type[Kind]) -> Kind:
    """Plain dictionaries and lists as ``kind``, in which nothing is guessed: "1" and true are no numbers.

    Raises:
        ValueError: "where.in.it: expected ..., got ...".
        MetadartsError: as the dataclasses themselves do.
    """
    import msgspec

    names = getattr(kind, "__dataclass_fields__", {})
    if REST in names and isinstance(value, dict):
        rest = {name: item for name, item in value.items() if name not in names or name == REST}
        value = {name: item for name, item in value.items() if name not in rest} | {REST: rest}
    try:
        found = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(_fault(str(error), value)) from error
    if where := next(_unknown(value, found, ""), ""):
        raise ValueError(f"{where.removeprefix('.')}: expected no such field, unless of a later version")
    return found


def fitting(value: Any, kind: type[Kind]) -> Kind | None:
    """``value`` as ``kind`` where it fits, else None: for records of other versions. Other fields are left out."""
    import msgspec

    with suppress(msgspec.ValidationError):
        return msgspec.convert(value, kind)
    return None


def fitting_file(path: Path, kind: type[Kind]) -> Kind | None:
    """What a JSON file holds where it can be read and fits, as `fitting`; NaN and infinities may be in it."""
    with suppress(OSError, ValueError):
        return fitting(loads(content(path), finite=False), kind)
    return None


def require_printable(names: Iterable[str]) -> None:
    """Require names of classes that can be written. Raises DataError."""
    for name in names:
        if any("\ud800" <= letter <= "\udfff" for letter in name):  # of a file name that is not UTF-8
            raise DataError(f"the class name {name!a} holds half a letter, which cannot be printed: rename it")


def shown(value: Any) -> str:
    """``value`` in a few words: what comes from YAML can hold lists of any length within one another."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 80, 80
    try:
        return short.repr(value)
    except ValueError:  # a whole number with more digits than Python prints
        return f"a {type(value).__name__}"


def _name_of(source: Path | str | bytes) -> str:
    return str(source) if isinstance(source, Path) else ""


def _unread(error: OSError, name: str) -> str:
    path = str(error.filename or "")
    return f"{'cannot be read' if path in name else f'cannot read {path}'} ({error.strerror or error})"


def _require_flat(text: str) -> None:
    """Look for deep nesting before a parser that recurses meets it; brackets within strings are none."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > DEEPEST:
            raise ValueError(f"expected lists and objects nested {DEEPEST} deep at most")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"expected finite numbers, got {text[:20]}")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"expected each name once in an object, got {[name for name, _ in pairs]!r:.80}")
    return found


def _without_form(value: Any, form: str, version: int) -> Any:
    """``value`` without "format" and "version". Raises ValueError where they are others."""
    rest = dict(value) if isinstance(value, dict) else {}
    for name, expected in (("format", form), ("version", version)):
        found = rest.pop(name, None)
        if type(found) is not type(expected) or found != expected:
            hint = " (update metadarts)" if type(found) is int and found > version else ""
            raise ValueError(f"{name}: expected {expected!r}, got {shown(found)}{hint}")
    return rest


def _unknown(value: Any, found: Any, where: str) -> Iterator[str]:
    """Where ``value`` holds what the dataclasses in ``found``, which was made of it, have no field for."""
    known: Any = vars(found) if is_dataclass(found) else found
    if isinstance(value, dict):
        yield from (f"{where}.{name:.40}" for name in value if name not in known)
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, dict | list | tuple) and known[key] is not None:
            yield from _unknown(item, known[key], f"{where}.{key:.40}" if isinstance(key, str) else f"{where}[{key}]")


def _fault(message: str, value: Any) -> str:
    """ "where.in.it: expected ..., got ..." of msgspec's message about ``value``."""
    said, _, path = message.replace("`", "").partition(" - at $")
    if said.startswith("Object missing required field "):
        path, said = f"{path}.{said.split()[-1]}", "Expected a value, got none"
    else:
        with suppress(ValueError):  # of an object's values msgspec does not say which is at fault
            for name, place in _STEP.findall(path):
                value = value[name or int(place)]
            said = f"{said.partition(', got ')[0]}, got {shown(value)}"
    said = _ONE_OF.sub(lambda found: "one of " + ", ".join(map(repr, found[1].split("|"))), said)
    return ": ".join(filter(None, (path.removeprefix("."), said[0].lower() + said[1:])))
