"""Settings of searches that stay a mixture to their end, as files: those of version 0.1 but for outer.alpha_decay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from metadarts.training import preset


def mixture(name: str) -> dict[str, Any]:
    """The settings that stay a mixture of the preset ``name``."""
    return preset(f"{name}-supernet")


def write_mixture(name: str, path: Path) -> Path:
    """Write them as a file for `metadarts search --config`."""
    groups: dict[str, dict[str, Any]] = {}
    for setting, value in mixture(name).items():
        group, _, field = setting.partition(".")
        groups.setdefault(group, {})[field] = value
    path.write_text(yaml.safe_dump(groups), encoding="utf-8")
    return path
