"""Named settings for `metadarts search --preset NAME`."""

from __future__ import annotations

from typing import Any

from metadarts.core.errors import ConfigError, nearest

Settings = dict[str, Any]

COMMITS: Settings = {
    "space.inputs_by": "pairs",
    "space.none": False,
    "relaxation.name": "annealed",
    "relaxation.begin": 0.02,
    "relaxation.finish": 0.14,
    "relaxation.end": 0.03,
    "outer.alpha_warmup": 0.02,
    "outer.alpha_rate": 0.06,
    "commit.drop_below": 0.02,
    "commit.drop_from": 0.03,
    "commit.cell": 0.16,
}
"""Operations and pairs of inputs are annealed over the first part of the run; the cell that is left is trained on."""

_PROTOTYPES: Settings = {
    "training.tasks": 2,
    "training.validation_tasks": 60,
    "model.head": "prototype",
    "inner.steps": 1,
    "inner.alpha_rate": 10.0,
    "outer.final": 0.02,
}
"""Many classes and few tasks a step, a head of class means, and one inner step."""
_START: Settings = _PROTOTYPES | {"model.bn": "support"}
_GLYPHS: Settings = _START | {
    "tasks.train_ways": 12, "tasks.shots": 3, "tasks.queries": 3, "inner.weight_rate": 0.1, "training.validations": 5,
}  # fmt: skip
_CIFAR_FS: Settings = _START | {
    "tasks.train_ways": 10, "tasks.shots": 5, "tasks.queries": 5, "inner.weight_rate": 0.05, "training.validations": 6,
}  # fmt: skip
_CELL: Settings = COMMITS | {"training.meta_steps": 3000, "relaxation.finish": 0.1, "commit.cell": 0.11}
"""By a share of the meta-steps: those of the supernet take several times as long as those of the cell."""

_OMNIGLOT: Settings = _PROTOTYPES | {
    "training.minutes": 20.0, "training.validations": 4, "tasks.train_ways": 20, "tasks.queries": 3,
    "inner.weight_rate": 0.1,
}  # fmt: skip
_COLOUR: Settings = _PROTOTYPES | {
    "training.minutes": 20.0, "training.validations": 4, "tasks.train_ways": 10, "tasks.queries": 5,
    "inner.weight_rate": 0.05,
}  # fmt: skip

PRESETS: dict[str, Settings] = {
    "quick": COMMITS
    | _PROTOTYPES
    | {
        "training.minutes": 3.0,
        "training.validation_tasks": 40,
        "tasks.train_ways": 12,
        "tasks.queries": 3,
        "inner.weight_rate": 0.1,
        "evaluate.steps": 5,
        "commit.drop_below": 0.0,  # so that any cell can be cut out, to compare with
    },
    "omniglot": COMMITS | _OMNIGLOT,
    "cifar": COMMITS
    | _COLOUR
    | {  # a shorter search for a cheaper cell: both leave more steps to its weights
        "relaxation.begin": 0.01,
        "relaxation.finish": 0.08,
        "outer.alpha_warmup": 0.01,
        "commit.drop_from": 0.015,
        "commit.cell": 0.09,
        "cost.name": "multiply_adds",
        "training.cost_strength": 4e-7,
    },
    "quick-supernet": {
        "training.minutes": 3.0,
        "training.tasks": 8,
        "inner.steps": 2,
        "inner.weight_rate": 0.4,
        "evaluate.steps": 5,
        "outer.final": 0.05,
    },
    "omniglot-supernet": _OMNIGLOT,
    "cifar-supernet": _COLOUR,
    "start-glyphs": _GLYPHS | {"training.meta_steps": 1500},
    "start-cifar-fs": _CIFAR_FS | {"training.meta_steps": 2400},
    "start-glyphs-cell": _GLYPHS | _CELL,
    "start-cifar-fs-cell": _CIFAR_FS | _CELL,
    "tnas": {
        "training.meta_steps": 12500,
        "tasks.queries": 15,
        "inner.order": "first",
        "inner.weight_rate": 0.1,
        "inner.alpha_rate": 30.0,
        "outer.alpha_decay": 1e-3,
    },
}
"""`quick`, `omniglot` and `cifar` commit to a cell. `*-supernet` are those of version 0.1 but for outer.alpha_decay and
stay a mixture to the end, so that alphas adapt to every task. `tnas` is the paper's search (Lian et al., 2020).
`start-*` make the bundled starts, under `support` statistics, since what is exported has them frozen."""


def preset(name: str) -> Settings:
    """The settings of preset ``name``. Raises ConfigError."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}: {nearest(name, PRESETS)}")
    return dict(PRESETS[name])
