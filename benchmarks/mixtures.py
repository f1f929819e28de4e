"""Settings of searches that stay a mixture to their end: the presets of version 0.1, to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MIXTURES: dict[str, dict[str, Any]] = {
    "quick": {
        "training.minutes": 3.0,
        "training.tasks": 8,
        "inner.steps": 2,
        "inner.weight_rate": 0.4,
        "evaluate.steps": 5,
        "outer.final": 0.05,
    },
    "omniglot": {
        "training.minutes": 20.0,
        "training.tasks": 2,
        "training.validations": 4,
        "training.validation_tasks": 60,
        "tasks.train_ways": 20,
        "tasks.queries": 3,
        "model.head": "prototype",
        "inner.steps": 1,
        "inner.weight_rate": 0.1,
        "inner.alpha_rate": 10.0,
        "outer.final": 0.02,
    },
    "cifar": {
        "training.minutes": 20.0,
        "training.tasks": 2,
        "training.validations": 4,
        "training.validation_tasks": 60,
        "tasks.train_ways": 10,
        "tasks.queries": 5,
        "model.head": "prototype",
        "inner.steps": 1,
        "inner.weight_rate": 0.05,
        "inner.alpha_rate": 10.0,
        "outer.final": 0.02,
    },
}


def write_mixture(name: str, path: Path) -> Path:
    """Write the settings ``name`` as a file for `metadarts search --config`."""
    groups: dict[str, dict[str, Any]] = {}
    for setting, value in MIXTURES[name].items():
        group, _, field = setting.partition(".")
        groups.setdefault(group, {})[field] = value
    path.write_text(yaml.safe_dump(groups), encoding="utf-8")
    return path
