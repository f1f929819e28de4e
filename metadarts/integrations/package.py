"""Importing learn2learn: quietly, and with a sentence when it is missing."""

from __future__ import annotations

import contextlib
import importlib
import io
from typing import Any

from metadarts.core.errors import ConfigError


def import_learn2learn() -> Any:
    """The module learn2learn.

    It imports gym, which is out of maintenance and says so on stderr at every first import; nothing here uses gym, so
    that notice is dropped. What learn2learn itself writes is not, and no warning of either is silenced: they have none.

    Raises:
        ConfigError: when learn2learn is missing or cannot be imported; it says how to build it.
    """
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            importlib.import_module("gym")
        return importlib.import_module("learn2learn")
    except ImportError as error:
        raise ConfigError(
            f"expected the package learn2learn, which cannot be imported ({error}); run `make learn2learn`, "
            "which builds its version 0.2.0 (pip alone cannot on Python 3.11 and later)"
        ) from error
