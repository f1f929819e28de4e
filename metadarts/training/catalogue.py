"""The tables of variants that a configuration chooses from, including the user's entries if plug-ins are loaded.

A plug-in is a user's module in the form of the modules of our packages: an ``OPERATION``, ``RELAXATION``, ``SPACE``,
``MACRO``, ``ALPHAS``, ``RULE``, ``COST``, ``SOURCE`` or ``SELECTION`` in it is an entry with the module's name. Its
code runs, so it is loaded only if the user names it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from metadarts.core.errors import ConfigError
from metadarts.core.variants import Variants
from metadarts.costs import COSTS
from metadarts.derive import SELECTIONS
from metadarts.meta import RULES
from metadarts.networks import ALPHA_STARTS, MACROS
from metadarts.operations import OPERATIONS
from metadarts.relaxations import RELAXATIONS
from metadarts.spaces import SPACES
from metadarts.tasks import SOURCES

ATTRIBUTES = {
    "OPERATION": "operations",
    "RELAXATION": "relaxations",
    "SPACE": "spaces",
    "MACRO": "macros",
    "ALPHAS": "alpha_starts",
    "RULE": "rules",
    "COST": "costs",
    "SOURCE": "sources",
    "SELECTION": "selections",
}
"""Attribute of a plug-in -> the table that it joins."""


@dataclass(frozen=True)
class Catalogue:
    """Every table of variants.

    Args:
        plugins: name -> SHA-256 of the text of each plug-in that has entries in them; of a package, of all its modules.
    """

    operations: Variants[Any] = OPERATIONS
    relaxations: Variants[Any] = RELAXATIONS
    spaces: Variants[Any] = SPACES
    macros: Variants[Any] = MACROS
    alpha_starts: Variants[Any] = ALPHA_STARTS
    rules: Variants[Any] = RULES
    costs: Variants[Any] = COSTS
    sources: Variants[Any] = SOURCES
    selections: Variants[Any] = SELECTIONS
    plugins: Mapping[str, str] = field(default_factory=dict)

    def plus(self, name: str, module: ModuleType, digest: str) -> Catalogue:
        """The tables with the entries of ``module``, a plug-in of its own name.

        Raises ConfigError where it has no entry, or its name is taken.
        """
        found = {
            table: getattr(module, attribute) for attribute, table in ATTRIBUTES.items() if hasattr(module, attribute)
        }
        if not found:
            raise ConfigError(f"plug-in {name!r} defines none of {', '.join(ATTRIBUTES)}: give it an entry")
        if name in self.plugins:
            raise ConfigError(f"two plug-ins are called {name!r}: rename one, or leave one out")
        tables = {table: getattr(self, table).plus(name, entry) for table, entry in found.items()}
        return replace(self, **tables, plugins={**self.plugins, name: digest})

    def require(self, named: Any, where: str) -> None:
        """Require the plug-ins ``named`` (name -> SHA-256), with the text that they had. Raises ConfigError."""
        if not isinstance(named, dict):
            raise ConfigError(f"{where}: plugins: expected names with their SHA-256")
        if missing := [name for name in named if name not in self.plugins]:
            raise ConfigError(
                f"{where} uses the plug-in {', '.join(map(repr, missing))}, whose code is not run unasked: if you "
                "trust it, name its file or module with --plugin"
            )
        for name, digest in named.items():
            if self.plugins[name] != digest:
                raise ConfigError(
                    f"{where}: the plug-in {name!r} is not what it was (SHA-256 {digest[:12]} then, "
                    f"{self.plugins[name][:12]} now); restore it, or start a new run"
                )


BUILT_IN = Catalogue()


def load_plugins(plugins: Sequence[str]) -> Catalogue:
    """The built-in tables with the entries of each of ``plugins``, a module's name or a .py file.

    Raises:
        ConfigError: where one cannot be found or imported, has no entry, or has one whose name is taken.
    """
    if isinstance(plugins, str):
        raise ConfigError(f"plugins: expected a list of files and modules, got {plugins!r}: give [{plugins!r}]")
    catalogue = BUILT_IN
    for plugin in plugins:
        path = _path_of(plugin)
        try:
            digest = _digest(path)
        except OSError as error:
            raise ConfigError(f"--plugin {plugin!r}: cannot be read ({error.strerror or error})") from error
        catalogue = catalogue.plus(_name_of(path), _imported(plugin, path, digest), digest)
    return catalogue


def _is_package(path: Path) -> bool:
    return path.name == "__init__.py"


def _name_of(path: Path) -> str:
    return path.resolve().parent.name if _is_package(path) else path.stem


def _digest(path: Path) -> str:
    """SHA-256 of a module's text; of a package all its modules', with their places."""
    if not _is_package(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    texts = {file.relative_to(path.parent).as_posix(): file.read_bytes() for file in path.parent.rglob("*.py")}
    lines = "".join(f"{name} {hashlib.sha256(text).hexdigest()}\n" for name, text in sorted(texts.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _path_of(plugin: str) -> Path:
    if plugin.endswith(".py"):
        path = Path(plugin)
        if not path.is_file():
            raise ConfigError(f"--plugin {plugin!r}: there is no such file")
        return path
    try:
        found = importlib.util.find_spec(plugin)
    except (Exception, SystemExit) as error:  # the packages around it are imported, and run
        raise ConfigError(f"--plugin {plugin!r}: finding it failed: {_gist(error)}") from error
    if found is None or found.origin is None or not Path(found.origin).is_file():
        raise ConfigError(f"--plugin {plugin!r}: expected a .py file or a module that can be imported")
    return Path(found.origin)


def _imported(plugin: str, path: Path, digest: str) -> ModuleType:
    """The module, imported once for each text: entries of one text are equal, however often they are asked for."""
    name = f"metadarts_plugin_{_name_of(path)}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--plugin {plugin!r}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        if not isinstance(error, Exception | SystemExit):
            raise
        raise ConfigError(f"--plugin {plugin!r}: importing it failed: {_gist(error)}") from error
    return module


def _gist(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
