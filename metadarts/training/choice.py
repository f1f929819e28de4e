"""A variant by name with its options, as a configuration writes it: ``relaxation: {name: softmax}``."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from metadarts.core.errors import ConfigError, nearest
from metadarts.core.variants import Variants

from .values import convert

NAME = "name"


@dataclass(frozen=True)
class Choice:
    """One entry of a table of variants.

    Args:
        name: of the entry.
        options: those that are not the entry's defaults.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(self, table: Variants[Any], *context: Any) -> Any:
        """The variant itself. Raises ConfigError on an unknown name, and what the entry raises."""
        return table[self.name](*context, **self.options)

    def with_option(self, path: str, value: Any, table: Variants[Any], context: int) -> Choice:
        """The choice with the setting ``path``, "GROUP.name" or "GROUP.OPTION"; another name drops all options.

        Args:
            table: of the entries.
            context: how many of an entry's first parameters are no options.

        Raises:
            ConfigError: on an unknown name or option, with the nearest valid one, or a wrong value.
        """
        _, _, option = path.partition(".")
        if option == NAME:
            if not isinstance(value, str) or value not in table:
                raise ConfigError(f"unknown {table.kind} {value!r}: {nearest(str(value), table)}")
            return self if value == self.name else Choice(value)
        hints = options_of(table[self.name], context)
        if option not in hints:
            raise ConfigError(
                f"unknown setting {path!r} of {table.kind} {self.name!r}: {nearest(option, [NAME, *hints])}"
            )
        kind, default = hints[option]
        try:
            value = convert(path, value, kind)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        others = {name: own for name, own in self.options.items() if name != option}
        return Choice(self.name, others if value == default else others | {option: value})

    def settings(self, table: Variants[Any], context: int) -> dict[str, Any]:
        """Name and all options, defaults included, as config.yaml has them."""
        found: dict[str, Any] = {NAME: self.name}
        for option, (_, default) in options_of(table[self.name], context).items():
            value = self.options.get(option, default)
            found[option] = list(value) if isinstance(value, tuple) else value
        return found


def options_of(entry: Callable[..., Any], context: int) -> dict[str, tuple[Any, Any]]:
    """Option -> (type, default) of an entry's parameters after its first ``context``. Raises ConfigError."""
    hints = typing.get_type_hints(entry)
    parameters = list(inspect.signature(entry).parameters.values())[context:]
    for parameter in parameters:
        if parameter.default is inspect.Parameter.empty or parameter.name not in hints:
            raise ConfigError(f"option {parameter.name!r} of {entry!r} needs a type and a default")
    return {parameter.name: (hints[parameter.name], parameter.default) for parameter in parameters}
