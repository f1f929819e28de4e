"""Sources by name, for configurations and the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from metadarts.core.errors import ConfigError, nearest
from metadarts.tasks.glyphs import glyphs
from metadarts.tasks.omniglot import omniglot
from metadarts.tasks.source import Source

SOURCES: dict[str, Callable[[Path | None], Source]] = {
    "glyphs": glyphs,
    "omniglot": lambda data: omniglot(data, download=data is None),  # into the cache, when no place is named
}
"""Name -> how to open it, given the place of its data (for glyphs: its cache folder)."""


def open_source(name: str, data: Path | None = None) -> Source:
    """Open a source by name: 'glyphs' (built in) or 'omniglot' (``data``: its .npz file or folder; else downloaded).

    Raises ConfigError for a name that no source has, DataError when its data is missing.
    """
    if name not in SOURCES:
        raise ConfigError(f"unknown source {name!r}; {nearest(name, SOURCES)}")
    return SOURCES[name](data)
