"""Import of learn2learn, without its notice about gym and with a clear error when it is missing."""

from __future__ import annotations

import contextlib
import importlib
import io
from typing import Any

from metadarts.core.errors import ConfigError


def import_learn2learn() -> Any:
    """The module learn2learn.

    learn2learn imports gym, which is unmaintained and prints a notice about this on stderr at its first import. Nothing
    here uses gym, so this notice is dropped. Output of learn2learn itself is not dropped, and no warning of either is
    silenced: they have none.

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
