"""Tables of variants: the entries that names in a configuration refer to, built from the modules of a package."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from importlib import import_module
from types import MappingProxyType
from typing import Any, TypeVar

from .errors import ConfigError, nearest

V = TypeVar("V")


class Variants(Mapping[str, V]):
    """A read-only mapping from names to variants of one kind. An unknown name raises ConfigError.

    Args:
        kind: what an entry is, for messages: "update rule".
        entries: by name, their order is kept; or what makes them when the table is first read.
    """

    def __init__(self, kind: str, entries: Mapping[str, V] | Callable[[], Mapping[str, V]]) -> None:
        self.kind = kind
        self._given = entries if callable(entries) else dict(entries)

    @cached_property
    def _entries(self) -> Mapping[str, V]:
        return MappingProxyType(dict(self._given() if callable(self._given) else self._given))

    def __getitem__(self, name: str) -> V:
        if name not in self:
            raise ConfigError(f"unknown {self.kind} {name!r}: {nearest(str(name), self._entries)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __hash__(self) -> int:
        return hash(frozenset(self._entries))  # equal tables have one hash, whatever their order

    def __deepcopy__(self, memo: object) -> Variants[V]:
        return self

    def __repr__(self) -> str:
        return f"Variants({self.kind!r}: {', '.join(self)})"

    def get(self, name: str, default: Any = None) -> Any:
        """The entry called ``name``, or ``default``."""
        return self._entries.get(name, default)

    def plus(self, name: str, entry: V) -> Variants[V]:
        """A table with one more entry. Raises ConfigError where the name is taken."""
        if name in self:
            raise ConfigError(f"{self.kind} {name!r} exists; choose another name")
        return Variants(self.kind, {**self._entries, name: entry})


def collect(package: str, attribute: str, kind: str) -> Variants[Any]:
    """The variants that the modules of ``package`` define, in the order of the modules' names.

    They are imported when the table is first read, so that a module may import the package, as one outside of it does.

    Every module (or subpackage) whose name has no leading underscore defines ``attribute``: one variant, called as the
    module, or a mapping of several by name. The table of a package is a line of its ``__init__.py``::

        RULES: Variants[Callable[..., Rule]] = collect(__name__, "RULE", "update rule")

    Its first use raises:
        TypeError: where a module does not define ``attribute``, or a name has been defined by another module.
    """
    return Variants(kind, partial(_imported, package, attribute))


def _imported(package: str, attribute: str) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for found in pkgutil.iter_modules(import_module(package).__path__):
        if found.name.startswith("_"):
            continue
        module = import_module(f"{package}.{found.name}")
        if not hasattr(module, attribute):
            raise TypeError(f"{module.__name__}: expected {attribute}; a helper's name begins with an underscore")
        value = getattr(module, attribute)
        named = value if isinstance(value, Mapping) else {found.name: value}
        if taken := entries.keys() & named.keys():
            raise TypeError(f"{module.__name__}: another module of {package} defines {sorted(taken)[0]!r} too")
        entries |= named
    return entries
