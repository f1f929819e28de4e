"""Named settings for `metadarts search --preset NAME`."""

from __future__ import annotations

from typing import Any

from metadarts.core.errors import ConfigError, nearest

PRESETS: dict[str, dict[str, Any]] = {
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
    "start-glyphs": {
        "training.meta_steps": 1500,
        "training.tasks": 2,
        "training.validations": 5,
        "training.validation_tasks": 60,
        "tasks.train_ways": 12,
        "tasks.shots": 3,
        "tasks.queries": 3,
        "model.head": "prototype",
        "model.bn": "support",
        "inner.steps": 1,
        "inner.weight_rate": 0.1,
        "inner.alpha_rate": 10.0,
        "outer.final": 0.02,
    },
    "start-cifar-fs": {
        "training.meta_steps": 2400,
        "training.tasks": 2,
        "training.validations": 6,
        "training.validation_tasks": 60,
        "tasks.train_ways": 10,
        "tasks.shots": 5,
        "tasks.queries": 5,
        "model.head": "prototype",
        "model.bn": "support",
        "inner.steps": 1,
        "inner.weight_rate": 0.05,
        "inner.alpha_rate": 10.0,
        "outer.final": 0.02,
    },
    "tnas": {
        "training.meta_steps": 12500,
        "tasks.queries": 15,
        "inner.order": "first",
        "inner.weight_rate": 0.1,
        "inner.alpha_rate": 30.0,
        "outer.alpha_decay": 1e-3,
    },
}
"""`tnas` is the paper's search (Lian et al., 2020); `start-*` make
the bundled starts, under `support` statistics, since what is exported has them frozen."""


def preset(name: str) -> dict[str, Any]:
    """The settings of preset ``name``. Raises ConfigError."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}: {nearest(name, PRESETS)}")
    return dict(PRESETS[name])
