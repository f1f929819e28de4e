"""What relaxations require of their options."""

from __future__ import annotations

from metadarts.core.errors import ConfigError


def require_positive(name: str, **options: float) -> None:
    """Require every option above 0. Raises ConfigError."""
    for option, value in options.items():
        if not value > 0.0:
            raise ConfigError(f"relaxation {name!r}: {option}: expected a number above 0, got {value}")


def require_span(name: str, begin: float, finish: float) -> None:
    """Require 0 <= begin < finish <= 1. Raises ConfigError."""
    if not 0.0 <= begin < finish <= 1.0:
        raise ConfigError(f"relaxation {name!r}: expected 0 <= begin < finish <= 1, got {begin} and {finish}")
