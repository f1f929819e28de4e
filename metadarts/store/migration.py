"""What version 0.1 wrote, in today's terms. The one place that knows old names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from metadarts.core.errors import ConfigError

RENAMED_SETTINGS = {
    "model.nodes": "space.nodes",
    "model.channels": "macro.channels",
    "model.stem": "macro.stem",
}
RENAMED_ENGINES = {"task_axis": "batched"}


def migrated_settings(settings: Mapping[str, Any], macro: str = "") -> dict[str, Any]:
    """Settings "group.field" under today's names and with today's values; those of today stay as they are.

    Args:
        macro: the macro network that they are applied to.

    Raises:
        ConfigError: for a network instead of conv4, where version 0.1 had another macro network.
    """
    found = dict(settings)
    if found.get("model.network") == "conv4":  # a network of its own then, a macro network now; it has no stem
        found |= {"model.network": "supernet", "macro.name": "conv4"}
    if found.get("macro.name", macro) == "conv4":
        found.pop("model.stem", None)
    if macro == "conv4" and found.get("model.network") in ("supernet", "cell") and "macro.name" not in found:
        raise ConfigError(
            f"model.network {found['model.network']!r}: the macro network stays 'conv4', which has no cells; set "
            "macro.name too, to tnas for the network of version 0.1"
        )
    engine = found.get("training.engine")
    if isinstance(engine, str) and engine in RENAMED_ENGINES:
        found["training.engine"] = RENAMED_ENGINES[engine]
    return {RENAMED_SETTINGS.get(name, name): value for name, value in found.items()}


RENAMED_FINISHES = {"soft": "supernet", "scratch": "retrained"}


def migrated_finish(name: str) -> str:
    """The name of a finish today; that of today stays as it is."""
    return RENAMED_FINISHES.get(name, name)


def migrated_task(told: Any) -> tuple[Any, Callable[[Mapping[str, Any]], dict[str, Any]]]:
    """The description of a task folder as today's, and what brings the names FINISH/NAME of its tensors there."""
    if not isinstance(told, dict) or (told.get("format"), told.get("version")) != ("metadarts.task", 1):
        return told, dict
    groups = {group: told[group] for group in ("solutions", "measured") if isinstance(told.get(group), dict)}
    found = {**told, "version": 2}
    found |= {group: {migrated_finish(name): of for name, of in table.items()} for group, table in groups.items()}
    if isinstance(network := found.pop("network", None), dict) and "nodes" in found:
        model = {name: network[name] for name in ("affine", "pool_norm", "head") if name in network}
        macro = {name: network[name] for name in ("channels", "stem") if name in network}
        space = {"name": "darts", "nodes": found.pop("nodes")}
        found["network"] = {"space": space, "macro": {"name": "tnas", **macro}, "model": model}
    return found, _migrated_names


def _migrated_names(tensors: Mapping[str, Any]) -> dict[str, Any]:
    parts = {name: name.partition("/") for name in tensors}
    return {f"{migrated_finish(finish)}{slash}{rest}": tensors[name] for name, (finish, slash, rest) in parts.items()}
