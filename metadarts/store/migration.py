"""What version 0.1 wrote, in today's terms. The one place that knows old names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED_SETTINGS = {
    "model.nodes": "space.nodes",
    "model.channels": "macro.channels",
    "model.stem": "macro.stem",
}
RENAMED_ENGINES = {"task_axis": "batched"}


def migrated_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings "group.field" under today's names and with today's values; those of today stay as they are."""
    found = dict(settings)
    if found.get("model.network") == "conv4":  # a network of its own then, a macro network now; it has no stem
        found |= {"model.network": "supernet", "macro.name": "conv4"}
        found.pop("model.stem", None)
        found.pop("model.nodes", None)
    engine = found.get("training.engine")
    if isinstance(engine, str) and engine in RENAMED_ENGINES:
        found["training.engine"] = RENAMED_ENGINES[engine]
    return {RENAMED_SETTINGS.get(name, name): value for name, value in found.items()}
