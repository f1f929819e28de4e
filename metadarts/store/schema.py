"""Files that anyone may have written, read as declared types: JSON, and what a .safetensors file says of its tensors.

A `Schema` stands beside the dataclass that it reads. Size and nesting are limited before anything is parsed; NaN,
infinities, names that occur twice and half a surrogate pair are no JSON here; msgspec then converts into the declared
types, whose ranges are annotations (see `metadarts.store.fields`). Whatever does not fit is one line that says where.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from metadarts.core.errors import DataError, MetadartsError

from .words import fault, shown, unknown

if TYPE_CHECKING:
    from torch import Tensor

Kind = TypeVar("Kind")
MOST_BYTES = 2**26
"""Of JSON, unless a schema says otherwise."""

MOST_TENSORS = 2**34
"""Bytes of a .safetensors file."""

DEEPEST = 64
"""Lists and objects within one another."""

REST = "more"
"""The field of a dataclass that takes what else its object holds; without such a field nothing else may be there."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Schema(Generic[Kind]):
    """A type that JSON is read as, and how what does not fit it is refused.

    Args:
        kind: a dataclass. An unknown field is refused, unless the outermost dataclass has a field called `REST`.
        error: raised with one line: "NAME: where.in.it: expected ..., got ...; ADVICE".
        advice: what to do about it.
        form: the values of "format" and "version", which are fields of no dataclass; None where there are none.
        limit: bytes of JSON that are read at most.
        tensors_limit: the same of a .safetensors file.
        finite: whether NaN and infinities are refused everywhere. A range refuses them where it is declared.
        check: raises ValueError where the parts of what was read do not agree.
    """

    kind: type[Kind]
    error: type[MetadartsError]
    advice: str = ""
    form: tuple[str, int] | None = None
    limit: int = MOST_BYTES
    tensors_limit: int = MOST_TENSORS
    finite: bool = True
    check: Callable[[Kind], None] | None = None

    def read(self, source: Path | str | bytes, name: str = "") -> Kind:
        """The file, text or bytes as the declared type. Raises ``error``; ``name`` is what messages call a text."""
        name = name or _name_of(source)
        return self.convert(self.loads(source, name), name)

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

    def described(self, path: Path, key: str) -> tuple[str, dict[str, Tensor]]:
        """The text in a .safetensors file's metadata under ``key``, to be read, and the tensors. Raises ``error``."""
        with self.refusing(str(path)):
            return _described(path, key, self.tensors_limit)

    @contextmanager
    def refusing(self, name: str) -> Iterator[None]:
        """What is refused inside, also by what is made of the values that were read, is refused as ``error``."""
        try:
            yield
        except (OSError, ValueError, OverflowError, MetadartsError) as error:
            said = _unread(error, name) if isinstance(error, OSError) else str(error)
            parts = f"{name}: {said}" if name else said, self.advice
            raise self.error("; ".join(part for part in parts if part)) from error


def content(path: Path, limit: int = MOST_BYTES) -> bytes:
    """What a file holds. Raises OSError; ValueError for what is no regular file, and for one larger than ``limit``."""
    _require_file(path, limit)
    with path.open("rb") as file:
        found = file.read(limit + 1)
    if len(found) > limit:  # it has grown meanwhile, or never says how much it holds
        raise ValueError(f"expected at most {limit} bytes, got more")
    return found


def loads(text: str | bytes, limit: int = MOST_BYTES, finite: bool = True) -> Any:
    """JSON as plain values.

    Raises:
        ValueError: for what is none or larger than ``limit``, nested deeper than `DEEPEST`, with a name twice in one
            object, with half a surrogate pair, which cannot be written again, or, if ``finite``, with a number that is
            not.
    """
    if len(text) > limit:
        raise ValueError(f"expected at most {limit} bytes, got {len(text)}")
    number = _finite if finite else None
    try:
        text = text.decode() if isinstance(text, bytes) else text
        _require_flat(text)
        found = json.loads(text, object_pairs_hook=_once, parse_constant=number, parse_float=number)
        if not text.isascii() or _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode()
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

    value = _with_rest(value, kind)
    try:
        found = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(fault(str(error), value, kind)) from error
    if odd := next(unknown(value, found), ""):
        raise ValueError(odd)
    return found


def fitting(value: Any, kind: type[Kind]) -> Kind | None:
    """``value`` as ``kind`` where it fits, else None: for records of other versions. Other fields are left out."""
    import msgspec

    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return None


def fitting_file(path: Path, kind: type[Kind]) -> Kind | None:
    """What a JSON file holds where it can be read and fits, as `fitting`; NaN and infinities may be in it."""
    try:
        return fitting(loads(content(path), finite=False), kind)
    except (OSError, ValueError):
        return None


def require_tensors(tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> None:
    """Require finite float32 tensors of exactly these names and shapes. Raises ValueError naming the first fault."""
    import torch

    if odd := sorted(tensors.keys() ^ shapes.keys()):
        raise ValueError(f"{odd[0]!r}: expected {'no such tensor' if odd[0] in tensors else 'a tensor, got none'}")
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != tuple(shape):
            raise ValueError(f"{name!r}: expected the shape {list(shape)}, got {list(tensor.shape)[:8]}")
        if tensor.dtype != torch.float32 or not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name!r}: expected finite float32 numbers, got {tensor.dtype} or others")


def require_printable(names: Iterable[str]) -> None:
    """Require names of classes that can be written. Raises DataError."""
    for name in names:
        if any("\ud800" <= letter <= "\udfff" for letter in name):  # of a file name that is not UTF-8
            raise DataError(f"the class name {name!a} holds half a letter, which cannot be printed: rename it")


def _unread(error: OSError, name: str) -> str:
    path = str(error.filename or "")
    return f"{'cannot be read' if path in name else f'cannot read {path}'} ({error.strerror or error})"


def _name_of(source: Path | str | bytes) -> str:
    return str(source) if isinstance(source, Path) else ""


def _described(path: Path, key: str, limit: int) -> tuple[str, dict[str, Tensor]]:
    """The text under ``key`` and the tensors. Raises OSError and ValueError."""
    from safetensors import safe_open

    _require_file(path, limit)
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(key)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except Exception as error:  # the library's own, and those of types that torch lacks
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"cannot be read as a .safetensors file ({first})") from error
    if text is None:
        raise ValueError("it holds tensors, but no description of them")
    return text, tensors


def _require_file(path: Path, limit: int) -> None:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # reading a pipe or a device may never end
        raise ValueError(f"expected a file, got a {'folder' if stat.S_ISDIR(found.st_mode) else 'pipe or device'}")
    if found.st_size > limit:
        raise ValueError(f"expected at most {limit} bytes, got {found.st_size}")


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
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"expected each name once in an object, got {shown(twice)} twice")
    return found


def _without_form(value: Any, form: str, version: int) -> Any:
    """``value`` without "format" and "version". Raises ValueError where they are others."""
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {shown(value)}")
    for name, expected in (("format", form), ("version", version)):
        found = value.get(name)
        if type(found) is not type(expected) or found != expected:
            hint = " (update metadarts)" if type(found) is int and found > version else ""
            raise ValueError(f"{name}: expected {expected!r}, got {shown(found) if name in value else 'none'}{hint}")
    return {name: item for name, item in value.items() if name not in ("format", "version")}


def _with_rest(value: Any, kind: Any) -> Any:
    """``value`` with what ``kind`` has no field for gathered in the field `REST`, where it has that."""
    names = {field.name for field in fields(kind)} - {REST} if is_dataclass(kind) else set()
    if not isinstance(value, dict) or not names or REST not in kind.__dataclass_fields__:
        return value
    own = {name: item for name, item in value.items() if name in names}
    return own | {REST: {name: item for name, item in value.items() if name not in names}}
