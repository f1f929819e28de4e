"""The form of sources that have one only."""

from __future__ import annotations

from metadarts.core.errors import ConfigError


def require_small_grey(name: str, size: int, channels: int) -> None:
    """Require 28x28 grey images, or what the source gives of itself. Raises ConfigError."""
    if size not in (0, 28) or channels not in (0, 1):
        raise ConfigError(
            f"{name} are 28x28 images of 1 channel, given tasks.size={size} and tasks.channels={channels}; "
            "leave both at 0 or choose another source"
        )
