"""The errors a user can cause. Each message says what was expected, what was given, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MetadartsError(Exception):
    """Base of every error that metadarts raises on purpose; the command line prints it as one line, exit code 2."""


class ConfigError(MetadartsError):
    """A configuration field that does not exist or holds a value outside its range."""


class DataError(MetadartsError):
    """A data set that is missing, malformed, or too small for the episodes asked of it."""


class GenotypeError(MetadartsError):
    """A genotype that cannot be read, or that does not belong to the search space at hand."""


class RunError(MetadartsError):
    """A run folder that cannot be created, read or continued."""


class ModelError(MetadartsError):
    """An exported model that cannot be read, or that does not give its source's answers."""


class NumericsError(MetadartsError):
    """A computation with non-finite values, or statistics that the data cannot support."""


class ResourceError(MetadartsError):
    """A computation that needs more memory than there is."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Say which valid name is closest to ``name``, and list them all: the tail of a helpful error message."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}valid names: {', '.join(names)}"
