"""All settings with values and meanings, as `metadarts search --list-settings` shows them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, NamedTuple

from .choice import NAME, Choice, options_of
from .config import CHOICES, Config, table_of

_ARGUMENT = re.compile(r"(?P<names>[a-z]\w*(, [a-z]\w*)*): (?P<text>.+)")


class Setting(NamedTuple):
    """One line of the list.

    Args:
        path: as ``--set`` takes it.
        value: at present.
        meaning: what its docstring says.
    """

    path: str
    value: Any
    meaning: str

    @property
    def text(self) -> str:
        """The value as ``--set`` takes it."""
        if isinstance(self.value, tuple | list):
            return f"[{', '.join(map(str, self.value))}]"
        return "none" if self.value is None else str(self.value)


def list_settings(config: Config) -> Iterator[Setting]:
    """The settings of ``config``, group by group. Options of a variant are those of the one that is chosen."""
    for group in (one.name for one in fields(Config) if one.name != "catalogue"):
        section = getattr(config, group)
        if isinstance(section, Choice):
            yield from _choice(group, section, config)
            continue
        meanings = arguments_of(type(section))
        for one in fields(section):
            yield Setting(f"{group}.{one.name}", getattr(section, one.name), meanings.get(one.name, ""))


def _choice(group: str, chosen: Choice, config: Config) -> Iterator[Setting]:
    table = table_of(config, group)
    yield Setting(f"{group}.{NAME}", chosen.name, f"{table.kind}: {', '.join(sorted(table))}")
    entry = table[chosen.name]
    meanings = arguments_of(entry)
    for option, (_, default) in options_of(entry, CHOICES[group]).items():
        yield Setting(f"{group}.{option}", chosen.options.get(option, default), meanings.get(option, ""))


def arguments_of(described: Callable[..., Any]) -> dict[str, str]:
    """Argument -> what the section "Args" of the docstring says of it, or that of a base class, on one line."""
    if isinstance(described, type) and described is not object:
        bases = [arguments_of(base) for base in reversed(described.__bases__)]
        return {name: text for one in (*bases, _own_arguments(described)) for name, text in one.items()}
    return _own_arguments(described)


def _own_arguments(described: Callable[..., Any]) -> dict[str, str]:
    _, _, section = inspect.cleandoc(described.__doc__ or "").partition("Args:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        start = _ARGUMENT.fullmatch(line[4:])
        if start:
            names = start["names"].split(", ")
            found |= dict.fromkeys(names, start["text"])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found
